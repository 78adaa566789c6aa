"""Convert every pair of a list, measure the conversions, and go on where a killed run stopped."""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from rtvc.errors import AudioError
from rtvc.evaluate.audio import RATE, Wave
from rtvc.evaluate.evaluators import Evaluators, standard
from rtvc.evaluate.judges.pitch import pcc
from rtvc.evaluate.judges.speaker import similarity, unit
from rtvc.evaluate.measurements import Measurements, Recordings
from rtvc.evaluate.pairs import Pair, read_pairs
from rtvc.evaluate.provenance import commit, provenance
from rtvc.evaluate.summary import summarise
from rtvc.evaluate.text import wer
from rtvc.files import write

ConvertFn = Callable[[Path, list[Path]], tuple[Wave, float]]
"""(source, references) -> (N,) float32 mono at 24 kHz, and the seconds of computing it took."""
Progress = Callable[[str, int, int], None]
"""Told the stage ("convert" or "measure"), how many pairs are done, and of how many."""


def evaluate_pairs(
    convert: ConvertFn,
    pairs: Path | str | Sequence[Pair],
    limit: int | None = None,
    *,
    model: str = "",
    key: str | None = None,
    cache: Path | None = None,
    recordings: Path | None = None,
    lag: int = 0,
    workers: int = 1,
    evaluators: Evaluators | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """The whole evaluation, as `rtvc evaluate --json` writes it.

    That is: summary, pairs, unavailable (a metric -> why it has no values), machine, commit, date,
    model.

    Conversions come first, one by one, so that the real-time factor is measured undisturbed; then
    `workers` threads measure them.

    Args:
        convert: see `ConvertFn`.
        pairs: what to convert, or the file that lists it; audio under `eval/` beside it.
        limit: only the first so many of a file.
        model: the name to be written into the result.
        key: identifies the converter exactly (a hash of weights and settings). With `cache`, what
            was converted and measured under the same key is used again; without a key only the
            measurements of the recordings themselves are.
        cache: a folder for that.
        recordings: a folder for what is said of the recordings themselves, which is the same for
            every model; by default in `cache`.
        lag: samples by which conversions lag their sources (0 if the converter trims its latency).
        workers: threads that measure.
        evaluators: stand-ins for the standard ones.
        progress: see `Progress`.

    Raises:
        AudioError: a recording is missing, or a conversion is empty or not finite.
        ConfigError: the list cannot be used.
        DependencyError: an evaluator is not installed.
    """
    listed = read_pairs(Path(pairs), limit) if isinstance(pairs, Path | str) else list(pairs)
    tell = progress or (lambda stage, done, total: None)
    code = commit()  # of what is loaded now: hours later the checkout may be another
    folder = cache / key if cache and key else None
    ears = evaluators or standard(workers)
    known = Recordings(ears, recordings or (cache and cache / "recordings"))

    conversions: dict[str, tuple[Wave, float]] = {}
    for done, pair in enumerate(listed):
        tell("convert", done, len(listed))
        conversions[pair.name] = conversion(convert, pair, folder)
    tell("convert", len(listed), len(listed))

    def judge(pair: Pair) -> dict[str, Any]:
        wave, seconds = conversions[pair.name]
        measurements = Measurements(ears, lambda: wave, folder and folder / pair.stem, lag)
        return measure(pair, len(wave) / RATE, seconds, measurements, known)

    results: list[dict[str, Any]] = []
    with ThreadPoolExecutor(workers) as pool:
        for result in pool.map(judge, listed):
            results.append(result)
            tell("measure", len(results), len(listed))
    return {
        "summary": summarise(results),
        "pairs": results,
        "unavailable": dict(ears.missing),
        **provenance(),
        "commit": code,
        "model": model,
    }


def conversion(convert: ConvertFn, pair: Pair, folder: Path | None) -> tuple[Wave, float]:
    """One conversion and its computing time, from the folder if it is there."""
    file = folder and folder / f"{pair.stem}.npz"
    if file and file.is_file():
        with np.load(file, allow_pickle=False) as kept:
            return kept["wave"], float(kept["seconds"])
    wave, seconds = convert(pair.source, list(pair.references))
    wave = np.asarray(wave, dtype=np.float32)
    if wave.ndim != 1 or not wave.size or not np.isfinite(wave).all():
        state = "is finite" if np.isfinite(wave).all() else "holds samples that are not finite"
        raise AudioError(
            f"the conversion {pair.name} has shape {wave.shape} and {state}; wanted finite samples"
            " of shape (N,)"
        )
    if file:
        write(file, lambda sink: np.savez(sink, wave=wave, seconds=np.float64(seconds)))
    return wave, seconds


def measure(
    pair: Pair, length: float, seconds: float, converted: Measurements, recordings: Recordings
) -> dict[str, Any]:
    """Every number of one conversion of `length` seconds that took `seconds` to compute."""
    source = recordings.measurements(pair.source)
    voice, voice2 = converted.embedding(), converted.embedding2()
    references = [recordings.measurements(path) for path in pair.references]
    target = unit(np.mean([reference.embedding() for reference in references], axis=0))
    target2 = unit(np.mean([reference.embedding2() for reference in references], axis=0))
    quality = converted.quality()
    melody = pcc(source.pitch(), converted.pitch())
    return {
        "pair": pair.name,
        "source": pair.source.name,
        "target_speaker": pair.target,
        "references": [path.name for path in pair.references],
        "transcript": pair.transcript,
        **understood(pair.transcript, converted.transcript(), source.transcript()),
        **understood(pair.transcript, converted.transcript2(), source.transcript2(), "2"),
        "secs_target": similarity(voice, target),
        "secs_source": similarity(voice, source.embedding()),
        "secs2_target": similarity(voice2, target2),
        "secs2_source": similarity(voice2, source.embedding2()),
        "dnsmos_ovrl": quality["ovrl"],
        "dnsmos_sig": quality["sig"],
        "dnsmos_bak": quality["bak"],
        "distillmos": converted.naturalness(),
        "distillmos_source": source.naturalness(),
        "f0_pcc": melody if math.isfinite(melody) else None,
        "seconds": length,
        "compute_seconds": seconds,
        "rtf": seconds / length,
    }


def understood(
    transcript: str, recognised: str | None, recognised_source: str | None, number: str = ""
) -> dict[str, Any]:
    """What a recogniser heard in a conversion and in its source, and how much of it is wrong.

    Errors and rates are None from a recogniser that is missing, and where the transcript holds no
    word to lose.
    """
    results: dict[str, Any] = {
        f"heard{number}": recognised,
        f"heard{number}_source": recognised_source,
    }
    for place, text in (("", recognised), ("_source", recognised_source)):
        errors, words = wer(transcript, text or "")
        known = text is not None and words > 0
        results["words"] = words
        results[f"errors{number}{place}"] = errors if known else None
        results[f"wer{number}{place}"] = errors / words if known else None
    return results
