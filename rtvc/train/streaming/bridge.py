"""Stage `bridge`: from what a large speech recogniser hears to the teacher's content, so that real
speech gets content labels.

Whisper's last encoder layer hardly depends on the voice, nor on whether speech is real or
synthetic; a small network learned on minutes of the teacher's speech translates it. It looks both
ways and is never part of the streaming model.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from rtvc.audio.mel import SAMPLE_RATE
from rtvc.audio.resample import resample
from rtvc.data.cache import Array, Cache, key_of
from rtvc.data.labelled import CONTENT
from rtvc.data.labelled_speech import Labelled
from rtvc.data.seeds import numpy_generator
from rtvc.errors import DependencyError
from rtvc.models.build import axis, count
from rtvc.models.loading import filled, outlined
from rtvc.models.streaming.content import PHONEMES
from rtvc.teacher.whisper_base import SHA256, whisper_base
from rtvc.train.config import RunConfig, Section
from rtvc.train.losses.losses import frame_cross_entropy
from rtvc.train.losses.shares import measured, share
from rtvc.train.material.stream_data import stacked
from rtvc.train.prefetch import moved
from rtvc.train.stage import Batch, Stage

HEARD = 512
"""Channels of Whisper base's encoder."""
RATE = 16_000
WINDOW = 2_800
"""Mel frames (28 s) that the encoder takes at once; it makes one output frame, 20 ms, of two."""
Listen = Callable[[Array], Array]


