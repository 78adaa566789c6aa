"""Pictures of a result: every metric over all pairs on one sheet, and the spectrograms of one
pair."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rtvc.evaluate.audio import RATE, Wave
from rtvc.evaluate.judges.optional import need
from rtvc.evaluate.summary import column
from rtvc.files import write

INK, ACCENT, PALE = "#334155", "#0f766e", "#94a3b8"
FLOOR = -80.0
"""dB below the loudest bin at which spectrograms are black."""


def overview(result: Mapping[str, Any], path: Path) -> None:
    """Six panels as a PNG: similarity twice, words, naturalness, melody, speed. Dots are pairs,
    bars means with 95 % intervals."""
    figure = need("matplotlib.figure").Figure(figsize=(12, 7), layout="constrained")
    axes = figure.subplots(2, 3)
    pairs, summary = result["pairs"], result["summary"]
    _similarity(axes[0, 0], pairs, "secs", "Similarity (Resemblyzer)")
    _similarity(axes[0, 1], pairs, "secs2", "Similarity (unrelated encoder)")
    words = {
        "wer_source": "source",
        "wer": "conversion",
        "wer2_source": "source\nWER2",
        "wer2": "conversion\nWER2",
    }
    _strips(axes[0, 2], pairs, summary, words, "Word error rate by two recognisers", (0, None))
    sound = {
        "dnsmos_ovrl": "overall",
        "dnsmos_sig": "signal",
        "dnsmos_bak": "background",
        "distillmos": "DistillMOS",
    }
    _strips(axes[1, 0], pairs, summary, sound, "DNSMOS, and DistillMOS", (1, 5))
    _strips(
        axes[1, 1],
        pairs,
        summary,
        {"f0_pcc": "conversion"},
        "F0 correlation with the source",
        (None, 1),
    )
    _strips(axes[1, 2], pairs, summary, {"rtf": "conversion"}, "Real-time factor", (0, None))
    figure.suptitle(
        f"{result['model'] or 'conversion'}, {len(pairs)} pairs, {result['date'][:10]},"
        f" {result['commit']}",
        color=INK,
    )
    write(path, lambda sink: figure.savefig(sink, format="png", dpi=110))


def spectrograms(waves: Mapping[str, Wave], path: Path) -> None:
    """One spectrogram a wave, (N,) at 24 kHz, titled by its key, under each other on one time axis,
    as a PNG."""
    figure = need("matplotlib.figure").Figure(figsize=(8, 1.5 * len(waves)), layout="constrained")
    panels = figure.subplots(len(waves), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (title, wave) in zip(panels, waves.items(), strict=True):
        seconds = len(wave) / RATE
        axis.imshow(
            decibels(wave),
            origin="lower",
            aspect="auto",
            cmap="magma",
            vmin=FLOOR,
            vmax=0,
            extent=(0, seconds, 0, RATE / 2000),
        )
        axis.set_title(title, loc="left", fontsize=8, color=INK, pad=2)
        axis.set_ylabel("kHz", fontsize=7)
        axis.tick_params(labelsize=7)
    panels[-1].set_xlim(0, max(len(wave) for wave in waves.values()) / RATE)
    panels[-1].set_xlabel("seconds", fontsize=7)
    write(path, lambda sink: figure.savefig(sink, format="png", dpi=75))


def decibels(wave: Wave) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """(N,) -> (257, T) magnitudes in dB relative to the largest, window 512, hop 120."""
    padded = np.pad(wave, (256, 256 + max(0, 512 - len(wave))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, 512)[::120] * np.hanning(512)
    power = np.abs(np.fft.rfft(frames, axis=-1)).T
    return np.asarray(
        20 * np.log10(np.maximum(power / max(power.max(), 1e-9), 10 ** (FLOOR / 20))),
        dtype=np.float32,
    )


def _similarity(axis: Any, pairs: Sequence[Mapping[str, Any]], metric: str, title: str) -> None:
    """Each pair by its similarity to the source (x) and to the target (y): above the line it sounds
    more like the target."""
    axis.plot([0, 1], [0, 1], color=PALE, linewidth=0.8)
    axis.scatter(
        column(pairs, f"{metric}_source"),
        column(pairs, f"{metric}_target"),
        s=16,
        color=ACCENT,
        alpha=0.7,
        linewidth=0,
    )
    axis.set(xlim=(0, 1), ylim=(0, 1), xlabel="to the source", ylabel="to the target")
    axis.set_title(title, fontsize=10, color=INK)


def _strips(
    axis: Any,
    pairs: Sequence[Mapping[str, Any]],
    summary: Mapping[str, Any],
    metrics: Mapping[str, str],
    title: str,
    limits: tuple[float | None, float | None],
) -> None:
    """A strip of dots a metric, its mean and its interval; the scale's ends where they are
    known."""
    spread = np.random.default_rng(0).uniform(-0.15, 0.15, len(pairs))
    for place, metric in enumerate(metrics):
        axis.scatter(
            place + spread, column(pairs, metric), s=10, color=PALE, alpha=0.6, linewidth=0
        )
        if summary[metric] is not None:
            low, high = summary["ci95"][metric]
            axis.vlines(place, low, high, color=ACCENT, linewidth=4)
            axis.hlines(summary[metric], place - 0.25, place + 0.25, color=ACCENT, linewidth=2)
            axis.annotate(
                f"{summary[metric]:.3f}",
                (place + 0.28, summary[metric]),
                fontsize=8,
                color=INK,
                va="center",
            )
    names = [
        name if summary[metric] is not None else f"{name}: none" for metric, name in metrics.items()
    ]
    axis.set_xticks(range(len(metrics)), names, fontsize=10 if len(names) < 4 else 8)
    axis.set_xlim(-0.6, len(metrics) - 0.3)
    axis.set_ylim(*limits)
    axis.set_title(title, fontsize=10, color=INK)
