"""Finding recordings, their speakers and texts in a folder, and refusing what cannot be trained on."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from rtvc.audio.check import AudioWarning, check_recording
from rtvc.audio.io import SUFFIXES, decode
from rtvc.audio.mel import SAMPLE_RATE
from rtvc.data.manifest import Entry, flat, read_manifest
from rtvc.errors import AudioError, TrainingError
from rtvc.voices.report import measure

RATES = (8_000, 11_025, 12_000, 16_000, 22_050, SAMPLE_RATE)
"""Bandwidth rates that a recording is sorted into, in Hz."""


@dataclass(frozen=True)
class Refusal:
    """A recording that is not used, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Limits:
    """What is accepted."""

    shortest: float = 1.0
    """Seconds."""
    longest: float = 30.0
    quietest_snr: float = 0.0
    """dB of speech over noise; 0 accepts everything."""


def find(source: Path) -> list[Entry]:
    """The recordings of a folder or of a table, in order of their paths, unchecked.

    Knows the trees of VCTK (`wav48*/p225/…` with `txt/p225/…`), LibriTTS (`speaker/chapter/….wav` with
    `….normalized.txt`) and LibriSpeech (`….trans.txt` a chapter); elsewhere the first folder is the speaker, and a `.txt` or
    `.lab` beside the recording its text.

    Raises:
        TrainingError: there is no such folder or table, or no recording in it.
    """
    if source.is_file():
        return read_manifest(source)
    if not source.is_dir():
        raise TrainingError(f"{source} is not there: a folder of recordings, or a .tsv or .jsonl table, was wanted")
    files = sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))
    present = set(files)
    second = {path for path in files if path.stem.endswith("_mic2") and path.with_name(path.name.replace("_mic2", "_mic1")) in present}
    entries = [Entry(path.resolve(), speaker_of(path, source), text=text_of(path, source)) for path in files if path not in second]
    if not entries:
        raise TrainingError(f"{source} holds no recordings: files ending in {', '.join(SUFFIXES)} were wanted")
    return entries


def speaker_of(path: Path, root: Path) -> str:
    """The speaker of a recording, by the tree it lies in."""
    parts = path.relative_to(root).parts[:-1]
    if len(parts) >= 2 and parts[-2].isdigit() and parts[-1].isdigit():
        return parts[-2]  # LibriSpeech, LibriTTS: speaker/chapter/file
    if len(parts) >= 2 and parts[-2].startswith("wav"):
        return parts[-1]  # VCTK: wav48_silence_trimmed/p225/file
    return parts[0] if parts else root.resolve().name


def text_of(path: Path, root: Path) -> str:
    """The transcript of a recording, empty where there is none."""
    stem = path.stem.removesuffix("_mic1").removesuffix("_mic2")
    for name in (f"{path.stem}.normalized.txt", f"{path.stem}.txt", f"{path.stem}.lab"):
        if (beside := path.with_name(name)).is_file():
            return read_text(beside)
    if (vctk := root / "txt" / path.parent.name / f"{stem}.txt").is_file():
        return read_text(vctk)
    return chapter_texts(path.parent).get(path.stem, "")


def read_text(path: Path) -> str:
    """A transcript on one line; bytes that are not UTF-8 are replaced."""
    return flat(path.read_text(encoding="utf-8", errors="replace"))


@lru_cache(maxsize=64)
def chapter_texts(folder: Path) -> dict[str, str]:
    """LibriSpeech's transcripts of a chapter: name of the recording -> text."""
    lines = [line for path in sorted(folder.glob("*.trans.txt")) for line in read_text_lines(path)]
    return {name: flat(text) for name, _, text in (line.partition(" ") for line in lines)}


def read_text_lines(path: Path) -> list[str]:
    """The lines of a text file."""
    return path.read_text(encoding="utf-8", errors="replace").splitlines()


def check(entry: Entry, limits: Limits) -> Entry | Refusal:
    """Opens a recording: fills in its length and bandwidth, or says why it is refused."""
    try:
        wave, rate = decode(entry.path)
        seconds = len(wave) / rate
        if not limits.shortest <= seconds <= limits.longest:
            return Refusal(entry.path, f"lasts {seconds:.2f} s, {limits.shortest:g} to {limits.longest:g} s were wanted")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AudioWarning)
            check_recording(wave, rate, entry.path.name)
        report = measure(wave, rate)
    except (AudioError, MemoryError) as error:
        return Refusal(entry.path, flat(str(error)))
    if report.snr < limits.quietest_snr:
        return Refusal(entry.path, f"speech is {report.snr:.0f} dB above the noise, {limits.quietest_snr:g} dB were wanted")
    heard = next((r for r in RATES if r / 2 >= report.bandwidth - 250), SAMPLE_RATE)
    return replace(entry, seconds=seconds, bandwidth_rate=min(heard, entry.bandwidth_rate))


def check_all(entries: Sequence[Entry], limits: Limits, jobs: int, each: Callable[[], None]) -> tuple[list[Entry], list[Refusal]]:
    """Checks recordings in threads, keeping their order; `each` is called after every one."""
    kept: list[Entry] = []
    refused: list[Refusal] = []
    with ThreadPoolExecutor(jobs) as pool:
        for found in pool.map(lambda entry: check(entry, limits), entries):
            if isinstance(found, Entry):
                kept.append(found)
            else:
                refused.append(found)
            each()
    return kept, refused


def with_phonemes(entries: Sequence[Entry], language: str, batch: int = 256) -> Iterator[Entry | Refusal]:
    """The recordings with the IPA of their texts; those without text, or with phonemes already, pass unchanged.

    Raises:
        DependencyError: eSpeak NG is not installed.
    """
    from rtvc.teacher.phonemes import phonemize

    wanted = [entry for entry in entries if entry.text and not entry.phonemes]
    spoken: dict[Path, str] = {}
    for start in range(0, len(wanted), batch):
        part = wanted[start : start + batch]
        # Capitals throughout are a corpus's habit, not a text to be spelled letter by letter.
        texts = [entry.text.lower() if entry.text.isupper() else entry.text for entry in part]
        spoken |= {entry.path: ipa for entry, ipa in zip(part, phonemize(texts, language), strict=True)}
    for entry in entries:
        ipa = flat(spoken.get(entry.path, entry.phonemes))
        if entry.text and not ipa:
            yield Refusal(entry.path, f"its text {entry.text[:40]!r} has no phonemes")
        else:
            yield replace(entry, phonemes=ipa)


def write_refusals(path: Path, refused: Sequence[Refusal]) -> None:
    """A table of what was refused, path and reason."""
    try:
        path.write_text("path\treason\n" + "".join(f"{r.path}\t{r.reason}\n" for r in refused), encoding="utf-8")
    except OSError as error:
        raise TrainingError(f"the report {path} cannot be written ({error})") from error
