"""Batches of whole utterances with their phonemes, speakers and a second recording as style
reference."""

from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from rtvc.audio.mel import HOP, mel_spectrogram
from rtvc.data.dataset import Corpus, padded, piece
from rtvc.data.manifest import Entry
from rtvc.data.seeds import generator
from rtvc.data.symbols import encode
from rtvc.errors import AudioError, TrainingError
from rtvc.train.config import DataConfig
from rtvc.train.stage import Batch

PADDING = 5_000
"""Silent samples put on both sides of an utterance, as the authors do."""
TRIM_DB = 30.0
"""Ends of an utterance that are this much quieter than its loudest moment are silence."""
REFERENCE = 192
"""Mel frames of a style reference: 2.4 s."""
SHORTEST = 90
"""Mel frames below which an utterance is refused: the style encoder needs 80."""


def trimmed(wave: Tensor) -> Tensor:
    """wave (N,) without the silence at its ends, PADDING zeros on both sides.

    Raises:
        AudioError: nothing but silence.
    """
    level = F.avg_pool1d(F.pad(wave.square()[None], (1024, 1024)), 2048, 512)[0]
    loud = (level > level.max() * 10 ** (-TRIM_DB / 10)).nonzero()
    if not len(loud) or level.max() <= 0:
        raise AudioError("nothing but silence is left when its ends are trimmed")
    first, last = max(0, int(loud[0]) * 512 - 512), int(loud[-1]) * 512 + 512
    return F.pad(wave[first:last], (PADDING, PADDING))


def exact_mel(wave: Tensor) -> Tensor:
    """`mel_spectrogram` in float32 also under autocast: wave (B, N) -> mel (B, 80, 1 + N //
    300)."""
    with torch.autocast(wave.device.type, enabled=False):
        return mel_spectrogram(wave.float())


def even_mel(wave: Tensor) -> Tensor:
    """wave (N,) -> mel (80, T), T even: content has half the frame rate."""
    mel = mel_spectrogram(wave)
    return mel[:, : mel.shape[1] // 2 * 2]


class Utterances:
    """Batches for the stages that need text.

    Args:
        config: of the data.
        seed: of the run.
        reference: the style reference is any recording, as StyleTTS-VC has it, or another one of
            the same speaker where there is one, as StyleTTS 2 has it.
        text: whether phonemes are needed; recordings without them are left out.
        waves: whether batches hold waveforms.
    """

    def __init__(
        self,
        config: DataConfig,
        seed: int,
        *,
        reference: Literal["any", "same"] = "any",
        text: bool = True,
        waves: bool = False,
    ) -> None:
        self.config, self.seed, self.reference, self.text, self.waves = (
            config,
            seed,
            reference,
            text,
            waves,
        )

        def accepted(entry: Entry) -> bool:
            return (bool(entry.phonemes) or not text) and entry.seconds <= config.longest

        try:
            self.corpus = Corpus.open(
                config.manifest, cache=config.cache, megabytes=config.cache_mb, accept=accepted
            )
        except TrainingError as error:
            hint = "; a text stage needs phonemes: run `rtvc data prepare` on it" if text else ""
            raise TrainingError(f"{error}{hint}") from error
        self.order = self.corpus.order(config.batch, seed, config.balance, config.bucket)

    def utterance(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """Wave (N,), mel (80, T) and tokens (L,) of a recording.

        Raises:
            AudioError: it is unreadable, too short, or has more phonemes than frames.
        """
        entry = self.corpus.entries[number]
        wave = trimmed(self.corpus.wave(number))
        mel = even_mel(wave)
        if mel.shape[1] < SHORTEST:
            raise AudioError(f"{mel.shape[1]} mel frames are left of it, {SHORTEST} are needed")
        tokens = encode(entry.phonemes) if self.text else [0]
        if 2 * len(tokens) >= mel.shape[1]:
            raise AudioError(
                f"expected fewer than {mel.shape[1] // 2} phonemes in {mel.shape[1]} mel frames,"
                f" got {len(tokens)}: the text is not of this recording"
            )
        return F.pad(wave, (0, max(0, mel.shape[1] * HOP - len(wave)))), mel, torch.tensor(tokens)

    def reference_of(self, number: int, draw: torch.Generator) -> tuple[Tensor, int]:
        """A style reference (80, REFERENCE) for a recording, and the number of the recording that
        it comes from."""
        corpus = self.corpus
        same = [
            other for other in corpus.of_speaker[corpus.entries[number].speaker] if other != number
        ] or [number]
        choice = same if self.reference == "same" else range(len(corpus.entries))
        other = choice[int(torch.randint(len(choice), (), generator=draw))]

        def use(which: int) -> tuple[Tensor, int]:
            return self.utterance(which)[1], which

        mel, other = corpus.usable(other, self.seed, use)
        if mel.shape[1] < REFERENCE:
            return F.pad(mel, (0, REFERENCE - mel.shape[1])), other
        return piece(mel.T, REFERENCE, draw)[0].T, other

    def batch(self, index: int) -> Batch:
        """Batch number `index`: a function of (seed, index).

        mel (B, 80, T), frames (B,), tokens (B, L), lengths (B,), speaker (B,), reference (B, 80,
        REFERENCE), reference_speaker (B,), bandwidth (B,) in Hz, and wave (B, N) if wanted.
        """
        draw, corpus = generator(self.seed, "utterances", index), self.corpus
        rows = [
            corpus.usable(number, self.seed, lambda k: (k, *self.utterance(k)))
            for number in self.order(index)
        ]
        references = [self.reference_of(row[0], draw) for row in rows]
        mel, frames = padded([row[2] for row in rows], 2)
        tokens, lengths = padded([row[3] for row in rows])
        batch: Batch = {
            "mel": mel,
            "frames": frames,
            "tokens": tokens,
            "lengths": lengths,
            "speaker": torch.tensor([self.speaker(row[0]) for row in rows]),
            "reference": torch.stack([mel for mel, _ in references]),
            "reference_speaker": torch.tensor([self.speaker(other) for _, other in references]),
            "bandwidth": corpus.tell_bandwidths([row[0] for row in rows]),
        }
        if self.waves:
            batch["wave"] = padded([row[1] for row in rows])[0]
        return batch

    def speaker(self, number: int) -> int:
        """The number of a recording's speaker."""
        return self.corpus.speaker_index[self.corpus.entries[number].speaker]


def corpora(config: DataConfig) -> tuple[Corpus, Corpus | None]:
    """The recordings to train on, and those for held-out measurements where the configuration names
    some."""

    def opened(manifest: Path) -> Corpus:
        return Corpus.open(manifest, cache=config.cache, megabytes=config.cache_mb)

    return opened(config.manifest), opened(config.valid) if config.valid else None


def held_out(config: DataConfig, **how: Any) -> Utterances | None:
    """The recordings for held-out measurements, None where the configuration names none. They are
    the same at every step."""
    if config.valid is None:
        return None
    data = config.model_copy(update={"manifest": config.valid, "balance": 0.0})
    return Utterances(data, 0, **how)
