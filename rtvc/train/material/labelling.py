"""Labels for recordings and for the teacher's speech: units by a recogniser's layers, F0 by
swift-f0; resumable, one file an utterance."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from rtvc.audio.mel import SAMPLE_RATE
from rtvc.audio.recording import read
from rtvc.data.cache import Array
from rtvc.data.labelled import CONTENT_HOP, TEACHER
from rtvc.data.labelled import load_utterance as load_spoken
from rtvc.data.manifest import Entry, read_manifest
from rtvc.data.symbols import BOUNDARY, LEFT_OUT, SYMBOLS
from rtvc.data.utterance import F0_RATE, UNIT_RATE, UNKNOWN, Utterance, save_utterance
from rtvc.errors import AudioError, TrainingError
from rtvc.files import write
from rtvc.train.material.units import Codebook, Listen
from rtvc.train.streaming.pseudo_labels import Melody, Report, interleaved, label_each, on_frames

NOTE = "codebook.sha256"
"""Says in a folder of labels which codebook they are of."""
SOUNDLESS = [
    number for number, symbol in enumerate(SYMBOLS) if symbol in LEFT_OUT and number != BOUNDARY
]
"""Tokens that the teacher gives time to, though no phoneme sounds in it."""


def heard(wave: Array, melody: Melody) -> tuple[Array, Array]:
    """The F0 of a wave (N,) in Hz, and how sure its voicing is, (T,) each at F0_RATE."""
    return on_frames(*melody(wave), int(len(wave) / SAMPLE_RATE * F0_RATE))


def labelled(entry: Entry, codebook: Codebook, listen: Listen, melody: Melody) -> Utterance:
    """One recording with its labels; its phonemes are not known yet.

    Raises:
        AudioError: it cannot be read, or is shorter than a frame.
    """
    wave: Array = read(entry.path).clamp(-1, 1).numpy()
    frames = len(wave) * UNIT_RATE // SAMPLE_RATE
    if not frames:
        raise AudioError(
            f"{entry.path} lasts {len(wave) / SAMPLE_RATE:.3f} s, at least {1 / UNIT_RATE} s are"
            " needed"
        )
    f0, confidence = heard(wave, melody)
    return Utterance(
        audio=(wave * 32767).round().astype(np.int16),
        units=codebook.units(listen(wave)[:, :frames]).numpy(),
        phonemes=np.full(frames, UNKNOWN, np.int16),
        f0=f0,
        confidence=confidence,
        speaker=entry.speaker,
        bandwidth=float(entry.bandwidth_rate),
        text=entry.text,
    )


def spoken(entry: Entry, codebook: Codebook, listen: Listen, melody: Melody) -> Utterance:
    """A file of `rtvc teacher generate` with units in place of its content, and F0 and voicing as
    they are heard: the curve that the teacher meant runs on through consonants and pauses.

    Raises:
        AudioError: it cannot be read.
    """
    said = load_spoken(entry.path)
    wave: Array = said.audio.astype(np.float32) / 32767
    frames = len(wave) * UNIT_RATE // SAMPLE_RATE
    f0, confidence = heard(wave, melody)
    told = np.arange(frames) * SAMPLE_RATE // (UNIT_RATE * CONTENT_HOP)
    phonemes = said.phonemes[np.minimum(told, len(said.phonemes) - 1)]
    return Utterance(
        audio=said.audio,
        units=codebook.units(listen(wave)[:, :frames]).numpy(),
        phonemes=np.where(np.isin(phonemes, SOUNDLESS), UNKNOWN, phonemes).astype(np.int16),
        f0=f0,
        confidence=confidence,
        speaker=entry.speaker if said.exact else said.speaker,
        bandwidth=float(said.bandwidth),
    )


def label_all(
    manifest: Path,
    out: Path,
    codebook_file: Path,
    listen: Listen,
    melody: Melody,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Labels every recording of a manifest, or every file of a folder of the teacher's, that has no
    labels in `out` yet.

    What cannot be used is written to `out/refused.tsv` with the reason, and tried again by the next
    run.

    Args:
        manifest: .tsv or .jsonl; or the folder of `rtvc teacher generate`.
        out: folder, created if need be.
        codebook_file: what `Codebook.save` wrote.
        listen: the recogniser's layers, a `rtvc.teacher.whisper.Listener`.
        melody: F0, a `SwiftF0`.
        progress: called with the recordings done and all of them.

    Raises:
        TrainingError: `out` holds labels of another codebook.
        CheckpointError: the codebook is none.
    """
    codebook = Codebook.load(codebook_file)
    if teachers := manifest.is_dir():
        entries, root = entries_of(manifest), manifest
    else:
        entries, root = interleaved(read_manifest(manifest)), manifest.resolve().parent
    same_codebook(out, codebook_file)

    def make(entry: Entry, path: Path) -> int:
        utterance = (
            spoken(entry, codebook, listen, melody)
            if teachers
            else labelled(entry, codebook, listen, melody)
        )
        save_utterance(path, utterance)
        return len(utterance.audio)

    return label_each(entries, root, out, make, progress)


def entries_of(folder: Path) -> list[Entry]:
    """The files of a folder of `rtvc teacher generate`, by name; every one is a speaker of its own,
    as its voice is mixed for it alone.

    Raises:
        TrainingError: there are none.
    """
    files = sorted(path for path in folder.glob("*.npz") if not path.name.startswith("."))
    if not files:
        raise TrainingError(
            f"expected .npz files of `rtvc teacher generate` in {folder}, got none: name that"
            " folder, or a .tsv or .jsonl of recordings"
        )
    return [Entry(path=path, speaker=f"{TEACHER}-{path.stem}") for path in files]


def same_codebook(out: Path, codebook_file: Path) -> None:
    """Notes which codebook labels a folder: those of two in one folder would teach two languages.

    Raises:
        TrainingError: the folder holds labels of another one.
    """
    out.mkdir(parents=True, exist_ok=True)
    mine, note = hashlib.sha256(codebook_file.read_bytes()).hexdigest(), out / NOTE
    if not note.exists():
        write(note, mine)
    elif (theirs := note.read_text().strip()) != mine:
        raise TrainingError(
            f"{out} holds labels of another codebook (expected {mine[:12]}, got {theirs[:12]}):"
            " name another folder, or delete this one"
        )
