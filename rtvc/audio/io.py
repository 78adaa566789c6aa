"""Recordings in and out: any file that libsndfile or PyAV reads, as mono float32 at 24 kHz."""

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from rtvc.audio import opening
from rtvc.audio.channels import mix_of, mixed
from rtvc.audio.check import check_mix, check_samples
from rtvc.audio.mel import SAMPLE_RATE
from rtvc.audio.resample import check_rate
from rtvc.audio.samples import Samples
from rtvc.errors import AudioError, OutputError
from rtvc.files import StrPath as StrPath
from rtvc.files import check_target, is_stream, named, replacing

SUFFIXES = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".oga": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
    ".aiff": ("AIFF", "PCM_16"),
    ".aif": ("AIFF", "PCM_16"),
    ".au": ("AU", "PCM_16"),
    ".caf": ("CAF", "PCM_16"),
    ".w64": ("W64", "PCM_16"),
}
"""What can be written, by suffix: the container, and the sample format inside."""
STREAMED = ".wav"
"""Stands for the suffix of a pipe or device that has none of these."""
BLOCK = 1 << 18
"""Frames that are decoded at once: a header that lies about its length cannot make us allocate for
it."""


class Opened(NamedTuple):
    """A file that is being decoded.

    Attributes:
        rate: in Hz.
        frames: samples a channel, as its header says; it may be wrong.
        blocks: its samples, (N, C) float32 at a time.
    """

    rate: int
    frames: int
    blocks: Iterator[Samples]


