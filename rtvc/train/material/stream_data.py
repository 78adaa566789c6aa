"""What the stages of the streaming model share: labelled speech as batches, and the analysis that
the model hears by."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor, nn

from rtvc.audio.mel import HOP
from rtvc.data.augment import AugmentConfig, drawn_speed
from rtvc.data.labelled import Utterance
from rtvc.data.labelled_speech import Labelled
from rtvc.data.seeds import numpy_generator
from rtvc.models.streaming.analysis import BANDS, Analysis
from rtvc.models.streaming.content import ContentEncoder
from rtvc.models.streaming.model import StreamingConfig
from rtvc.models.streaming.pitch import AHEAD
from rtvc.train.config import InitConfig, RunConfig, Section
from rtvc.train.material.first import FIRST, NAME
from rtvc.train.stage import Batch, Stage

T = TypeVar("T")
M = TypeVar("M", bound=nn.Module)

PITCH_OFFSET = HOP + AHEAD
"""Samples after the centre of a mel frame for which the pitch network's label stands, see
`PitchNet`."""
CLEAN = AugmentConfig(
    shift=0,
    room=0.25,
    room_seconds=(0.05, 0.25),
    room_ratio=(6, 20),
    equalise=0.6,
    equalise_db=8,
    noise=0.5,
    noise_snr=(10, 40),
    low_pass=0,
    codec=0,
    mu_law=0,
    gain=1,
    gain_db=(-24, 6),
    clip=0,
)
"""What recordings differ in; voices are varied by the speed of the pieces instead, which keeps
content and F0 labels exact."""


class LabelledConfig(Section):
    """Where the labelled speech is and how it is fed."""

    labelled: list[Path] = Field(min_length=1)
    """Folders that `rtvc teacher generate` and `rtvc data label` wrote."""
    batch: int = Field(default=12, ge=1, le=65536)
    frames: int = Field(default=240, ge=16, le=100_000)
    """Length of the pieces, 12.5 ms a frame."""
    exact_every: int = Field(default=3, ge=1)
    """Every so-many-th row of a batch is of the teacher, whose labels are exact."""
    temper: float = Field(default=0.35, ge=0, le=1)
    """Speakers are drawn with weights of (number of utterances)^temper."""
    warp: float = Field(default=0.2, ge=0, lt=0.7)
    """Largest log-ratio of the speed at which pieces are played."""
    warp_share: float = Field(default=0.7, ge=0, le=1)
    """How often it is changed."""
    shortest: float = Field(default=1.5, ge=0)
    """Seconds below which utterances are left out."""
    held_out: int = Field(default=16, ge=0)
    """Utterances kept for held-out measurements."""
    kept: int = Field(default=512, ge=1)
    """Utterances kept in memory, about 1 MB each."""


class StreamRun(RunConfig):
    """What the configurations of the streaming model's stages have in common."""

    data: LabelledConfig
    model: StreamingConfig = StreamingConfig()
    warm: int = Field(default=16, ge=0, le=100_000)
    """Frames at the beginning of a piece that losses ignore: the network has heard too little."""

    @field_validator("init")
    @classmethod
    def _first(cls, init: list[InitConfig]) -> list[InitConfig]:
        return [
            part.model_copy(update={"path": FIRST}) if str(part.path) == NAME else part
            for part in init
        ]


class StreamStage(Stage):
    """Pieces of labelled speech, and the analysis without gradients."""

    def __init__(self, config: StreamRun) -> None:
        data = config.data
        self.settings = config
        self.labelled = Labelled(
            data.labelled,
            shortest=data.shortest,
            held_out=data.held_out,
            kept=data.kept,
            temper=data.temper,
        )
        self.analysis = Analysis()

    def rows(
        self, name: str, index: int, make: Callable[[Utterance, int, float, np.random.Generator], T]
    ) -> list[T]:
        """`make(utterance, number, speed, rng)` for every row of a batch: a function of (seed,
        name, index)."""
        data, rng = self.settings.data, numpy_generator(self.settings.seed, name, index)
        rows = []
        for row in range(data.batch):
            number, utterance = self.labelled.utterance(
                self.labelled.pick(rng, row % data.exact_every == 0), self.settings.seed
            )
            speed = drawn_speed(data.warp, data.warp_share, rng)
            rows.append(make(utterance, number, speed, rng))
        return rows

    def held_out(self, make: Callable[[Utterance, int, float, np.random.Generator], T]) -> list[T]:
        """The same for the held-out utterances at their own speed; empty where there are none."""
        rng = numpy_generator(0, "held out")
        utterances = (self.labelled.utterance(number) for number in self.labelled.held_out)
        return [make(utterance, number, 1.0, rng) for number, utterance in utterances]

    def analysed(self, wave: Tensor, right: int = 1) -> Tensor:
        """wave (B, N) -> the analysis (B, C, N / HOP + 1 + right) in float32; frame t + 1 is
        centred on sample t * HOP."""
        with torch.no_grad(), torch.autocast(wave.device.type, enabled=False):
            y: Tensor
            y, _ = self.analysis(
                F.pad(wave[:, None], (0, (1 + right) * HOP)), self.analysis.initial(len(wave))
            )
        return y

    @staticmethod
    def recognised(encoder: ContentEncoder, features: Tensor, frames: int) -> tuple[Tensor, Tensor]:
        """features of `analysed` -> content (B, 512, frames) and phoneme logits (B, 178, frames),
        frame t centred on sample t * HOP."""
        hidden, _ = encoder.hidden(features[:, :BANDS], encoder.initial(len(features)))
        late = 1 + encoder.latency
        hidden = hidden[:, late : late + frames]
        return encoder.out(hidden).mT.float(), encoder.phonemes(hidden).mT.float()

    def remarks(self) -> list[str]:
        """Utterances that could not be used."""
        return self.labelled.remarks()


def stacked(rows: list[Batch]) -> Batch:
    """Rows -> a batch."""
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def frozen(module: M) -> M:
    """The module in evaluation mode, its weights untrainable."""
    module.eval().requires_grad_(False)
    return module
