"""Stage `phonemes`: from units to phonemes by CTC, so that transcripts become a phoneme for every
frame.

Units of a strong recogniser say nearly everything of what was spoken, so a small network that reads
their numbers alone learns the phonemes of a language from transcripts in minutes; the best path
through its output then aligns each transcript (Graves et al. 2006, "Connectionist Temporal
Classification", sections 3 and 4).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from rtvc.arrays import opened_arrays
from rtvc.data.cache import Array
from rtvc.data.seeds import numpy_generator
from rtvc.data.speech import Speech
from rtvc.data.symbols import BOUNDARY, LEFT_OUT, SYMBOLS, TOKENS
from rtvc.data.utterance import UNIT_RATE, UNKNOWN, load_utterance, save_utterance
from rtvc.errors import AudioError, CheckpointError
from rtvc.teacher.phonemes import phonemize
from rtvc.train.config import RunConfig, Section
from rtvc.train.losses.losses import ctc
from rtvc.train.material.unit_batches import SpeechRun
from rtvc.train.material.units import CLUSTERS, LAYERS
from rtvc.train.prefetch import moved
from rtvc.train.stage import Batch, Stage
from rtvc.train.state import load_weights

LONGEST = 25.0
"""Seconds above which utterances are left out."""


def sounds(text: str, language: str = "en-us") -> list[int]:
    """A text's phonemes as tokens of `rtvc.data.symbols`, without stress, length, pauses and
    punctuation."""
    (ipa,) = phonemize([text.lower()], language)
    return [TOKENS[symbol] for symbol in ipa if symbol in TOKENS and symbol not in LEFT_OUT]


class UnitsToPhonemes(nn.Module):
    """units (B, L, T) at 50 Hz -> phoneme logits (B, T, P), BOUNDARY being the blank."""

    def __init__(
        self, hidden: int = 256, blocks: int = 4, kernel: int = 5, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.embeddings = nn.ModuleList(nn.Embedding(CLUSTERS, hidden) for _ in LAYERS)
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(blocks))
        self.convs = nn.ModuleList(
            nn.Conv1d(hidden, hidden, kernel, padding=kernel // 2) for _ in range(blocks)
        )
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(hidden, len(SYMBOLS))

    @classmethod
    def of_weights(cls, weights: dict[str, Tensor]) -> "UnitsToPhonemes":
        """At the size of a state dict, with its weights, ready to align."""
        hidden, _, kernel = weights["convs.0.weight"].shape
        net = cls(
            hidden,
            len({name.split(".")[1] for name in weights if name.startswith("convs.")}),
            kernel,
        )
        net.load_state_dict(weights)
        return net.eval()

    def forward(self, units: Tensor) -> Tensor:
        """See the class."""
        x = torch.stack(
            [embed(units[:, layer]) for layer, embed in enumerate(self.embeddings)]
        ).sum(0)
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = x + self.dropout(F.gelu(conv(norm(x).mT).mT))
        logits: Tensor = self.out(x)
        return logits


def best_path(log_probabilities: Array, tokens: Sequence[int]) -> Array:
    """The frames of each token on the best CTC path.

    Args:
        log_probabilities: (T, P), BOUNDARY being the blank.
        tokens: L phonemes.

    Returns:
        (T,) int64: the place in `tokens` that a frame is spent on, -1 for the blank.

    Raises:
        AudioError: fewer frames than the path needs.
    """
    frames, states = len(log_probabilities), 2 * len(tokens) + 1
    labels = np.full(states, BOUNDARY)
    labels[1::2] = tokens
    # A blank may be skipped between two different phonemes.
    skip = np.zeros(states, bool)
    skip[3::2] = labels[3::2] != labels[1:-2:2]
    repeated = sum(a == b for a, b in pairwise(tokens))
    if frames < len(tokens) + repeated:
        raise AudioError(
            f"expected at most {frames} phonemes in {frames} frames, got {len(tokens) + repeated}:"
            " the text is not of this recording"
        )
    emission = log_probabilities[:, labels]
    score = np.full(states, -np.inf)
    score[:2] = emission[0, :2]
    came = np.zeros((frames, states), np.int8)
    for frame in range(1, frames):
        one = np.concatenate([[-np.inf], score[:-1]])
        two = np.where(skip, np.concatenate([[-np.inf, -np.inf], score[:-2]]), -np.inf)
        options = np.stack([score, one, two])
        came[frame] = options.argmax(0)
        score = options.max(0) + emission[frame]
    state = states - 1 if score[-1] >= score[-2] else states - 2
    path = np.empty(frames, np.int64)
    for frame in range(frames - 1, -1, -1):
        path[frame] = state
        state -= int(came[frame, state])
    return np.where(path % 2 == 1, path // 2, -1)


def spread(path: Array, tokens: Sequence[int], silence: int) -> Array:
    """A phoneme for every frame: blanks go to the nearer phoneme, and are a pause where they last
    longer than `silence` frames.

    path (T,) as of `best_path` -> (T,) tokens, BOUNDARY for pauses.
    """
    spoken = np.flatnonzero(path >= 0)
    phonemes = np.full(len(path), BOUNDARY)
    if not len(spoken):
        return phonemes
    frames = np.arange(len(path))
    after = np.searchsorted(spoken, frames).clip(0, len(spoken) - 1)
    before = np.searchsorted(spoken, frames, side="right").clip(1) - 1
    reach_after, reach_before = np.abs(spoken[after] - frames), np.abs(frames - spoken[before])
    owner = np.where(reach_before <= reach_after, before, after)
    gap = spoken[after] - spoken[before]
    near = np.minimum(reach_before, reach_after) <= np.where(gap > silence, silence // 4, silence)
    nearest = np.array(tokens)[path[spoken[owner]]]
    return np.where(near, nearest, phonemes)


class PhonemesConfig(SpeechRun):
    """Configuration of stage `phonemes`."""

    hidden: int = Field(default=256, ge=8)
    blocks: int = Field(default=4, ge=1)

    class Weights(Section):
        """Factors of the losses."""

        ctc: float = 1.0

    weights: Weights = Weights()


class Phonemes(Stage):
    """Trains `phonemes`, on whole utterances that have a transcript."""

    config_type: ClassVar[type[RunConfig]] = PhonemesConfig

    def __init__(self, config: PhonemesConfig) -> None:
        self.config = config
        self.speech: Speech = config.data.speech(with_text=True)
        self.net = UnitsToPhonemes(config.hidden, config.blocks)
        self.modules = {"phonemes": self.net}
        self.phases = {"phonemes": ["phonemes"]}
        self.averaged = ("phonemes",)
        self.sounds = lru_cache(maxsize=1 << 16)(sounds)

    def example(self, number: int) -> tuple[Tensor, list[int]]:
        """units (L, T) and the phonemes.

        Raises:
            AudioError: it cannot be read, is too long, or its transcript is of something else.
        """
        utterance = self.speech.load(number)
        if utterance.units.shape[1] > LONGEST * UNIT_RATE:
            raise AudioError(f"it lasts more than {LONGEST:g} s")
        tokens = self.sounds(utterance.text)
        if not 0 < len(tokens) < utterance.units.shape[1]:
            frames = utterance.units.shape[1]
            raise AudioError(f"expected 1 to {frames - 1} phonemes, got {len(tokens)}")
        return torch.from_numpy(utterance.units.astype(np.int64)), tokens

    def collated(self, rows: list[tuple[Tensor, list[int]]]) -> Batch:
        """units (B, L, T), frames (B,), tokens (B, S), lengths (B,)."""
        frames, lengths = [row[0].shape[1] for row in rows], [len(row[1]) for row in rows]
        units = torch.stack([F.pad(row[0], (0, max(frames) - row[0].shape[1])) for row in rows])
        tokens = torch.stack(
            [F.pad(torch.tensor(row[1]), (0, max(lengths) - len(row[1]))) for row in rows]
        )
        return {
            "units": units,
            "frames": torch.tensor(frames),
            "tokens": tokens,
            "lengths": torch.tensor(lengths),
        }

    def batch(self, index: int) -> Batch:
        """See `collated`."""
        rng = numpy_generator(self.config.seed, "phonemes", index)
        rows: list[tuple[Tensor, list[int]]] = []
        while len(rows) < self.config.data.batch:
            rows.append(self.speech.usable(self.speech.pick(rng), self.config.seed, self.example))
        return self.collated(rows)

    def losses(self, phase: str, batch: Batch, step: int) -> dict[str, Tensor]:
        """CTC, per phoneme."""
        return {
            "ctc": ctc(
                self.net(batch["units"]),
                batch["frames"],
                batch["tokens"],
                batch["lengths"],
                BOUNDARY,
            )
        }

    def validate(self, step: int) -> dict[str, float]:
        """CTC of speakers that are held out."""
        rows = [self.speech.usable(number, 0, self.example) for number in self.speech.held_out]
        if not rows:
            return {}
        batch = moved(self.collated(rows), self.device())
        return {"ctc": float(self.losses("phonemes", batch, step)["ctc"])}

    def remarks(self) -> list[str]:
        """Utterances that could not be used."""
        return self.speech.remarks()


SILENCE = 20
"""Unit frames, 0.4 s, above which a stretch without phonemes is a pause."""


@torch.no_grad()
def align(path: Path, net: UnitsToPhonemes) -> bool:
    """Gives the utterance in a file the phonemes of its transcript; whether it has one that
    fits."""
    utterance = load_utterance(path)
    tokens = sounds(utterance.text) if utterance.text else []
    if not tokens:
        return False
    logits = net(torch.from_numpy(utterance.units.astype(np.int64))[None])[0]
    try:
        spent = best_path(logits.log_softmax(-1).double().numpy(), tokens)
    except AudioError:
        return False
    save_utterance(path, replace(utterance, phonemes=spread(spent, tokens, SILENCE)))
    return True


def align_all(
    folder: Path, weights: Path, progress: Callable[[int, int], None] | None = None
) -> int:
    """Aligns every utterance of a folder that has a transcript and no phonemes yet; how many were.

    Args:
        folder: what `rtvc data label` wrote.
        weights: a run of stage `phonemes`, or its exported weights.
        progress: called with the files done and all of them.

    Raises:
        CheckpointError: the weights are of something else.
    """
    parts = load_weights(weights)
    if "phonemes" not in parts:
        raise CheckpointError(
            f"{weights} holds {', '.join(parts)}: expected a run of `rtvc train phonemes`"
        )
    net = UnitsToPhonemes.of_weights(parts["phonemes"])
    done, files = 0, sorted(path for path in folder.rglob("*.npz") if not path.name.startswith("."))
    for number, path in enumerate(files, 1):
        try:
            with opened_arrays(path) as arrays:
                lacking = bool(str(arrays["text"])) and bool((arrays["phonemes"] == UNKNOWN).all())
            done += lacking and align(path, net)
        except AudioError:
            pass  # stages remark on files that cannot be read
        if progress:
            progress(number, len(files))
    return done