@contextmanager
def opened(path: StrPath) -> Iterator[Opened]:
    """A file or pipe while it is decoded; `-` is standard input.

    Raises:
        AudioError: no such file, or one that cannot be read here.

    Warns with an `AudioWarning` where the header promises more than there is, or says nothing.
    """
    with ExitStack() as stack:
        with reading(path):
            file = stack.enter_context(opening.opened(path))

        def blocks() -> Iterator[Samples]:
            size, came = max(1, BLOCK // file.channels), 0
            while True:
                with reading(path):
                    block = file.read(size, dtype="float32", always_2d=True)
                if not len(block):
                    break
                came += len(block)
                yield block
            opening.check_count(path, file, came)

        yield Opened(int(file.samplerate), int(file.frames), blocks())


@contextmanager
def reading(path: StrPath) -> Iterator[None]:
    """What a decoder complains about becomes an `AudioError` that names the file."""
    import soundfile

    try:
        yield
    except (soundfile.SoundFileError, OSError, TypeError, ValueError) as error:
        raise AudioError(
            f"{path} cannot be read as audio ({reason(error)}): convert it to WAV, or check that it"
            " is whole"
        ) from error


def decode(path: StrPath) -> tuple[Samples, int]:
    """Every channel of a file, as it is; `rtvc.audio.recording` reads long ones without holding
    them whole.

    Args:
        path: of a file or pipe in a format that libsndfile knows (WAV, FLAC, Ogg Vorbis and Opus,
            MP3, AIFF, …) or PyAV (M4A, MP4, AAC, WebM, WMA); `-` is standard input.

    Returns:
        (N, C) float32, and its rate in Hz.

    Raises:
        AudioError: no such file, or one that cannot be read here.

    Warns with an `AudioWarning` where the header promises more than there is, or says nothing.
    """
    samples, channels = np.zeros(0, np.float32), 1
    with opened(path) as file:
        for block in file.blocks:
            filled, channels = len(samples), block.shape[1]
            samples.resize(filled + block.size, refcheck=False)  # grows in place: never two copies
            samples[filled:] = block.reshape(-1)
    return samples.reshape(-1, channels), file.rate


def reason(error: Exception) -> str:
    """The last part of a decoder's message: libsndfile's names the path first."""
    return str(error).rpartition(": ")[2].strip().rstrip(".") or type(error).__name__


def mono(wave: Samples, what: str = "the recording") -> Samples:
    """wave (N,) or (N, C) -> (N,), as loud as the loudest channel.

    Channels are weighted by their levels: silent ones are left out, and where they cancel each
    other the loudest is used alone, with a warning.
    """
    if wave.ndim == 1 or wave.shape[1] == 1:
        return wave.reshape(-1)
    mix = mix_of(wave)
    check_mix(mix, what)
    return mixed(wave, mix)


def as_samples(wave: object, what: str) -> Samples:
    """Samples that a caller holds, as float32 in -1..1: floats as they are, 16- or 32-bit integers
    by their full scale.

    Raises:
        AudioError: something else.
    """
    samples = "expected floating point or 16- or 32-bit integer samples"
    if isinstance(wave, str | os.PathLike):
        raise AudioError(
            f"{samples} as {what}, got the path {wave}: read it first, as with soundfile.read"
        )
    try:
        array = wave.detach().cpu() if isinstance(wave, Tensor) else wave
        array = np.asarray(
            array.float() if isinstance(array, Tensor) and array.is_floating_point() else array
        )
    except (TypeError, ValueError, RuntimeError) as error:
        raise AudioError(
            f"{samples} as {what}, got a value of type {type(wave).__name__}: pass one array"
        ) from error
    if array.dtype in (np.int16, np.int32):
        return np.asarray(array / np.float64(-np.iinfo(array.dtype).min), np.float32)
    if not np.issubdtype(array.dtype, np.floating):
        raise AudioError(f"{samples} as {what}, got {array.dtype}: convert them")
    with np.errstate(
        over="ignore"
    ):  # what float32 cannot hold becomes infinite, and is refused as such
        return np.asarray(array, np.float32)


def check_output(
    path: StrPath, *, sources: Iterable[StrPath] = (), force: bool | None = None
) -> Path:
    """The path, if a recording can be written there; to be asked before long work.

    Args:
        path: of the file; `-` is standard output.
        sources: files that are read, none of which is to be lost.
        force: replace the target even if it is one of the sources; None where nobody can say so.

    Raises:
        AudioError: a suffix that cannot be written, a place that cannot be written, or a source.
    """
    path = Path(path)
    suffix_of(path)
    try:
        return check_target(path, sources=sources, force=force)
    except OutputError as error:
        raise AudioError(str(error)) from error


def suffix_of(path: Path) -> str:
    """The suffix in `SUFFIXES` by which a target is written; `.wav` for a pipe or device of
    another.

    Raises:
        AudioError: a file with a suffix that cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return suffix
    if is_stream(path):
        return STREAMED
    raise AudioError(f"expected a name that ends in {', '.join(SUFFIXES)}, got {path}")


def write(path: StrPath, wave: Tensor | Samples, rate: int = SAMPLE_RATE) -> Path:
    """Writes samples; the file appears at once and whole, or not at all (see `rtvc.files`).

    Args:
        path: of the file; its suffix chooses the format (`SUFFIXES`). `-` is standard output, which
            gets WAV, as do pipes and devices without such a suffix.
        wave: (N,) or (N, C) in -1..1; what lies outside is limited.
        rate: of `wave`, in Hz.

    Returns:
        The path.

    Raises:
        AudioError: a suffix that cannot be written, a place that cannot, or samples that are none.
    """
    import soundfile

    path = Path(path)
    container, subtype = SUFFIXES[suffix_of(path)]
    samples = np.asarray(wave.detach().cpu() if isinstance(wave, Tensor) else wave, np.float32)
    check_samples(samples, f"what is to be written to {path}")
    limited, rate = np.clip(samples, -1, 1), check_rate(rate)
    try:
        with replacing(path) as fresh:
            soundfile.write(named(fresh), limited, rate, subtype=subtype, format=container)
    except OutputError as error:
        raise AudioError(str(error)) from error
    except (soundfile.SoundFileError, ValueError) as error:
        what = "check the free space and the sample rate"
        raise AudioError(f"{path} cannot be written ({reason(error)}): {what}") from error
    return path
