"""What the stages on a manifest's recordings share: whole utterances with their texts, or pieces
that need none."""

from abc import abstractmethod
from typing import Any, ClassVar

import torch

from rtvc.data.dataset import Corpus
from rtvc.data.seeds import generator
from rtvc.train.config import DataConfig
from rtvc.train.material.speech import Utterances, corpora, held_out
from rtvc.train.prefetch import moved
from rtvc.train.stage import Batch, Stage


class RecordedStage(Stage):
    """A stage on the recordings of `corpus`."""

    corpus: Corpus

    def first(self) -> Batch:
        """The first batch, where the models are: what `sample` shows."""
        return moved(self.batch(0), self.device())

    def held_out_batch(self) -> Batch | None:
        """A batch of held-out recordings where the models are, always the same; None where the
        configuration names none."""
        batch = self.held_out()
        return None if batch is None else moved(batch, self.device())

    @abstractmethod
    def held_out(self) -> Batch | None:
        """The same on the CPU."""

    def remarks(self) -> list[str]:
        """Recordings that could not be used."""
        return self.corpus.remarks()


class UtteranceStage(RecordedStage):
    """A stage on whole utterances and their texts."""

    def __init__(self, data: DataConfig, seed: int, **how: Any) -> None:
        """`how`: what `Utterances` takes besides."""
        self.data = Utterances(data, seed, **how)
        self.corpus = self.data.corpus
        self.valid = held_out(data, **how)

    def batch(self, index: int) -> Batch:
        """Whole utterances, see `Utterances.batch`."""
        return self.data.batch(index)

    def held_out(self) -> Batch | None:
        """See the class."""
        return None if self.valid is None else self.valid.batch(0)


class PieceStage(RecordedStage):
    """A stage on pieces of recordings.

    Attributes:
        shown: how many held-out recordings are measured, from the first of them on.
    """

    draws: ClassVar[str]
    """Name of the random numbers that cut the pieces."""

    def __init__(self, data: DataConfig, seed: int) -> None:
        self.corpus, self.valid = corpora(data)
        self.order = self.corpus.order(data.batch, seed, data.balance)
        self.shown, self.seed = data.batch, seed

    @abstractmethod
    def pieces(self, corpus: Corpus, numbers: list[int], draw: torch.Generator) -> Batch:
        """A batch of pieces of these recordings."""

    def batch(self, index: int) -> Batch:
        """See `pieces`."""
        return self.pieces(self.corpus, self.order(index), generator(self.seed, self.draws, index))

    def held_out(self) -> Batch | None:
        """See the class."""
        if self.valid is None:
            return None
        numbers = list(range(min(self.shown, len(self.valid.entries))))
        return self.pieces(self.valid, numbers, generator(0, "valid"))
