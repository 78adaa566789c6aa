"""Stage `units`: the causal content encoder learns to tell units of speech and phonemes apart, at every setting of its latency dial.

Its narrow output is what the decoder will read; linear heads on it, which are not part of the model, classify the units, so whatever
it holds, it holds for them. Noise is added to it in training, which bounds how much of the speaker can pass (Beatrice 2's ratio).
"""

from collections.abc import Collection
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from rtvc.data.augment import AugmentConfig, augment
from rtvc.data.seeds import generator, numpy_generator
from rtvc.data.speech import Cut, Speech
from rtvc.data.symbols import SYMBOLS
from rtvc.data.utterance import UNKNOWN, Utterance
from rtvc.errors import ConfigError
from rtvc.layers.blocks import ConvBlock
from rtvc.models.streaming.analysis import BANDS, Analysis, audible_bands
from rtvc.models.streaming.assets import load_default
from rtvc.models.streaming.encoder import ContentEncoder, EncoderConfig
from rtvc.train.config import RunConfig, Section
from rtvc.train.feed import moved
from rtvc.train.material.units import CLUSTERS, LAYERS
from rtvc.train.stage import Batch, Stage
from rtvc.train.stream_data import CLEAN, stacked


class SpeechConfig(Section):
    """Where the labelled speech is and how it is fed."""

    labelled: list[Path] = Field(min_length=1)
    """Folders that `rtvc data label` wrote."""
    shares: list[float] | None = None
    """How much of each batch comes of each folder; default: equal shares."""
    batch: int = Field(default=12, ge=1)
    frames: int = Field(default=240, ge=16)
    """Length of the pieces, 12.5 ms a frame."""
    temper: float = Field(default=0.5, ge=0, le=1)
    """Speakers are drawn with weights of (number of utterances)^temper."""
    warp: float = Field(default=0.2, ge=0, lt=0.7)
    """Largest log-ratio of the speed at which pieces are played."""
    warp_share: float = Field(default=0.6, ge=0, le=1)
    """How often it is changed."""
    shortest: float = Field(default=1.5, ge=0)
    """Seconds below which utterances are left out."""
    held_out: int = Field(default=64, ge=0)
    """Utterances of speakers that are kept for held-out measurements."""
    kept: int = Field(default=512, ge=1)
    """Utterances kept in memory, about 0.5 MB each."""

    def speech(self) -> Speech:
        """The utterances."""
        return Speech(
            self.labelled, self.shares, shortest=self.shortest, held_out=self.held_out, kept=self.kept, temper=self.temper
        )


class Weights(Section):
    """Factors of the losses, each the mean over the dial's settings."""

    units: float = 1.0
    """Cross entropy of the units, the mean over the recogniser's layers."""
    phonemes: float = 0.5
    """Cross entropy of the phonemes, where they are known."""


class UnitsConfig(RunConfig):
    """Configuration of stage `units`."""

    data: SpeechConfig
    model: EncoderConfig = EncoderConfig()
    weights: Weights = Weights()
    augment: AugmentConfig = CLEAN
    warm: int = Field(default=16, ge=0)
    """Frames at the beginning of a piece that losses ignore: the network has heard too little."""
    noise: float = Field(default=0.5, ge=0)
    """Noise on the content in training, as a share of its size."""
    grow: bool = True
    """Whether the trunk begins as that of the shipped encoder, where the sizes allow it."""


class Heads(nn.Module):
    """content (B, Z, T) -> logits of the units (B, K, T) of every layer, and of the phonemes (B, P, T)."""

    def __init__(self, content: int, layers: int = len(LAYERS), clusters: int = CLUSTERS) -> None:
        super().__init__()
        self.sizes = [clusters] * layers + [len(SYMBOLS)]
        self.out = nn.Linear(content, sum(self.sizes))

    def forward(self, content: Tensor) -> list[Tensor]:
        """See the class; the phonemes come last."""
        logits: Tensor = self.out(content.mT).mT
        return list(logits.split(self.sizes, 1))


def noisy(content: Tensor, share: float) -> Tensor:
    """content (B, Z, T) with white noise of `share` of its root mean square."""
    size = content.detach().square().mean().sqrt()
    return content + share * size * torch.randn_like(content)


def effective_rank(frames: Tensor) -> float:
    """How many directions frames (K, Z) fill: the exponential of the entropy of their normalised singular values (Roy and Vetterli 2007)."""
    values = torch.linalg.svdvals((frames - frames.mean(0)).double())
    share = values / values.sum().clamp_min(1e-12)
    return float(torch.exp(-(share * share.clamp_min(1e-12).log()).sum()))


def same_speaker_nearest(means: Tensor, speakers: list[str]) -> float:
    """How often the nearest other utterance, by the cosine of mean contents (U, Z), is of the same speaker: a probe of what leaks."""
    centred = F.normalize(means - means.mean(0), dim=1)
    likeness = centred @ centred.T
    likeness.fill_diagonal_(-2)
    nearest = likeness.argmax(1).tolist()
    asked = [k for k, speaker in enumerate(speakers) if speakers.count(speaker) > 1]
    return sum(speakers[nearest[k]] == speakers[k] for k in asked) / max(1, len(asked))


