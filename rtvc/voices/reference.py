"""From a recording to what a voice is made of: at most a minute of speech, found wherever in it
somebody speaks.

Whoever makes a voice comes through here: files, samples, uploads, every command.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rtvc import checks
from rtvc.audio.channels import mix_of, mixed
from rtvc.audio.check import check_intake, check_mix, check_samples
from rtvc.audio.intake import Intake
from rtvc.audio.io import as_samples, opened
from rtvc.audio.mel import HOP, SAMPLE_RATE
from rtvc.audio.resample import check_rate, resample
from rtvc.audio.samples import Samples
from rtvc.errors import AudioError, VoiceError
from rtvc.voices.report import LOOK_S, Report, advise, figures_of
from rtvc.voices.speech import RATE, STEP, Speech, closed, find_speech, widened
from rtvc.voices.voice import STYLE

LONGEST_S = 60.0
"""Seconds of a recording, speech and the pauses between, that are used."""
LEAST_S = 0.3
"""Seconds of speech below which there is none."""
MARGIN, GAP = 25, 100
"""Frames of 10 ms kept around speech, and the longest pause that is kept whole."""
WINDOW_S = 3.0
"""Seconds of a stretch whose style is compared with others'."""
APART = {"stream": 0.18, "dial": 0.15}
"""Cosine distance between two groups of stretches from which two people are suspected, by style
space: of `dial`, for 20 speakers of LibriSpeech, three recordings each, it is 0.147 at most, for
pairs of them 0.216 in the median, and above 0.15 for eight of ten. Other spaces were not measured
and are not compared."""

Styles = Callable[[Tensor], tuple[Tensor, Tensor]]
"""(1, 1, N) at 24 kHz, N a multiple of HOP -> acoustic and prosodic style, (1, 128) each."""


@dataclass(frozen=True)
class Reference:
    """What was found in a recording.

    Attributes:
        samples: (N,) float32 at 24 kHz, speech and the short pauses in it.
        report: how good it is.
    """

    samples: Tensor
    report: Report


def find_reference(recording: object) -> Reference:
    """The speech of a recording.

    Args:
        recording: a file, which is read no further than needed; or samples (N,) or (N, C), as
            `rtvc.audio.recording.prepare` takes them, and their rate in Hz.

    Raises:
        AudioError: it cannot be read or used, or nobody speaks in it.
        VoiceError: it is something else.
    """
    if isinstance(recording, str | os.PathLike):
        with opened(recording) as file:
            return search(
                file.blocks, file.rate, file.frames, os.fspath(recording), Path(recording).name
            )
    if not isinstance(recording, tuple):
        raise VoiceError(
            f"expected a path, (samples, rate) or a Voice as a reference, got"
            f" {checks.what(recording)}: several are passed one by one, as in vc.voice(*paths)"
        )
    if len(recording) != 2 or (
        isinstance(recording[0], Real) and not isinstance(recording[1], Real)
    ):
        raise VoiceError(
            "expected (samples, rate), got another tuple: an array first, then its rate in Hz"
        )
    what, (wave, rate) = "the recording", recording
    array, native = as_samples(wave, what), check_rate(rate)
    check_samples(array, what)
    columns = array.reshape(len(array), -1)
    return search((columns,), native, len(columns), what, "recording")


def search(blocks: Iterable[Samples], rate: int, frames: int, what: str, name: str) -> Reference:
    """The speech in blocks (N, C) at `rate` Hz, of which there should be `frames` samples a
    channel.

    Raises:
        AudioError: as `find_reference`.
    """
    intake: Intake | None = None
    kept, speeches, length, warned = list[Samples](), list[Speech](), 0, False
    most = int(LONGEST_S * rate)
    for window in windows(blocks, int(LOOK_S * rate)):
        intake = intake or Intake(window.shape[1], rate)
        intake.add(window)
        if intake.bad:
            break
        mix = mix_of(window)
        if mix.lost and not warned:
            check_mix(mix, what)
            warned = True
        listened = mixed(window, mix)
        speech = find_speech(listened, rate)
        speeches.append(speech)
        for stretch in stretches(listened, rate, speech):
            kept.append(stretch[: most - length])
            length += len(kept[-1])
        if length >= most:
            break
    intake = intake or Intake(1, rate)
    check_intake(intake, what)
    seconds = sum(speech.seconds for speech in speeches)
    if seconds < LEAST_S:
        raise AudioError(
            f"no speech was found in {intake.frames / rate:.1f} s of {what}: noise, music or"
            " silence makes no voice; use a recording of one person who speaks, 5 to 20 s of it"
        )
    samples = np.concatenate(kept)
    whole = frames if length >= most else intake.frames
    figures = figures_of(samples, rate) | {
        "seconds": max(whole, intake.frames) / rate,
        "speech": float(min(len(samples) / rate, seconds)),
        "clipped": intake.clipped,
    }
    report = Report(name, **figures, advice=tuple(advise(**figures)), used=len(samples) / rate)
    return Reference(torch.from_numpy(resample(samples, rate, SAMPLE_RATE)), report)


def windows(blocks: Iterable[Samples], size: int) -> Iterator[Samples]:
    """The same samples, (size, C) at a time; the last one may be shorter, or up to half as long
    again.
    """
    waiting = list[Samples]()
    for block in blocks:
        for part in np.split(block, range(size, len(block), size)):
            waiting.append(part)
            if sum(map(len, waiting)) >= 1.5 * size:
                joined = np.concatenate(waiting)
                yield joined[:size]
                waiting = [joined[size:]]
    if waiting:
        yield np.concatenate(waiting)


def stretches(samples: Samples, rate: int, speech: Speech) -> Iterator[Samples]:
    """The parts of samples (N,) in which somebody speaks, with short pauses."""
    mask = closed(widened(speech.frames, MARGIN), GAP) if speech.frames.any() else speech.frames
    edges = np.diff(np.concatenate([[0], mask.astype(np.int8), [0]]))
    for start, stop in zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), strict=True):
        end = len(samples) if stop == len(mask) else round(stop * STEP * rate / RATE)
        yield samples[round(start * STEP * rate / RATE) : end]


def compared(reference: Reference, styles: Styles, space: str, device: torch.device) -> Reference:
    """The reference, with a piece of advice where its stretches sound like two people."""
    size = int(WINDOW_S * SAMPLE_RATE) // HOP * HOP
    kind = space.partition("-")[0]
    if kind not in APART or len(reference.samples) < 2 * size:
        return reference
    parts = reference.samples[: len(reference.samples) // size * size].split(size)
    embeddings = torch.cat(
        [F.normalize(styles(part[None, None].to(device))[0][:, :STYLE]) for part in parts]
    ).cpu()
    if two_groups(embeddings) < APART[kind]:
        return reference
    told = "it sounds as if two people speak in it: use a recording of one, or cut the other out"
    return replace(
        reference, report=replace(reference.report, advice=(*reference.report.advice, told))
    )


def two_groups(styles: Tensor) -> float:
    """styles (W, S) of length 1 -> the cosine distance between the means of two groups of them.

    The two that differ most begin the groups, the others join the nearer one (2-means, two rounds).
    """
    alike = styles @ styles.T
    first, second = divmod(int(alike.argmin()), len(styles))
    centres = styles[[first, second]]
    for _ in range(2):
        nearer = (styles @ centres.T).argmax(1)
        if nearer.min() == nearer.max():
            return 0.0
        centres = F.normalize(torch.stack([styles[nearer == group].mean(0) for group in (0, 1)]))
    return float(1 - centres[0] @ centres[1])