class Listener:
    """Recordings (N,) float32 at 24 kHz -> what Whisper base's encoder makes of them, (T, 512)
    float16 at 50 Hz."""

    def __init__(self, folder: Path | None = None, threads: int = 1) -> None:
        """With the model in `folder`, by default the one that the package registry publishes;
        loaded at the first call."""
        self.folder, self.threads = folder, threads
        self.model: Any = None

    def __call__(self, wave: Array) -> Array:
        """See the class.

        Raises:
            DependencyError: faster-whisper is not installed, or the model cannot be fetched.
        """
        try:
            import ctranslate2  # type: ignore[import-untyped, unused-ignore]
            from faster_whisper import WhisperModel
        except ImportError as error:
            raise DependencyError(
                "content labels need faster-whisper: pip install 'rtvc-engine[train]'"
            ) from error
        if self.model is None:
            folder = str(self.folder or whisper_base())
            self.model = WhisperModel(
                folder, device="cpu", compute_type="float32", cpu_threads=self.threads
            )
        samples = np.pad(resample(wave.astype(np.float32), SAMPLE_RATE, RATE), (0, RATE // 2))
        mel = self.model.feature_extractor(samples, padding=0)
        mel = mel[:, : mel.shape[1] // 2 * 2].astype(np.float32)
        parts = [
            np.ascontiguousarray(mel[None, :, start : start + WINDOW])
            for start in range(0, mel.shape[1], WINDOW)
        ]
        encoded = [
            self.model.model.encode(ctranslate2.StorageView.from_array(part), to_cpu=True)
            for part in parts
        ]
        states = np.concatenate([np.array(part)[0] for part in encoded])
        return np.asarray(states, np.float16)


def at_40(states: Tensor, frames: int) -> Tensor:
    """states (T, C) at 50 Hz -> (frames, C) at 40 Hz, linearly interpolated at the middle of every
    content frame."""
    place = ((torch.arange(frames) + 0.5) * 1.25).clamp(0, len(states) - 1.001)
    before = place.long()
    share = (place - before)[:, None]
    return states[before] * (1 - share) + states[before + 1] * share


class BridgeBlock(nn.Module):
    """x + Linear(GELU(Conv(norm(x)))) over (B, T, C), looking both ways."""

    def __init__(self, channels: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.conv = nn.Conv1d(channels, channels, kernel, padding=kernel // 2)
        self.out = nn.Linear(channels, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, C) -> (B, T, C)."""
        y: Tensor = x + self.dropout(self.out(F.gelu(self.conv(self.norm(x).mT).mT)))
        return y


class BridgeNet(nn.Module):
    """states (B, T, 512) at 40 Hz -> content (B, T, 512) and phoneme logits (B, T, 178)."""

    def __init__(
        self, hidden: int = 384, blocks: int = 5, kernel: int = 5, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.inputs = nn.Linear(HEARD, hidden)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(BridgeBlock(hidden, kernel, dropout) for _ in range(blocks)))
        self.norm = nn.LayerNorm(hidden)
        self.out, self.phonemes = nn.Linear(hidden, CONTENT), nn.Linear(hidden, PHONEMES)

    @classmethod
    def of_weights(cls, weights: Mapping[str, Tensor]) -> "BridgeNet":
        """At the size of a state dict, with its weights, ready to label.

        Raises:
            CheckpointError: they are not a bridge's, or not finite.
        """
        first = "blocks.0.conv.weight"
        hidden, kernel = axis(weights, first, 0, 384), axis(weights, first, 2, 5)
        net = outlined(lambda: cls(hidden, count(weights, "blocks.", 5), kernel), "the bridge")
        return filled(net, weights, "the bridge")

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        x = self.norm(self.blocks(self.inputs(self.dropout(states))))
        return self.out(x), self.phonemes(x)


class BridgeModel(Section):
    """Sizes of the network."""

    hidden: int = Field(default=384, ge=4, le=8192)
    blocks: int = Field(default=5, ge=1, le=64)
    kernel: int = Field(default=5, ge=1, le=63)
    dropout: float = Field(default=0.1, ge=0, lt=1)


class BridgeData(Section):
    """The teacher's speech."""

    labelled: list[Path] = Field(min_length=1)
    """Folders that `rtvc teacher generate` wrote."""
    batch: int = Field(default=16, ge=1, le=65536)
    frames: int = Field(default=200, ge=8, le=100_000)
    """Length of the pieces, 25 ms a frame."""
    held_out: int = Field(default=16, ge=0)
    cache: Path | None = None
    """Folder for what the recogniser hears; it is made once."""
    cache_mb: float = Field(default=1024.0, ge=0)
    kept: int = Field(default=512, ge=1)


class Weights(Section):
    """Factors of the losses."""

    content: float = 10.0
    """L1 to the teacher's content, whose mean size is about 0.1."""
    phonemes: float = 0.3


class BridgeConfig(RunConfig):
    """Configuration of stage `bridge`."""

    data: BridgeData
    model: BridgeModel = BridgeModel()
    weights: Weights = Weights()
    noise: float = Field(default=0.1, ge=0)
    """Deviation of the noise on what is heard, as a share of its own."""


class Bridge(Stage):
    """Trains `bridge`."""

    config_type: ClassVar[type[RunConfig]] = BridgeConfig

    def __init__(self, config: BridgeConfig, listen: Listen | None = None) -> None:
        self.config = config
        self.net = BridgeNet(**config.model.model_dump())
        self.modules = {"bridge": self.net}
        self.phases = {"bridge": ("bridge",)}
        self.averaged = ("bridge",)
        self.labelled = Labelled(
            config.data.labelled, held_out=config.data.held_out, kept=config.data.kept
        )
        self.listen = listen or Listener()
        self.cache = Cache(config.data.cache, config.data.cache_mb)

    def row(self, number: int, rng: np.random.Generator | None) -> Batch:
        """states (T, 512), content (T, 512), phonemes (T,), -1 behind the end: a random piece, or
        the first without `rng`."""
        number, utterance = self.labelled.utterance(number, self.config.seed)
        key = key_of(self.labelled.files[number], "whisper-base", SHA256)
        stored = self.cache.get(
            key, lambda: self.listen(utterance.audio.astype(np.float32) / 32768)
        )
        total, frames = len(utterance.phonemes), self.config.data.frames
        start = int(rng.integers(max(0, total - frames) + 1)) if rng is not None else 0
        piece = slice(start, start + frames)
        short = max(0, frames - total)
        states = at_40(torch.from_numpy(stored.astype(np.float32)), total)[piece]
        content = torch.from_numpy(utterance.content[:, piece].T.astype(np.float32))
        phonemes = torch.from_numpy(utterance.phonemes[piece].astype(np.int64))
        return {
            "states": F.pad(states, (0, 0, 0, short)),
            "content": F.pad(content, (0, 0, 0, short)),
            "phonemes": F.pad(phonemes, (0, short), value=-1),
        }

    def batch(self, index: int) -> Batch:
        """states (B, T, 512) at 40 Hz, content (B, T, 512), phonemes (B, T)."""
        rng = numpy_generator(self.config.seed, "bridge", index)
        return stacked(
            [self.row(self.labelled.pick(rng, True), rng) for _ in range(self.config.data.batch)]
        )

    def losses(self, phase: str, batch: Batch, step: int) -> dict[str, Tensor]:
        """L1 of content and cross entropy of phonemes; the share of right phonemes is only
        logged."""
        states, phonemes = batch["states"], batch["phonemes"]
        if self.net.training:
            states = states + self.config.noise * states.std() * torch.randn_like(states)
        content, logits = (x.float() for x in self.net(states))
        known = phonemes >= 0
        distance = (content - batch["content"]).abs().mean(-1)
        return {
            "content": (distance * known).sum() / known.sum().clamp_min(1),
            "phonemes": frame_cross_entropy(logits.mT, phonemes),
            "metric/phonemes_right": share(logits.argmax(-1) == phonemes, known),
        }

    def validate(self, step: int) -> dict[str, float]:
        """The same on held-out utterances."""
        rows = [self.row(number, None) for number in self.labelled.held_out]
        if not rows:
            return {}
        return measured(self.losses("bridge", moved(stacked(rows), self.device()), step))

    def remarks(self) -> list[str]:
        """Utterances that could not be used."""
        return self.labelled.remarks()
