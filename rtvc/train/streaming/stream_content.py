"""Stage `stream_content`: the causal mel encoder learns content and phonemes from labelled speech.

The labels of the teacher's speech are exact, those of real speech come from the bridge
(`rtvc.train.streaming.bridge`).
"""

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from rtvc.audio.mel import HOP
from rtvc.data.augment import AugmentConfig, augment
from rtvc.data.labelled import Cut, Utterance
from rtvc.data.seeds import generator
from rtvc.models.streaming.analysis import audible_bands
from rtvc.models.streaming.content import CONTENT, ContentEncoder
from rtvc.models.streaming.model import StreamingConfig
from rtvc.train.config import RunConfig, Section
from rtvc.train.losses.losses import frame_cross_entropy
from rtvc.train.losses.shares import measured, share
from rtvc.train.losses.speaker_leak import SpeakerClassifier
from rtvc.train.material.stream_data import CLEAN, StreamRun, StreamStage, stacked
from rtvc.train.prefetch import moved
from rtvc.train.stage import Batch, Samples


class Weights(Section):
    """Factors of the losses."""

    content: float = 10.0
    """L1 to the labelled content, whose mean size is about 0.1."""
    phonemes: float = 0.5
    leak: float = 0.0
    """Cross entropy of a speaker classifier that the encoder works against; 0.02 is small."""


class StreamContentConfig(StreamRun):
    """Configuration of stage `stream_content`."""

    weights: Weights = Weights()
    augment: AugmentConfig = CLEAN


def content_encoder(config: StreamingConfig) -> ContentEncoder:
    """The encoder of a streaming model of this size."""
    c = config
    return ContentEncoder(
        audible_bands(), c.content_hidden, c.content_kernel, c.content_dilations, c.right
    )


class StreamContent(StreamStage):
    """Trains `encoder`."""

    config_type: ClassVar[type[RunConfig]] = StreamContentConfig

    def __init__(self, config: StreamContentConfig) -> None:
        super().__init__(config)
        self.config = config
        self.encoder = content_encoder(config.model)
        self.modules: dict[str, nn.Module] = {"analysis": self.analysis, "encoder": self.encoder}
        trained = ["encoder"]
        self.phases = {"content": trained}
        self.averaged = ("encoder",)
        self.classifier: SpeakerClassifier | None = None
        if config.weights.leak and self.labelled.real:
            self.classifier = SpeakerClassifier(CONTENT, len(self.labelled.real))
            self.modules["classifier"] = self.classifier
            trained.append("classifier")
        self.speaker_index = {speaker: number for number, speaker in enumerate(self.labelled.real)}

    def row(
        self, utterance: Utterance, number: int, speed: float, rng: np.random.Generator
    ) -> Batch:
        """wave (N,), content (512, T), phonemes (T,), exact and speaker (): one row."""
        piece = Cut.draw(utterance, self.config.data.frames, speed, rng)
        return {
            "wave": piece.wave(),
            "content": piece.content(),
            "phonemes": piece.phonemes(),
            "exact": torch.tensor(utterance.exact),
            "speaker": torch.tensor(self.speaker_index.get(utterance.speaker, -1)),
        }

    def batch(self, index: int) -> Batch:
        """wave (B, N) as the network hears it, content (B, 512, T), phonemes (B, T), exact (B,)
        bool, speaker (B,)."""
        batch = stacked(self.rows("content", index, self.row))
        batch["wave"] = augment(
            batch["wave"], self.config.augment, generator(self.config.seed, "content", index)
        )
        return batch

    def predicted(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        """wave (B, N) -> content (B, 512, T) and phoneme logits (B, 178, T), frame t centred on
        sample t * HOP."""
        return self.recognised(
            self.encoder, self.analysed(wave, self.encoder.latency), wave.shape[1] // HOP
        )

    def losses(self, phase: str, batch: Batch, step: int) -> dict[str, Tensor]:
        """L1 of content and cross entropy of phonemes; the share of right phonemes, and L1 on the
        teacher's speech, are only logged."""
        warm = self.config.warm
        content, logits = (x[..., warm:] for x in self.predicted(batch["wave"]))
        true, phonemes, exact = (
            batch["content"][..., warm:],
            batch["phonemes"][:, warm:],
            batch["exact"],
        )
        distance = (content - true).abs().mean((1, 2))
        losses = {
            "content": distance.mean(),
            "phonemes": frame_cross_entropy(logits, phonemes),
            "metric/phonemes_right": share(logits.argmax(1) == phonemes, phonemes >= 0),
            "metric/content_exact": share(distance, exact),
        }
        if self.classifier is not None:
            losses["leak"] = self.classifier.loss(content, batch["speaker"])
        return losses

    def validate(self, step: int) -> dict[str, float]:
        """The same on held-out utterances, as recorded."""
        rows = self.held_out(self.row)
        if not rows:
            return {}
        losses = self.losses("content", moved(stacked(rows), self.device()), step)
        return measured(losses, leave_out=["leak"])

    def sample(self, step: int) -> Samples:
        """A piece as it is heard, and its content, found and true."""
        batch = moved(self.batch(0), self.device())
        content, _ = self.predicted(batch["wave"][:1])
        return Samples(
            {"heard": batch["wave"][0]},
            {"found": content[0, :128], "true": batch["content"][0, :128]},
        )
