"""Stage `units`: the causal content encoder learns to tell units of speech and phonemes apart, at
every setting of its latency dial.

Its narrow output is what the decoder will read; linear heads on it, which are not part of the
model, classify the units, so whatever it holds, it holds for them. Noise is added to it in
training, which bounds how much of the speaker can pass (Beatrice 2's ratio).
"""

import math
from collections.abc import Collection
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from rtvc.data.utterance import UNKNOWN
from rtvc.errors import ConfigError
from rtvc.layers.blocks import ConvBlock
from rtvc.models.streaming.analysis import BANDS, Analysis, audible_bands
from rtvc.models.streaming.encoder import ContentEncoder, EncoderConfig
from rtvc.train.config import RunConfig, Section
from rtvc.train.material.first import first_generation
from rtvc.train.material.stream_data import stacked
from rtvc.train.material.unit_batches import Heads, SpeechRun, SpeechStage, analysed, unit_losses
from rtvc.train.prefetch import moved
from rtvc.train.stage import Batch


class Weights(Section):
    """Factors of the losses, each the mean over the dial's settings."""

    units: float = 1.0
    """Cross entropy of the units, the mean over the recogniser's layers."""
    phonemes: float = 0.5
    """Cross entropy of the phonemes, where they are known."""


class UnitsConfig(SpeechRun):
    """Configuration of stage `units`."""

    model: EncoderConfig = EncoderConfig()
    weights: Weights = Weights()
    noise: float = Field(default=0.5, ge=0)
    """Noise on the content in training, as a share of its size."""
    grow: bool = True
    """Whether the trunk begins as that of the first generation's encoder, where the sizes allow
    it."""


def noisy(content: Tensor, share: float) -> Tensor:
    """content (B, Z, T) with white noise of `share` of its root mean square."""
    size = content.detach().square().mean().sqrt()
    return content + share * size * torch.randn_like(content)


def effective_rank(frames: Tensor) -> float:
    """How many directions frames (K, Z) fill: exp of the entropy of their normalised singular
    values (Roy and Vetterli 2007)."""
    values = torch.linalg.svdvals((frames - frames.mean(0)).double())
    share = values / values.sum().clamp_min(1e-12)
    return float(torch.exp(-(share * share.clamp_min(1e-12).log()).sum()))


def same_speaker_nearest(means: Tensor, speakers: list[str]) -> float:
    """How often the nearest other utterance, by the cosine of mean contents (U, Z), is of the same
    speaker: a probe of what leaks. NaN where nobody has two utterances."""
    centred = F.normalize(means - means.mean(0), dim=1)
    likeness = centred @ centred.T
    likeness.fill_diagonal_(-2)
    nearest = likeness.argmax(1).tolist()
    asked = [k for k, speaker in enumerate(speakers) if speakers.count(speaker) > 1]
    if not asked:
        return math.nan
    right: float = sum(speakers[nearest[k]] == speakers[k] for k in asked) / len(asked)
    return right


class Units(SpeechStage):
    """Trains `encoder` and `heads`."""

    config_type: ClassVar[type[RunConfig]] = UnitsConfig

    def __init__(self, config: UnitsConfig) -> None:
        super().__init__(config)
        self.config = config
        self.analysis = Analysis(config.model.fall)
        self.centre, self.from_frame = self.analysis.centre, config.warm
        self.encoder = ContentEncoder.of(audible_bands(), config.model)
        self.heads = Heads(config.model.content)
        self.modules = {"analysis": self.analysis, "encoder": self.encoder, "heads": self.heads}
        self.phases = {"units": ["encoder", "heads"]}
        self.averaged = ("encoder", "heads")

    def begin(self, initialised: Collection[str]) -> None:
        """The trunk of the first generation's encoder, unless `[[init]]` gave an encoder."""
        if not self.config.grow or "encoder" in initialised:
            return
        old = first_generation().encoder.trunk.streaming_layers()
        ours = self.encoder.trunk.streaming_layers()
        mine = [ours[0], *(layer for layer in ours if isinstance(layer, ConvBlock))]
        try:
            for layer, source in zip(mine, old, strict=True):
                layer.load_state_dict(source.state_dict())
        except (RuntimeError, ValueError) as error:
            raise ConfigError(
                "the first generation's trunk does not fit model.hidden and model.dilations"
                f" ({error}): set grow = false"
            ) from error

    def batch(self, index: int) -> Batch:
        """wave (B, N); source (B, N), the same through another microphone or said by another voice;
        units (B, L, T), phonemes (B, T)."""
        return self.augmented(stacked(self.rows(index)), index)

    def mel(self, wave: Tensor) -> Tensor:
        """wave (B, N) -> log-mel (B, BANDS, T), without gradients, in float32."""
        return analysed(self.analysis, wave)[:, :BANDS]

    def losses(self, phase: str, batch: Batch, step: int) -> dict[str, Tensor]:
        """Cross entropies, averaged over the dial; the share of right units at every setting is
        only logged."""
        warm = self.config.warm
        units, phonemes = batch["units"][..., warm:], batch["phonemes"][:, warm:]
        contents = self.encoder.contents(self.mel(batch["source"]), self.encoder.lookaheads)
        losses: dict[str, list[Tensor]] = {"units": [], "phonemes": []}
        metrics: dict[str, Tensor] = {}
        for right, content in zip(self.encoder.lookaheads, contents, strict=True):
            content = content[..., warm:]
            values = unit_losses(
                self.heads(noisy(content, self.config.noise) if self.encoder.training else content),
                units,
                phonemes,
            )
            for name, value in values.items():
                if name in losses:
                    losses[name].append(value)
                else:
                    metrics[f"{name}_{right}"] = value
        return {name: torch.stack(some).mean() for name, some in losses.items()} | metrics

    def validate(self, step: int) -> dict[str, float]:
        """The same on speakers that are held out; rank of the content and how much it tells of the
        speaker."""
        frames, means, speakers = [], [], []
        shown = self.encoder.lookaheads[min(1, len(self.encoder.lookaheads) - 1)]
        for rows, names in self.held_out_batches():
            batch = moved(rows, self.device())
            (content,) = self.encoder.contents(self.mel(batch["source"]), (shown,))
            for row, mask in zip(content.float().mT, batch["units"][:, 0] != UNKNOWN, strict=True):
                frames.append(row[mask])
                means.append(row[mask].mean(0))
            speakers += names
        if not speakers:
            return {}
        measures = {
            "rank": effective_rank(torch.cat(frames)),
            "speaker_nearest": same_speaker_nearest(torch.stack(means), speakers),
        }
        return self.held_out_losses("units", step) | {
            name: value for name, value in measures.items() if not math.isnan(value)
        }
