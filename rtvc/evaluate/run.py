"""Convert every pair of a list, measure the conversions, and go on where a killed run stopped."""

import json
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from rtvc.errors import AudioError
from rtvc.evaluate.audio import RATE, Wave
from rtvc.evaluate.evaluators import Evaluators, Recordings, fingerprint, standard
from rtvc.evaluate.pairs import Pair, read_pairs
from rtvc.evaluate.pitch import aligned, pcc
from rtvc.evaluate.provenance import provenance
from rtvc.evaluate.speaker import similarity, unit
from rtvc.evaluate.summary import summarise
from rtvc.evaluate.text import wer
from rtvc.files import write, write_json

ConvertFn = Callable[[Path, list[Path]], tuple[Wave, float]]
"""(source, references) -> (N,) float32 mono at 24 kHz, and the seconds of computing it took."""
Progress = Callable[[str, int, int], None]
"""Told the stage ("convert" or "measure"), how many pairs are done, and of how many."""


def evaluate_pairs(
    convert: ConvertFn,
    pairs_tsv: Path | str,
    limit: int | None = None,
    *,
    model: str = "",
    key: str | None = None,
    cache: Path | None = None,
    lag: int = 0,
    workers: int = 1,
    evaluators: Evaluators | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """The whole evaluation, as `rtvc evaluate --json` writes it: summary, pairs, machine, commit, date, model.

    Conversions come first, one by one, so that the real-time factor is measured undisturbed; then `workers` threads measure them.

    Args:
        convert: see `ConvertFn`.
        pairs_tsv: the list of pairs; audio under `eval/` beside it.
        limit: only the first so many.
        model: the name to be written into the result.
        key: identifies the converter exactly (a hash of weights and settings). With `cache`, what was converted and
            measured under the same key is used again; without a key only the measurements of the recordings themselves are.
        cache: a folder for that.
        lag: samples by which conversions lag their sources (0 if the converter trims its latency).
        workers: threads that measure.
        evaluators: stand-ins for the standard ones.
        progress: see `Progress`.

    Raises:
        AudioError: a recording is missing, or a conversion is empty or not finite.
        ConfigError: the list cannot be used.
        DependencyError: an evaluator is not installed.
    """
    pairs = read_pairs(Path(pairs_tsv), limit)
    tell = progress or (lambda stage, done, total: None)
    folder = cache / key if cache and key else None
    ears = evaluators or standard(workers)
    recordings = Recordings(ears, cache and cache / "recordings")

    waves: dict[str, tuple[Wave, float]] = {}
    for done, pair in enumerate(pairs):
        tell("convert", done, len(pairs))
        waves[pair.name] = conversion(convert, pair, folder)
    tell("convert", len(pairs), len(pairs))

    def judge(pair: Pair) -> dict[str, Any]:
        file = folder and folder / f"{pair.name}-{fingerprint()}.json"
        if file and file.is_file():
            kept: dict[str, Any] = json.loads(file.read_text())
            return kept
        found = measure(pair, *waves[pair.name], recordings, ears, lag)
        if file:
            write_json(file, found)
        return found

    results: list[dict[str, Any]] = []
    with ThreadPoolExecutor(workers) as pool:
        for result in pool.map(judge, pairs):
            results.append(result)
            tell("measure", len(results), len(pairs))
    return {"summary": summarise(results), "pairs": results, **provenance(), "model": model}


def conversion(convert: ConvertFn, pair: Pair, folder: Path | None) -> tuple[Wave, float]:
    """One conversion and its computing time, from the folder if it is there."""
    file = folder and folder / f"{pair.name}.npz"
    if file and file.is_file():
        with np.load(file, allow_pickle=False) as kept:
            return kept["wave"], float(kept["seconds"])
    wave, seconds = convert(pair.source, list(pair.references))
    wave = np.asarray(wave, dtype=np.float32)
    if wave.ndim != 1 or not wave.size or not np.isfinite(wave).all():
        state = "is finite" if np.isfinite(wave).all() else "holds samples that are not finite"
        raise AudioError(f"the conversion {pair.name} has shape {wave.shape} and {state}; wanted finite samples of shape (N,)")
    if file:
        write(file, lambda sink: np.savez(sink, wave=wave, seconds=np.float64(seconds)))
    return wave, seconds


def measure(pair: Pair, wave: Wave, seconds: float, recordings: Recordings, ears: Evaluators, lag: int = 0) -> dict[str, Any]:
    """Every number of one conversion (N,) at 24 kHz that took `seconds` to compute."""
    heard, heard_source = ears.transcribe(wave), recordings.transcript(pair.source)
    errors, words = wer(pair.transcript, heard)
    errors_source, _ = wer(pair.transcript, heard_source)
    voice, voice2 = ears.embed(wave), ears.embed2(wave)
    target = unit(np.mean([recordings.embedding(path) for path in pair.references], axis=0))
    target2 = unit(np.mean([recordings.embedding2(path) for path in pair.references], axis=0))
    quality = ears.quality(wave)
    melody = pcc(recordings.pitch(pair.source), ears.pitch(aligned(wave, lag)))
    length = len(wave) / RATE
    return {
        "pair": pair.name,
        "source": pair.source.name,
        "target_speaker": pair.target,
        "references": [path.name for path in pair.references],
        "transcript": pair.transcript,
        "heard": heard,
        "heard_source": heard_source,
        "words": words,
        "errors": errors,
        "errors_source": errors_source,
        "wer": errors / max(words, 1),
        "wer_source": errors_source / max(words, 1),
        "secs_target": similarity(voice, target),
        "secs_source": similarity(voice, recordings.embedding(pair.source)),
        "secs2_target": similarity(voice2, target2),
        "secs2_source": similarity(voice2, recordings.embedding2(pair.source)),
        "dnsmos_ovrl": quality["ovrl"],
        "dnsmos_sig": quality["sig"],
        "dnsmos_bak": quality["bak"],
        "f0_pcc": melody if math.isfinite(melody) else None,
        "seconds": length,
        "compute_seconds": seconds,
        "rtf": seconds / length,
    }
