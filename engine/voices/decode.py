"""Decodes one untrusted audio file in a process of its own, with little memory, little time and no
disk.

Run as a program: the file comes on stdin, `RATE\\n` and mono float32 samples leave on stdout; what
is wrong leaves on stderr. Of ours it imports the mixing of channels and the containers of phones
and browsers, which need numpy alone, so that it starts fast.
"""

import io
import resource
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from soundfile import SoundFile

    from rtvc.audio.containers import Contained

MEMORY = 1 << 30
"""Bytes of address space that it may use."""
CHANNELS = 8
RATES = (4_000, 192_000)
TOP_RATE = 48_000
"""Files of higher rates may last proportionally shorter."""
BLOCK = 1 << 16
FORMATS = "WAV, FLAC, Ogg Vorbis or Opus, MP3, AIFF, M4A, AAC, WebM, WMA"


def confine(cpu_s: int) -> None:
    """No more memory, time, files or processes than decoding takes."""
    for limit, value in (
        (resource.RLIMIT_AS, MEMORY),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 32),
    ):
        resource.setrlimit(limit, (value, value))


def opened(data: bytes) -> "SoundFile | Contained":
    """A file, open for reading.

    Raises:
        ValueError: it is no audio, or of a kind whose decoder is not installed.
    """
    import soundfile

    from rtvc.audio.containers import HEAD, Contained, MissingDecoderError, container_of

    file, container = io.BytesIO(data), container_of(data[:HEAD])
    try:
        return soundfile.SoundFile(file) if container is None else Contained(file, container, "it")
    except MissingDecoderError as error:
        raise ValueError(str(error)) from None
    except (soundfile.SoundFileError, RuntimeError, TypeError, ValueError):
        raise ValueError(f"it is no audio file of a format known here ({FORMATS})") from None


def decode(data: bytes, seconds: float) -> tuple[int, bytes]:
    """The rate in Hz and mono float32 samples of a file.

    Raises:
        ValueError: it is no audio, or holds more than so many seconds, whatever its header says.
    """
    import numpy as np
    import soundfile

    from rtvc.audio.channels import Channels, mixed

    file = opened(data)
    with file:
        rate = int(file.samplerate)
        if not RATES[0] <= rate <= RATES[1] or not 1 <= file.channels <= CHANNELS:
            raise ValueError(
                f"expected 1 to {CHANNELS} channels at {RATES[0]} to {RATES[1]} Hz, got"
                f" {file.channels} at {rate} Hz"
            )
        most = int(seconds * min(rate, TOP_RATE))
        channels, parts, total = Channels(file.channels), [], 0
        try:
            while len(block := file.read(BLOCK, dtype="float32", always_2d=True)):
                total += len(block)
                if total > most:
                    raise ValueError(
                        f"it lasts longer than {most / rate:.3g} s: send the best part of it"
                    )
                if not np.isfinite(block).all():
                    raise ValueError("it holds samples that are not finite")
                channels.add(block)
            mix = channels.mix()
            file.seek(0)
            while len(block := file.read(BLOCK, dtype="float32", always_2d=True)):
                parts.append(mixed(block, mix))
        except soundfile.SoundFileError:
            raise ValueError("it is damaged") from None
    if not total:
        raise ValueError("it holds no samples")
    return rate, np.concatenate(parts).astype("<f4").tobytes()


def main(seconds: float, cpu_s: int) -> int:
    """Decodes stdin to stdout; the exit code is 0, or 3 for a file that is refused."""
    data = sys.stdin.buffer.read()
    confine(cpu_s)
    try:
        rate, samples = decode(data, seconds)
    except ValueError as error:
        sys.stderr.write(str(error))
        return 3
    sys.stdout.buffer.write(b"%d\n" % rate + samples)
    return 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), int(sys.argv[2])))
