"""Finding recordings, their speakers and texts in a folder, and refusing what cannot be trained
on."""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from rtvc.audio.check import AudioWarning, check_recording
from rtvc.audio.headers import DamagedWarning
from rtvc.audio.io import decode
from rtvc.audio.mel import SAMPLE_RATE
from rtvc.data.discover import CONTAINED, OPENED, is_recording
from rtvc.data.manifest import Entry, flat, read_manifest, remark, unwritable
from rtvc.errors import AudioError, OutputError, TrainingError
from rtvc.files import kind, write
from rtvc.voices.report import measure

RATES = (8_000, 11_025, 12_000, 16_000, 22_050, SAMPLE_RATE)
"""Bandwidth rates that a recording is sorted into, in Hz."""


@dataclass(frozen=True)
class Refusal:
    """A recording that is not used, and why."""

    path: Path
    """Of the recording, or `MANIFEST, line N`."""
    reason: str


@dataclass(frozen=True)
class Limits:
    """What is accepted."""

    shortest: float = 1.0
    """Seconds."""
    longest: float = 30.0
    quietest_snr: float = 0.0
    """dB of speech over noise; 0 accepts everything."""


def find(source: Path) -> list[Entry | Refusal]:
    """The recordings of a folder or of a table, in order of their paths, unchecked.

    Knows the trees of VCTK (`wav48*/p225/…` with `txt/p225/…`), LibriTTS (`speaker/chapter/….wav`
    with `….normalized.txt`) and LibriSpeech (`….trans.txt` a chapter); elsewhere the first folder
    is the speaker, and a `.txt` or `.lab` beside the recording its text. Files that look like
    recordings and cannot be used, lines of a table that cannot, and recordings whose text cannot be
    read are among them as refusals.

    Raises:
        TrainingError: there is no such folder or table, or no recording in it.
    """
    there = kind(source)
    if there == "file":
        lines: list[Refusal] = []
        listed = read_manifest(source, lambda line, why: lines.append(Refusal(Path(line), why)))
        return [*listed, *lines]
    if there != "folder":
        got = f"a {there}" if there else "nothing"
        raise TrainingError(
            f"{source}: expected a folder of recordings, or a .tsv or .jsonl table, got {got}"
        )
    visible = (path for path in source.rglob("*") if not path.name.startswith("."))
    files = sorted(path for path in visible if is_recording(path))
    present = set(files)
    second = {
        path
        for path in files
        if path.stem.endswith("_mic2")
        and path.with_name(path.name.replace("_mic2", "_mic1")) in present
    }
    if not files:
        suffixes = ", ".join(sorted(OPENED | CONTAINED))
        raise TrainingError(f"{source}: expected files ending in {suffixes}, got none")
    return [found_at(path, source) for path in files if path not in second]


def found_at(path: Path, source: Path) -> Entry | Refusal:
    """A recording of a folder with its speaker and text, unchecked."""
    try:
        text = text_of(path, source)
    except (OSError, ValueError) as error:
        return Refusal(path.resolve(), f"its text cannot be read: {error}")
    return Entry(path.resolve(), speaker_of(path, source), text=text)


def speaker_of(path: Path, root: Path) -> str:
    """The speaker of a recording, by the tree it lies in."""
    parts = path.relative_to(root).parts[:-1]
    if len(parts) >= 2 and parts[-2].isdigit() and parts[-1].isdigit():
        return parts[-2]  # LibriSpeech, LibriTTS: speaker/chapter/file
    if len(parts) >= 2 and parts[-2].startswith("wav"):
        return parts[-1]  # VCTK: wav48_silence_trimmed/p225/file
    return parts[0] if parts else root.resolve().name


def text_of(path: Path, root: Path) -> str:
    """The transcript of a recording, empty where there is none.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not UTF-8.
    """
    stem = path.stem.removesuffix("_mic1").removesuffix("_mic2")
    for name in (f"{path.stem}.normalized.txt", f"{path.stem}.txt", f"{path.stem}.lab"):
        if kind(beside := path.with_name(name)) == "file":
            return text(beside.read_bytes(), name)
    if kind(vctk := root / "txt" / path.parent.name / f"{stem}.txt") == "file":
        return text(vctk.read_bytes(), vctk.name)
    spoken = chapter_texts(path.parent).get(os.fsencode(path.stem), b"")
    return text(spoken, "its line of the chapter")


def text(data: bytes, name: str) -> str:
    """A transcript on one line.

    Raises:
        ValueError: it is not UTF-8 text. To guess another encoding would teach wrong words.
    """
    try:
        read = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        at = f"byte {data[error.start]:#04x} at {error.start}"
        raise ValueError(f"{name} is not UTF-8 ({at}), save it as UTF-8") from error
    if "\0" in read:
        raise ValueError(f"{name} holds zero bytes, save it as UTF-8")
    return flat(read)


