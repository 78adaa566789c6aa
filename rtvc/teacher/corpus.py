"""Hours of labelled speech by the teacher: random texts, random mixes of voices; resumable, each
utterance a function of its index."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtvc.data.seeds import derive, numpy_generator
from rtvc.errors import ConfigError, TextError
from rtvc.files import replacing
from rtvc.teacher.bank import VoiceBank
from rtvc.teacher.engines import Engine, Request, Take
from rtvc.teacher.phonemes import LONGEST, Alphabet, phonemize

WORDS, FEWEST = 18, 5
"""Most and fewest words of an utterance."""
MIX_SIZES = (0.3, 0.4, 0.3)
"""How often 1, 2 and 3 voices are mixed."""
SLOWEST, FASTEST = 0.8, 1.2
WINDOW = 8
"""Batches that are sorted by length together."""
SAME_PROSODY = 0.5
"""How often the prosodic style is of the same mix as the acoustic one."""


@dataclass(frozen=True)
class Progress:
    """What a run has done: utterances written, others that were there, seconds of speech written,
    seconds taken."""

    written: int
    existing: int
    speech: float
    elapsed: float


def pieces(texts: Sequence[str], words: int = WORDS, fewest: int = FEWEST) -> list[str]:
    """The texts in lower case, cut into runs of at most `words` words, runs of less than `fewest`
    left out, sorted, each once.

    Raises:
        TextError: if none is left.
    """
    split = (text.lower().split() for text in texts)
    runs = {
        " ".join(run)
        for every in split
        for i in range(0, len(every), words)
        if len(run := every[i : i + words]) >= fewest
    }
    if not runs:
        raise TextError(
            f"none of the {len(texts)} texts has {fewest} words in a row: give longer ones"
        )
    return sorted(runs)


def request(
    index: int, texts: Sequence[str], seed: int, bank: VoiceBank, alphabet: Alphabet
) -> Request:
    """What utterance `index` of the corpus `seed` is, for the same texts and voices always the
    same."""
    rng = numpy_generator(seed, "teacher corpus", index)
    (ipa,) = phonemize([texts[int(rng.integers(len(texts)))]])
    tokens = alphabet.encode(_shortened(ipa, alphabet))
    names = sorted(bank)

    def mix() -> dict[str, float]:
        size = 1 + int(rng.choice(len(MIX_SIZES), p=MIX_SIZES))
        chosen = rng.choice(len(names), min(size, len(names)), replace=False)
        # A Dirichlet draw can round to zero, which is no weight.
        return {
            names[i]: float(max(weight, 1e-6))
            for i, weight in zip(chosen, rng.dirichlet(np.ones(len(chosen))), strict=True)
        }

    timbre, prosody = mix(), mix()
    prosody = timbre if rng.random() < SAME_PROSODY else prosody
    style = bank.style(timbre, len(tokens) - 2, prosody).numpy()
    return Request(
        tuple(tokens),
        style,
        float(rng.uniform(SLOWEST, FASTEST)),
        derive(seed, "teacher noise", index),
    )


def generate(
    out_dir: Path,
    texts: Sequence[str],
    count: int,
    engine: Engine,
    *,
    seed: int = 0,
    part: int = 0,
    parts: int = 1,
    report: Callable[[Progress], None] | None = None,
) -> Progress:
    """Makes utterances 0 .. count-1 that are not there yet, `out_dir/INDEX.npz`; a killed run goes
    on where it was.

    Each file holds audio int16 (N = 600 T) at 24 kHz, content float16 (512, T), f0 and n (energy)
    float32 (2 T), phon int16 (T) tokens, style float32 (256).

    Args:
        out_dir: created if need be.
        texts: English sentences of any length.
        count: of the whole corpus.
        engine: from `open_engine`.
        seed: of the corpus.
        part: of `parts` processes that share the work: this one makes the indices congruent to
            `part`.
        parts: how many processes there are.
        report: called after each utterance.
    """
    if not 0 <= part < parts or count < 0:
        raise ConfigError(
            "expected 0 <= part < parts and a count of at least 0, got part"
            f" {part} of {parts} and a count of {count}"
        )
    out_dir.mkdir(parents=True, exist_ok=True)
    runs = pieces(texts)
    numbers = range(part, count, parts)
    missing = [index for index in numbers if not _path(out_dir, index).exists()]
    begun, written, seconds = time.perf_counter(), 0, 0.0
    progress = Progress(0, len(numbers) - len(missing), 0.0, 0.0)
    for batch in _batches(
        missing,
        engine.batch,
        lambda index: request(index, runs, seed, engine.bank, engine.alphabet),
    ):
        for index, take in zip(batch, engine.make(list(batch.values())), strict=True):
            save(_path(out_dir, index), take, batch[index].style)
            written, seconds = written + 1, seconds + len(take.audio) / 24000
            progress = Progress(written, progress.existing, seconds, time.perf_counter() - begun)
            if report:
                report(progress)
    return progress


def save(path: Path, take: Take, style: NDArray[np.float32]) -> None:
    """Writes one utterance, whole or not at all."""
    with replacing(path) as fresh:
        np.savez(
            fresh,
            audio=(np.clip(take.audio, -1, 1) * 32767).astype(np.int16),
            content=take.content.astype(np.float16),
            f0=take.f0.astype(np.float32),
            n=take.energy.astype(np.float32),
            phon=take.tokens.astype(np.int16),
            style=style.astype(np.float32),
        )


def _path(out_dir: Path, index: int) -> Path:
    return out_dir / f"{index:05d}.npz"


def _batches(
    indices: Sequence[int], size: int, ask: Callable[[int], Request]
) -> Iterator[dict[int, Request]]:
    """The requests in batches; those of a batch are about as long as each other, so that little of
    it is padding."""
    window = size * (WINDOW if size > 1 else 1)
    for start in range(0, len(indices), window):
        asked = [(index, ask(index)) for index in indices[start : start + window]]
        asked.sort(key=lambda pair: len(pair[1].tokens) / pair[1].speed)
        for first in range(0, len(asked), size):
            yield dict(asked[first : first + size])


def _shortened(ipa: str, alphabet: Alphabet) -> str:
    """The IPA cut to what the teacher takes; eighteen words rarely reach it."""
    known = [symbol for symbol in ipa if symbol in alphabet.tokens]
    return "".join(known[:LONGEST])