class Units(Stage):
    """Trains `encoder` and `heads`."""

    config_type: ClassVar[type[RunConfig]] = UnitsConfig

    def __init__(self, config: UnitsConfig) -> None:
        self.config = config
        self.speech = config.data.speech()
        self.analysis = Analysis(config.model.fall)
        self.encoder = ContentEncoder.of(audible_bands(), config.model)
        self.heads = Heads(config.model.content)
        self.modules = {"analysis": self.analysis, "encoder": self.encoder, "heads": self.heads}
        self.phases = {"units": ["encoder", "heads"]}
        self.averaged = ("encoder", "heads")

    def begin(self, initialised: Collection[str]) -> None:
        """The trunk of the shipped encoder, unless `[[init]]` gave an encoder."""
        if not self.config.grow or "encoder" in initialised:
            return
        old = load_default().encoder.trunk.streaming_layers()
        ours = self.encoder.trunk.streaming_layers()
        mine = [ours[0], *(layer for layer in ours if isinstance(layer, ConvBlock))]
        try:
            for layer, source in zip(mine, old, strict=True):
                layer.load_state_dict(source.state_dict())
        except (RuntimeError, ValueError) as error:
            raise ConfigError(
                f"the shipped trunk does not fit model.hidden and model.dilations ({error}): set grow = false"
            ) from error

    def row(self, utterance: Utterance, speed: float, rng: np.random.Generator) -> Batch:
        """wave (N,), units (L, T), phonemes (T,), UNKNOWN beyond the end: one row."""
        piece, offset = Cut.draw(utterance, self.config.data.frames, speed, rng), self.analysis.centre
        outside = ~piece.within(offset)
        return {
            "wave": piece.wave(),
            "units": piece.units(offset).masked_fill(outside, UNKNOWN),
            "phonemes": piece.phonemes(offset).masked_fill(outside, UNKNOWN),
        }

    def batch(self, index: int) -> Batch:
        """wave (B, N) as the encoder hears it, units (B, L, T), phonemes (B, T)."""
        data, rng = self.config.data, numpy_generator(self.config.seed, "units", index)
        rows = []
        for _ in range(data.batch):
            speed = float(np.exp(rng.uniform(-data.warp, data.warp))) if rng.random() < data.warp_share else 1.0
            rows.append(self.speech.usable(self.speech.pick(rng), self.config.seed, lambda _, u, s=speed: self.row(u, s, rng)))
        batch = stacked(rows)
        batch["wave"] = augment(batch["wave"], self.config.augment, generator(self.config.seed, "units", index))
        return batch

    def mel(self, wave: Tensor) -> Tensor:
        """wave (B, N) -> log-mel (B, BANDS, T), without gradients, in float32."""
        with torch.no_grad(), torch.autocast(wave.device.type, enabled=False):
            heard: Tensor
            heard, _ = self.analysis(wave[:, None], self.analysis.initial(len(wave)))
        return heard[:, :BANDS]

    def losses(self, phase: str, batch: Batch, step: int) -> dict[str, Tensor]:
        """Cross entropies, averaged over the dial; the share of right units at every setting is only logged."""
        warm = self.config.warm
        units, phonemes = batch["units"][..., warm:], batch["phonemes"][:, warm:]
        contents = self.encoder.contents(self.mel(batch["wave"]), self.encoder.lookaheads)
        found: dict[str, list[Tensor]] = {"units": [], "phonemes": []}
        metrics: dict[str, Tensor] = {}
        for right, content in zip(self.encoder.lookaheads, contents, strict=True):
            content = content[..., warm:]
            content = noisy(content, self.config.noise) if self.encoder.training else content
            *logits, spoken = self.heads(content)
            found["units"].append(
                torch.stack([cross_entropy(x, units[:, layer]) for layer, x in enumerate(logits)]).mean()
            )
            found["phonemes"].append(cross_entropy(spoken, phonemes))
            metrics[f"metric/units_right_{right}"] = share_right(logits[-1], units[:, -1])
            metrics[f"metric/phonemes_right_{right}"] = share_right(spoken, phonemes)
        return {name: torch.stack(values).mean() for name, values in found.items()} | metrics

    def validate(self, step: int) -> dict[str, float]:
        """The same on speakers that are held out; rank of the content and how much of the speaker it tells, at the dial's second setting."""
        rng = numpy_generator(0, "held out")
        numbers = self.speech.held_out
        rows = [self.speech.usable(n, 0, lambda k, u: (self.row(u, 1.0, rng), self.speech.speakers[k])) for n in numbers]
        if not rows:
            return {}
        values: dict[str, list[float]] = {}
        frames, means = [], []
        shown = self.encoder.lookaheads[min(1, len(self.encoder.lookaheads) - 1)]
        for start in range(0, len(rows), self.config.data.batch):
            part = [row for row, _ in rows[start : start + self.config.data.batch]]
            batch = moved(stacked(part), self.analysis.window.device)
            for name, value in self.losses("units", batch, step).items():
                values.setdefault(name.removeprefix("metric/"), []).append(float(value) * len(part))
            (content,) = self.encoder.contents(self.mel(batch["wave"]), (shown,))
            inside = batch["units"][:, 0] != UNKNOWN
            for row, mask in zip(content.float().mT, inside, strict=True):
                frames.append(row[mask])
                means.append(row[mask].mean(0))
        return {name: sum(some) / len(rows) for name, some in values.items()} | {
            "rank": effective_rank(torch.cat(frames)),
            "speaker_nearest": same_speaker_nearest(torch.stack(means), [speaker for _, speaker in rows]),
        }

    def remarks(self) -> list[str]:
        """Utterances that could not be used."""
        return self.speech.remarks()


def cross_entropy(logits: Tensor, classes: Tensor) -> Tensor:
    """logits (B, K, T), classes (B, T) -> the mean over the frames whose class is known; 0 where none is."""
    losses = F.cross_entropy(logits.float(), classes, ignore_index=UNKNOWN, reduction="sum")
    return losses / (classes != UNKNOWN).sum().clamp_min(1)


def share_right(logits: Tensor, classes: Tensor) -> Tensor:
    """The share of known frames (B, T) whose class the logits (B, K, T) name."""
    known = classes != UNKNOWN
    return ((logits.argmax(1) == classes) & known).sum() / known.sum().clamp_min(1)
