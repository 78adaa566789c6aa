"""Stage `pitch`: the JDC pitch extractor from recordings alone, its labels by the WORLD vocoder's
Harvest.

Source: StyleTTS-VC, section III-A; the authors' PitchExtractor repository.
"""

from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from rtvc.audio.mel import HOP, SAMPLE_RATE
from rtvc.data.augment import AugmentConfig, augment
from rtvc.data.cache import Array
from rtvc.data.dataset import Corpus, piece
from rtvc.data.seeds import generator
from rtvc.errors import DependencyError
from rtvc.train.config import DataConfig, RunConfig, Section
from rtvc.train.losses.shares import measured, share
from rtvc.train.material.components import ModelConfig, pitch_extractor
from rtvc.train.material.recorded import PieceStage
from rtvc.train.material.speech import exact_mel
from rtvc.train.stage import Batch, Samples

HELD_OUT = 32
"""Recordings that are measured."""
FEWEST = 5
"""Voiced frames below which Harvest is taken to have failed and DIO is asked."""


class Weights(Section):
    """Factors of the losses."""

    f0: float = 0.1
    """Smooth L1 of F0 in Hz."""
    voicing: float = 1.0
    """Cross entropy of voiced against unvoiced."""


class PitchConfig(RunConfig):
    """Configuration of stage `pitch`."""

    data: DataConfig
    model: ModelConfig = ModelConfig()
    weights: Weights = Weights()
    augment: AugmentConfig = AugmentConfig(
        shift=0, room=0, equalise=0, noise=0, low_pass=0, codec=0, mu_law=0, gain=1, clip=0
    )
    """Of what the network hears; the labels are of the clean recording, so `shift` must stay 0."""
    lowest: float = Field(default=50.0, gt=0)
    """F0 in Hz below which nothing is voiced."""
    highest: float = Field(default=800.0, gt=0)


def world_f0(wave: Tensor, lowest: float, highest: float) -> Array:
    """wave (N,) at 24 kHz -> F0 (1 + N // 300,) float32 in Hz at 80 Hz, 0 where unvoiced, frame t
    at sample 300 t.

    Raises:
        DependencyError: pyworld is not installed.
    """
    try:
        import pyworld
    except ImportError as error:
        raise DependencyError("F0 labels need pyworld: pip install 'rtvc-engine[train]'") from error
    samples = wave.double().numpy()
    settings = {"f0_floor": lowest, "f0_ceil": highest, "frame_period": 1000 * HOP / SAMPLE_RATE}
    f0, times = pyworld.harvest(samples, SAMPLE_RATE, **settings)
    if np.count_nonzero(f0) < FEWEST:
        f0, times = pyworld.dio(samples, SAMPLE_RATE, **settings)
    f0 = np.nan_to_num(pyworld.stonemask(samples, f0, times, SAMPLE_RATE))
    frames = 1 + len(samples) // HOP
    labels: Array = np.pad(f0, (0, max(0, frames - len(f0))))[:frames].astype(np.float32)
    return labels


class Pitch(PieceStage):
    """Trains `pitch_extractor`."""

    config_type: ClassVar[type[RunConfig]] = PitchConfig
    draws = "pitch"

    def __init__(self, config: PitchConfig) -> None:
        super().__init__(config.data, config.seed)
        self.config, self.shown = config, HELD_OUT
        self.net = pitch_extractor(config.model)
        self.modules = {"pitch_extractor": self.net}
        self.phases = {"pitch": ("pitch_extractor",)}
        self.averaged = ("pitch_extractor",)
        self.samples = round(config.data.seconds * SAMPLE_RATE) // HOP * HOP

    def labelled(self, corpus: Corpus, number: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
        """A piece of a recording (N,) and its F0 (N / 300,)."""
        low, high = self.config.lowest, self.config.highest

        def use(k: int) -> tuple[Tensor, Array]:
            return corpus.wave(k), corpus.labels(
                k, f"harvest {low:g} {high:g}", lambda wave: world_f0(wave, low, high)
            )

        wave, f0 = corpus.usable(number, self.config.seed, use)
        cut, frame = piece(torch.from_numpy(f0.copy()), self.samples // HOP, draw)
        sound = wave[frame * HOP : frame * HOP + self.samples]
        return F.pad(sound, (0, self.samples - len(sound))), cut

    def pieces(self, corpus: Corpus, numbers: list[int], draw: torch.Generator) -> Batch:
        """wave (B, N), f0 (B, T) in Hz, 0 where unvoiced."""
        rows = [self.labelled(corpus, number, draw) for number in numbers]
        wave, f0 = (torch.stack(parts) for parts in zip(*rows, strict=True))
        return {"wave": wave, "f0": f0}

    def batch(self, index: int) -> Batch:
        """The same, the wave as the network hears it."""
        draw = generator(self.seed, self.draws, index)
        batch = self.pieces(self.corpus, self.order(index), draw)
        batch["wave"] = augment(batch["wave"], self.config.augment, draw)
        return batch

    def losses(self, phase: str, batch: Batch, step: int) -> dict[str, Tensor]:
        """Smooth L1 of F0, cross entropy of voicing; the share of voiced frames within 50 cents is
        only logged."""
        f0 = batch["f0"]
        mel = exact_mel(batch["wave"])[:, None, :, : f0.shape[1]]
        pitch, logits = self.net.joint(mel)
        predicted, voicing = pitch.f0.float(), logits.float()
        voiced = f0 > 0
        cents = 1200 * torch.log2(predicted.clamp_min(1) / f0.clamp_min(1)).abs()
        return {
            "f0": F.smooth_l1_loss(predicted, f0),
            "voicing": F.cross_entropy(voicing.mT, (~voiced).long()),
            "metric/within_50_cents": share(cents < 50, voiced),
            "metric/voicing_accuracy": ((voicing.argmax(-1) == 0) == voiced).float().mean(),
        }

    def validate(self, step: int) -> dict[str, float]:
        """The same on held-out pieces."""
        batch = self.held_out_batch()
        return {} if batch is None else measured(self.losses("pitch", batch, step))

    def sample(self, step: int) -> Samples:
        """One piece, heard and seen, with its true F0 and the predicted one drawn as bright lines
        over the mel."""
        batch = self.first()
        wave = batch["wave"][:1]
        mel = exact_mel(wave)[:, :, : batch["f0"].shape[1]]
        f0 = self.net(mel[:, None]).f0[0].cpu()
        return Samples(
            {"heard": wave[0]},
            {"found": drawn(mel[0].cpu(), f0), "true": drawn(mel[0].cpu(), batch["f0"][0].cpu())},
        )


def drawn(mel: Tensor, f0: Tensor) -> Tensor:
    """mel (80, T) with F0 (T,) in Hz as a line, 10 Hz a band."""
    picture = mel.clone()
    rows = (f0 / 10).round().long().clamp(0, 79)
    picture[rows, torch.arange(len(rows))] = mel.max() + 1
    return picture
