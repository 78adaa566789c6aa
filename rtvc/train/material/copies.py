"""Converted copies of labelled speech: the same words by another person, for an encoder that must
not mind who speaks.

What an encoder is shown of other speakers decides how little of the speaker it passes on: speed and
filters alone leave much, another person saying the same leaves little (Zero-VC, arXiv 2606.20218,
table 4). Labels of a copy are those of the original. A copy counts only where the recogniser still
hears the same units in it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from rtvc.audio.mel import SAMPLE_RATE
from rtvc.data.cache import Array
from rtvc.data.seeds import numpy_generator
from rtvc.data.utterance import copy_path, load_utterance
from rtvc.errors import AudioError, VoiceError
from rtvc.files import replacing
from rtvc.train.material.units import Codebook, Listen
from rtvc.voices.voice import Voice

REFERENCE = 4.0
"""Seconds of recording that make a voice, at least."""
TOLERANCE = 2
"""Unit frames, 40 ms, by which a copy may say the same earlier or later."""
AGREES = 0.6
"""Share of the frames that must say the same."""

Convert = Callable[[Array, Voice], Array]
"""A recording (N,) at 24 kHz and a voice -> the recording in that voice, (N,)."""
Reference = Callable[[Array], Voice]
"""A recording (N,) at 24 kHz -> its speaker's voice."""


@dataclass
class Copies:
    """What a run has done."""

    written: int = 0
    existing: int = 0
    """Copies that were there already."""
    differ: int = 0
    """Copies in which the recogniser heard something else."""


def agreement(copy: Array, original: Array) -> float:
    """The share of frames of units (T,) that the copy's units (T',) name too, within TOLERANCE
    frames.

    Pauses dominate neither: frames whose unit is the recording's most frequent one are left out.
    """
    frames = min(len(copy), len(original))
    same = np.zeros(frames, bool)
    for shift in range(-TOLERANCE, TOLERANCE + 1):
        moved = np.roll(copy[:frames], shift)
        same |= moved == original[:frames]
    spoken = original[:frames] != np.bincount(original[:frames].astype(np.int64)).argmax()
    return float(same[spoken].mean()) if spoken.any() else 0.0


def references(
    files: list[Path], rng: np.random.Generator, speaker: str, voice_of: Reference
) -> Iterator[Voice]:
    """Voices of random other speakers, as long as some are wanted."""
    while True:
        other = load_utterance(files[int(rng.integers(len(files)))])
        if other.speaker != speaker and len(other.audio) >= REFERENCE * SAMPLE_RATE:
            try:
                yield voice_of(other.audio.astype(np.float32) / 32768)
            except (AudioError, VoiceError):
                continue


def make_copies(
    folder: Path,
    convert: Convert,
    voice_of: Reference,
    codebook: Codebook,
    listen: Listen,
    *,
    number: int = 1,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Copies:
    """Makes copy `number` of every utterance of a folder that has none yet, each in the voice of
    another speaker of the folder.

    Args:
        folder: what `rtvc data label` wrote.
        convert: says a recording in another voice.
        voice_of: makes a voice.
        codebook: the units of the labels.
        listen: the recogniser's layers.
        number: of the copies, counted from 1.
        seed: of the choice of voices.
        progress: called with the files done and all of them.
    """
    files = sorted(path for path in folder.rglob("*.npz") if not path.name.startswith("."))
    done = Copies()
    for count, path in enumerate(files, 1):
        target = copy_path(path, number)
        if target.exists():
            done.existing += 1
        else:
            try:
                utterance = load_utterance(path)
            except AudioError:
                continue  # stages remark on files that cannot be read
            rng = numpy_generator(seed, "copy", path.stem, number)
            voice = next(references(files, rng, utterance.speaker, voice_of))
            wave = convert(utterance.audio.astype(np.float32) / 32768, voice)
            units = codebook.units(listen(wave))[-1].numpy()
            agrees = agreement(units, utterance.units[-1]) >= AGREES
            target.parent.mkdir(exist_ok=True)
            with replacing(target) as fresh, open(fresh, "wb") as sink:
                if agrees:
                    np.save(sink, (wave.clip(-1, 1) * 32767).round().astype(np.int16))
            done.written += agrees
            done.differ += not agrees
        if progress:
            progress(count, len(files))
    return done


def streaming_convert(converter: object, chunk: int, stepper: object) -> Convert:
    """`Convert` by what runs the steps of a streaming converter, as an evaluation runs it."""
    from rtvc.evaluate.converter import streamed

    def convert(wave: Array, voice: Voice) -> Array:
        converted, _ = streamed(converter, torch.from_numpy(wave), voice, chunk, stepper)  # type: ignore[arg-type]
        return converted.numpy()

    return convert
