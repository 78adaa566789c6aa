"""Stage `aligner`: the text aligner as a small speech recogniser, by CTC and by an attending
decoder.

Source: StyleTTS-VC, section III-A; the authors' AuxiliaryASR repository.
"""

from typing import ClassVar

from torch import Tensor

from rtvc.data.symbols import BOUNDARY, decode
from rtvc.train.config import DataConfig, RunConfig, Section
from rtvc.train.losses.losses import ctc, token_cross_entropy
from rtvc.train.losses.shares import measured, share
from rtvc.train.material.align import Aligned, align
from rtvc.train.material.components import ModelConfig, text_aligner
from rtvc.train.material.recorded import UtteranceStage
from rtvc.train.stage import Batch, Samples


class Weights(Section):
    """Factors of the losses."""

    ctc: float = 1.0
    s2s: float = 1.0
    """Cross entropy of the attending decoder under teacher forcing."""


class AlignerConfig(RunConfig):
    """Configuration of stage `aligner`."""

    data: DataConfig
    model: ModelConfig = ModelConfig()
    weights: Weights = Weights()


class Aligner(UtteranceStage):
    """Trains `text_aligner`."""

    config_type: ClassVar[type[RunConfig]] = AlignerConfig

    def __init__(self, config: AlignerConfig) -> None:
        super().__init__(config.data, config.seed)
        self.net = text_aligner(config.model)
        self.modules = {"text_aligner": self.net}
        self.phases = {"aligner": ("text_aligner",)}
        self.averaged = ("text_aligner",)

    def align(self, batch: Batch) -> Aligned:
        """What the aligner says of a batch."""
        return align(self.net, batch["mel"], batch["frames"], batch["tokens"], batch["lengths"])

    def losses(self, phase: str, batch: Batch, step: int) -> dict[str, Tensor]:
        """CTC of the phonemes without their boundaries, cross entropy of the decoder with them; its
        accuracy is only logged."""
        aligned, tokens, lengths = self.align(batch), batch["tokens"], batch["lengths"]
        right = aligned.logits[:, :-1].argmax(-1) == tokens
        return {
            "ctc": ctc(aligned.ctc, aligned.frames, tokens[:, 1:-1], lengths - 2, BOUNDARY),
            "s2s": token_cross_entropy(aligned.logits[:, :-1], tokens, lengths),
            "metric/accuracy": share(right, tokens != BOUNDARY),
        }

    def validate(self, step: int) -> dict[str, float]:
        """The losses on a held-out batch, and the phoneme error rate of its greedy CTC
        transcription."""
        batch = self.held_out_batch()
        if batch is None:
            return {}
        values = measured(self.losses("aligner", batch, step))
        errors = total = 0
        aligned = self.align(batch)
        for logits, frames, tokens in zip(
            aligned.ctc, aligned.frames, batch["tokens"], strict=True
        ):
            predicted, true = (
                greedy(logits[: int(frames)]),
                [t for t in tokens.tolist() if t != BOUNDARY],
            )
            errors, total = errors + edits(predicted, true), total + len(true)
        return values | {"phoneme_error_rate": errors / total}

    def sample(self, step: int) -> Samples:
        """The first utterance: its mel, its attention and the monotonic path."""
        batch = self.first()
        aligned, length, frames = (
            self.align(batch),
            int(batch["lengths"][0]),
            int(batch["frames"][0]),
        )
        attention = aligned.soft[0, :length, : frames // 2]
        path = aligned.hard[0, :length, : frames // 2]
        name = decode(batch["tokens"][0].tolist())[:40]
        return Samples(
            mels={
                f"mel {name}": batch["mel"][0, :, :frames],
                "attention": attention.flip(0),
                "path": path.flip(0),
            }
        )


def greedy(logits: Tensor) -> list[int]:
    """CTC logits (T, V) -> tokens: repetitions joined, blanks dropped."""
    best = logits.argmax(-1).unique_consecutive().tolist()
    return [token for token in best if token != BOUNDARY]


def edits(predicted: list[int], true: list[int]) -> int:
    """Insertions, deletions and substitutions between two sequences (Levenshtein distance)."""
    row = list(range(len(true) + 1))
    for i, token in enumerate(predicted, 1):
        diagonal, row[0] = row[0], i
        for j, expected in enumerate(true, 1):
            diagonal, row[j] = (
                row[j],
                min(row[j] + 1, row[j - 1] + 1, diagonal + (token != expected)),
            )
    return row[-1]