@lru_cache(maxsize=64)
def chapter_texts(folder: Path) -> dict[bytes, bytes]:
    """LibriSpeech's transcripts of a chapter: name of the recording -> text, both as they are in
    the file, so that one bad line spoils no other."""
    texts = {}
    for path in sorted(folder.glob("*.trans.txt")):
        for line in path.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines():
            name, _, spoken = line.partition(b" ")
            texts[name] = spoken
    return texts


def check(entry: Entry, limits: Limits) -> Entry | Refusal:
    """Opens a recording: fills in its length and bandwidth, or says why it is refused."""
    there, suffix = kind(entry.path), entry.path.suffix.lower()
    if there not in ("", "file"):
        return Refusal(entry.path, f"expected a file, got a {there}")
    try:
        wave, rate = decode(entry.path)
        seconds = len(wave) / rate
        if not limits.shortest <= seconds <= limits.longest:
            return Refusal(
                entry.path,
                f"expected {limits.shortest:g} to {limits.longest:g} s, got {seconds:.2f} s",
            )
        check_recording(wave, rate, entry.path.name)
        report = measure(wave, rate)
    except (AudioError, DamagedWarning, MemoryError) as error:
        if there and suffix not in OPENED | CONTAINED:
            what = f"{suffix} files" if suffix else "it"
            reason = f"format not readable: {what} cannot be opened here, convert to WAV or FLAC"
            return Refusal(entry.path, reason)
        return Refusal(entry.path, str(error))
    if report.snr < limits.quietest_snr:
        return Refusal(
            entry.path,
            f"expected speech {limits.quietest_snr:g} dB above the noise, got {report.snr:.0f} dB",
        )
    needed = next((r for r in RATES if r / 2 >= report.bandwidth - 250), SAMPLE_RATE)
    return replace(entry, seconds=seconds, bandwidth_rate=min(needed, entry.bandwidth_rate))


def check_all(
    entries: Sequence[Entry | Refusal],
    limits: Limits,
    jobs: int,
    each: Callable[[], None],
    suffix: str = ".jsonl",
) -> tuple[list[Entry], list[Refusal]]:
    """Checks recordings in threads, keeping their order.

    Args:
        entries: by `find`.
        limits: what is accepted.
        jobs: threads.
        each: called after every recording.
        suffix: of the manifest that must be able to hold them (`unwritable`).
    """
    kept: list[Entry] = []
    refused: list[Refusal] = []

    def one(entry: Entry | Refusal) -> Entry | Refusal:
        if isinstance(entry, Entry) and (reason := unwritable(entry, suffix)):
            return Refusal(entry.path, reason)
        return check(entry, limits) if isinstance(entry, Entry) else entry

    # Filters belong to the process, not to a thread. What is only flawed can be trained on; what is
    # not whole no longer says its text.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AudioWarning)
        warnings.simplefilter("error", DamagedWarning)
        with ThreadPoolExecutor(jobs) as pool:
            for checked in pool.map(one, entries):
                if isinstance(checked, Entry):
                    kept.append(checked)
                else:
                    refused.append(checked)
                each()
    return kept, refused


def with_phonemes(
    entries: Sequence[Entry], language: str, batch: int = 256
) -> Iterator[Entry | Refusal]:
    """The recordings with the IPA of their texts; those without text, or with phonemes already,
    pass unchanged.

    Raises:
        DependencyError: eSpeak NG is not installed.
    """
    from rtvc.teacher.phonemes import phonemize

    without = [entry for entry in entries if entry.text and not entry.phonemes]
    spoken: dict[Path, str] = {}
    for start in range(0, len(without), batch):
        part = without[start : start + batch]
        # Capitals throughout are a corpus's habit, not a text to be spelled letter by letter.
        texts = [entry.text.lower() if entry.text.isupper() else entry.text for entry in part]
        spoken |= {
            entry.path: ipa for entry, ipa in zip(part, phonemize(texts, language), strict=True)
        }
    for entry in entries:
        ipa = flat(spoken.get(entry.path, entry.phonemes))
        if entry.text and not ipa:
            yield Refusal(entry.path, f"its text {entry.text[:40]!r} has no phonemes")
        else:
            yield replace(entry, phonemes=ipa)


def write_refusals(path: Path, refused: Sequence[Refusal]) -> None:
    """A table of what was refused, path and reason; what does not print is written as in Python.

    Raises:
        TrainingError: it cannot be written.
    """
    rows = [remark(refusal.path, refusal.reason) for refusal in refused]
    try:
        write(path, "".join(f"{row}\n" for row in ("path\treason", *rows)))
    except OutputError as error:
        raise TrainingError(f"the report {error}") from error
