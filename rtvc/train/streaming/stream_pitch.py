"""Stage `stream_pitch`: the causal F0 and voicing network learns from labelled speech."""

from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from rtvc.audio.mel import SAMPLE_RATE
from rtvc.data.augment import AugmentConfig, augment
from rtvc.data.labelled import Cut, Utterance
from rtvc.data.seeds import generator
from rtvc.models.streaming.analysis import BANDS
from rtvc.models.streaming.model import pitch_net
from rtvc.train.config import RunConfig, Section
from rtvc.train.losses.pitch_losses import pitch_losses
from rtvc.train.losses.shares import measured
from rtvc.train.material.stream_data import CLEAN, PITCH_OFFSET, StreamRun, StreamStage, stacked
from rtvc.train.prefetch import moved
from rtvc.train.stage import Batch, Samples


class Weights(Section):
    """Factors of the losses."""

    f0: float = 1.0
    """Cross entropy of the bin, against a bell of one bin's width around the true F0."""
    voicing: float = 1.0


class StreamPitchConfig(StreamRun):
    """Configuration of stage `stream_pitch`."""

    weights: Weights = Weights()
    augment: AugmentConfig = CLEAN
    high: float = Field(default=0.0, ge=0, le=1)
    """Share of pieces that are played so fast that their pitch rises by one to two octaves: sung
    notes are rare in speech."""


class StreamPitch(StreamStage):
    """Trains `pitch`."""

    config_type: ClassVar[type[RunConfig]] = StreamPitchConfig

    def __init__(self, config: StreamPitchConfig) -> None:
        super().__init__(config)
        self.config = config
        self.net = pitch_net(config.model)
        self.modules = {"analysis": self.analysis, "pitch": self.net}
        self.phases = {"pitch": ("pitch",)}
        self.averaged = ("pitch",)

    def row(
        self, utterance: Utterance, number: int, speed: float, rng: np.random.Generator
    ) -> Batch:
        """wave (N,), log_f0, voiced and known (T,): one row."""
        if self.config.high and rng.random() < self.config.high:
            speed *= float(np.exp2(rng.uniform(0.8, 2.0)))
        piece = Cut.draw(utterance, self.config.data.frames, speed, rng)
        log_f0, _ = piece.melody(PITCH_OFFSET)
        voiced, known = (
            torch.from_numpy(x) for x in utterance.voicing(piece.seconds(PITCH_OFFSET))
        )
        if self.config.high:  # fast pieces may run past the end, where nothing is known
            lasts = len(utterance.audio) / SAMPLE_RATE
            inside = torch.from_numpy(piece.seconds(PITCH_OFFSET) < lasts)
            voiced, known = voiced * inside, known * inside
        return {"wave": piece.wave(), "log_f0": log_f0, "voiced": voiced, "known": known}

    def batch(self, index: int) -> Batch:
        """wave (B, N) as the network hears it; log_f0 (B, T) in log Hz; voiced and known (B, T), 0
        or 1."""
        batch = stacked(self.rows("pitch", index, self.row))
        batch["wave"] = augment(
            batch["wave"], self.config.augment, generator(self.config.seed, "pitch", index)
        )
        return batch

    def losses(self, phase: str, batch: Batch, step: int) -> dict[str, Tensor]:
        """Cross entropies of F0 and voicing; the share of voiced frames within a semitone is only
        logged."""
        warm = self.config.warm
        log_f0, voiced, known = (batch[name][:, warm:] for name in ("log_f0", "voiced", "known"))
        features = self.analysed(batch["wave"])[:, BANDS:]
        logits, _ = self.net.logits(features, self.net.initial(len(features)))
        logits = logits[
            :, 2 + warm : 2 + batch["log_f0"].shape[1]
        ]  # output t + 2 speaks for the time of label t
        return pitch_losses(self.net.centres, logits, log_f0, voiced, known)

    def validate(self, step: int) -> dict[str, float]:
        """The same on held-out utterances, as recorded."""
        rows = self.held_out(self.row)
        if not rows:
            return {}
        losses = self.losses("pitch", moved(stacked(rows), self.device()), step)
        return measured(losses)

    def sample(self, step: int) -> Samples:
        """A piece as it is heard, with the probability of every bin over time."""
        batch = moved(self.batch(0), self.device())
        features = self.analysed(batch["wave"][:1])[:, BANDS:]
        logits, _ = self.net.logits(features, self.net.initial(1))
        return Samples(
            {"heard": batch["wave"][0]}, {"bins": torch.softmax(logits[0, :, :-1].float(), -1).mT}
        )
