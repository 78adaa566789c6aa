"""A recording piece by piece: looked through once, then read again as mono at any rate. Memory
does not grow with its length.

Short ones are kept as they were decoded; of long ones nothing is, they are decoded a second time.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rtvc.audio import opening
from rtvc.audio.channels import PIECE, Mix, mixed
from rtvc.audio.check import check_intake, check_mix, check_samples, check_values
from rtvc.audio.intake import Intake
from rtvc.audio.io import SUFFIXES, StrPath, as_samples, opened, reason, suffix_of
from rtvc.audio.mel import SAMPLE_RATE
from rtvc.audio.opening import name_of
from rtvc.audio.resample import check_rate, resampled, resampled_length
from rtvc.audio.samples import Samples
from rtvc.errors import AudioError, OutputError
from rtvc.files import kind, named, replacing

KEPT = 1 << 26
"""Bytes of decoded samples up to which a file is decoded once only."""


@dataclass(frozen=True)
class Recording:
    """A recording that can be used.

    Attributes:
        what: its name in errors.
        rate: in Hz.
        frames: samples a channel.
        mix: what becomes of its channels.
        blocks: its samples from the beginning, (N, C) float32 at a time.
    """

    what: str
    rate: int
    frames: int
    mix: Mix
    blocks: Callable[[], Iterable[Samples]]

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.frames / self.rate

    def mono(self, rate: float) -> Iterator[Samples]:
        """The mixed samples at `rate` Hz, (N,) at a time."""
        return resampled(
            (mixed(block, self.mix) for block in self.blocks()), self.rate, check_rate(rate)
        )

    def chunks(self, rate: float, size: int, multiple: int) -> Iterator[Samples]:
        """The same, (size,) at a time; zeros make the last a multiple of so many samples."""
        waiting, count = list[Samples](), 0
        for piece in self.mono(rate):
            waiting.append(piece)
            count += len(piece)
            if count >= size:
                whole = np.concatenate(waiting)
                for start in range(0, count // size * size, size):
                    yield whole[start : start + size]
                waiting, count = [whole[count // size * size :]], count % size
        if count:
            yield np.pad(np.concatenate(waiting), (0, -count % multiple))

    def samples(self, rate: float) -> Samples:
        """All of it at once, (N,) float32 at `rate` Hz."""
        whole, at = (
            np.empty(resampled_length(self.frames, self.rate, check_rate(rate)), np.float32),
            0,
        )
        for piece in self.mono(rate):
            whole[at : at + len(piece)] = piece
            at += len(piece)
        return whole


def looked_through(
    what: str, rate: int, blocks: Iterable[Samples], *, checked: bool, most: int = KEPT
) -> tuple[Intake, list[Samples]]:
    """What is known after all blocks (N, C), and the blocks themselves unless they are more than
    `most` bytes.

    Raises:
        AudioError: as `check_recording` if `checked`; otherwise for samples that are none.
    """
    intake: Intake | None = None
    kept, size = list[Samples](), 0
    for block in blocks:
        if intake is None:
            intake = Intake(block.shape[1], rate)
        intake.add(block)
        size += block.nbytes
        kept = [*kept, block] if size <= most else []
    if intake is None:
        intake = Intake(1, rate)
    if checked:
        check_intake(intake, what)
    else:
        check_values(intake.bad, intake.peak, what)
    return intake, kept if size <= most else []


def open_recording(path: StrPath, *, checked: bool = True) -> Recording:
    """A file, looked through.

    Args:
        path: of a file in any format that `rtvc.audio.io.decode` knows.
        checked: refuse recordings that cannot be used, as `check_recording` does.

    Raises:
        AudioError: the file cannot be read or used.
    """
    what = name_of(path)
    most = KEPT if kind(path) == "file" else opening.LONGEST_PIPE  # a pipe cannot be read twice
    with opened(path) as file:
        intake, kept = looked_through(what, file.rate, file.blocks, checked=checked, most=most)
    mix = intake.channels.mix()
    check_mix(mix, what)

    def again() -> Iterator[Samples]:
        with opened(path) as once_more:
            yield from once_more.blocks

    return Recording(what, file.rate, intake.frames, mix, (lambda: kept) if kept else again)


def recording_of(
    wave: object, rate: object, what: str = "the recording", *, checked: bool = True
) -> Recording:
    """Samples that a caller holds, looked through.

    Args:
        wave: array or tensor, (N,) or (N, C); floating point in -1..1, or 16- or 32-bit integers.
        rate: of `wave`, in Hz.
        what: its name in errors.
        checked: as in `open_recording`.

    Raises:
        AudioError: not samples, no rate, or samples that cannot be used.
    """
    array, native = as_samples(wave, what), check_rate(rate)
    check_samples(array, what)
    columns = array.reshape(len(array), -1)
    intake = looked_through(what, native, (columns,), checked=checked)[0]
    mix = intake.channels.mix()
    check_mix(mix, what)
    step = max(1, PIECE // columns.shape[1])
    return Recording(
        what,
        native,
        len(columns),
        mix,
        lambda: (columns[at : at + step] for at in range(0, len(columns), step)),
    )


def write_pieces(path: StrPath, pieces: Iterable[Samples], rate: int) -> Path:
    """Writes mono samples (N,) in -1..1 as they come; the file appears at once and whole, or not
    at all.

    Returns:
        The path.

    Raises:
        AudioError: a suffix or a place that cannot be written.
    """
    import soundfile

    path = Path(path)
    container, subtype = SUFFIXES[suffix_of(path)]
    form: dict[str, Any] = {"subtype": subtype, "format": container}
    try:
        with (
            replacing(path) as fresh,
            soundfile.SoundFile(named(fresh), "w", check_rate(rate), 1, **form) as sink,
        ):
            for piece in pieces:
                sink.write(np.clip(piece, -1, 1))
    except OutputError as error:
        raise AudioError(str(error)) from error
    except (soundfile.SoundFileError, ValueError) as error:
        raise AudioError(
            f"{path} cannot be written ({reason(error)}): check the free space and the sample rate"
        ) from error
    return path


def read(path: StrPath, *, rate: int = SAMPLE_RATE, checked: bool = True) -> Tensor:
    """A recording as mono samples.

    Args:
        path: of the file.
        rate: wanted, in Hz.
        checked: refuse recordings that cannot be used (`check_recording`); otherwise only files
            that cannot be read.

    Returns:
        (N,) float32 in about -1..1.

    Raises:
        AudioError: the file cannot be read or used.
    """
    return torch.from_numpy(open_recording(path, checked=checked).samples(rate))


def prepare(
    wave: object, rate: object, what: str = "the recording", *, checked: bool = True
) -> Tensor:
    """Samples that a caller holds, as `read` would return them.

    Args:
        wave: array or tensor, (N,) or (N, C); floating point in -1..1, or 16- or 32-bit integers.
        rate: of `wave`, in Hz.
        what: the recording's name in errors.
        checked: as in `read`.

    Returns:
        (N,) float32 at 24 kHz.

    Raises:
        AudioError: not samples, or samples that cannot be used.
    """
    return torch.from_numpy(recording_of(wave, rate, what, checked=checked).samples(SAMPLE_RATE))
