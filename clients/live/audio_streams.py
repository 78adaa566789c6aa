"""Sound cards behind two callbacks: `capture(block, at)` and `play(out, at)`, times in seconds of
`time.perf_counter`.

The callbacks copy samples and return; a model never runs in them. sounddevice and pyaudio both sit
on PortAudio.
"""

import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rtvc.clients.live.devices import Device, directed, portaudio
from rtvc.errors import ConfigError, DependencyError, DeviceError

Samples = NDArray[np.float32]
Callback = Callable[[Samples, float], None]

SILENT_S = 3.0
"""A stream whose callback has not been called for this long has lost its device."""
BELIEVABLE_S = 1.0
"""Device delays above this, or below zero, are not believed."""


class Stream(Protocol):
    """One direction of one device."""

    xruns: int
    latency: float

    def stop(self) -> None:
        """Ends it; never raises."""
        ...

    @property
    def alive(self) -> bool:
        """Whether its callback is still being called."""
        ...


class Pulse:
    """What both kinds of stream share: the heartbeat, the counts, and the way from channels to mono
    and back."""

    def __init__(self, callback: Callback, channels: int, rate: int, incoming: bool) -> None:
        self.callback, self.channels, self.rate, self.incoming = callback, channels, rate, incoming
        self.xruns, self.latency, self.called = 0, 0.0, time.perf_counter()
        self.mono: Samples = np.zeros(16_384, np.float32)

    def beat(self, data: Samples, delay: float, failed: bool) -> None:
        """One callback: data (N, channels); `delay` from now to when its first sample was (or will
        be) at the converter, in seconds."""
        now = time.perf_counter()
        self.called = now
        self.xruns += failed
        mono = self.mono[: len(data)]
        if self.incoming:
            delay = delay if 0 < delay < BELIEVABLE_S else len(data) / self.rate
            if self.channels == 1:
                mono[:] = data[:, 0]
            else:
                np.mean(data, axis=1, out=mono)
            self.callback(mono, now - delay)
            return
        self.callback(mono, now + (delay if 0 < delay < BELIEVABLE_S else 0.0))
        data[:] = mono[:, None]

    @property
    def fresh(self) -> bool:
        """Whether the callback was called lately."""
        return time.perf_counter() - self.called < SILENT_S


class SounddeviceStream(Pulse):
    """A stream of the sounddevice package.

    Raises:
        DeviceError: when the device cannot be opened so.
    """

    def __init__(
        self, device: Device, callback: Callback, *, rate: int, block: int, incoming: bool
    ) -> None:
        module = portaudio()
        super().__init__(
            callback,
            min(2, device.inputs if incoming else device.outputs) if device.inputs != 1 else 1,
            rate,
            incoming,
        )
        self.channels = 1 if incoming else self.channels
        cls = module.InputStream if incoming else module.OutputStream

        def called(data: Samples, frames: int, times: Any, flags: Any) -> None:
            moment = (
                times.currentTime - times.inputBufferAdcTime
                if incoming
                else times.outputBufferDacTime - times.currentTime
            )
            self.beat(data, moment, bool(flags))

        settings = {
            "device": device.index,
            "samplerate": rate,
            "blocksize": block,
            "dtype": "float32",
            "latency": "low",
        }
        try:
            with directed(device, incoming):
                self.stream = cls(channels=self.channels, callback=called, **settings)
                self.stream.start()
        except module.PortAudioError as error:
            raise DeviceError(
                f"{device.name!r} cannot be opened at {rate} Hz with blocks of {block}: {error}"
            ) from error
        self.latency, self.called = float(self.stream.latency), time.perf_counter()

    def stop(self) -> None:
        """Ends it; never raises."""
        try:
            self.stream.abort(ignore_errors=True)
            self.stream.close(ignore_errors=True)
        except (
            Exception
        ):  # a device that is gone may fail in any way; the stream is dropped either way
            return

    @property
    def alive(self) -> bool:
        """Whether its callback is still being called."""
        return bool(self.stream.active) and self.fresh


class PyaudioStream(Pulse):
    """A stream of the pyaudio package.

    Raises:
        DependencyError: when it is not installed.
        DeviceError: when the device cannot be opened so.
    """

    def __init__(
        self, device: Device, callback: Callback, *, rate: int, block: int, incoming: bool
    ) -> None:
        try:
            import pyaudio
        except ImportError as error:
            raise DependencyError(
                "the pyaudio backend needs pyaudio: pip install 'rtvc-engine[live]', or use"
                " --backend sounddevice"
            ) from error
        super().__init__(callback, 1 if incoming else min(2, device.outputs), rate, incoming)
        buffer: Samples = np.zeros((block, self.channels), np.float32)

        def called(
            data: bytes | None, frames: int, times: dict[str, float], flags: int
        ) -> tuple[bytes | None, int]:
            if incoming:
                samples = np.frombuffer(data or b"", np.float32).reshape(-1, self.channels)
                self.beat(
                    samples, times["current_time"] - times["input_buffer_adc_time"], bool(flags)
                )
                return None, pyaudio.paContinue
            out = (
                buffer[:frames]
                if frames <= block
                else np.zeros((frames, self.channels), np.float32)
            )
            self.beat(out, times["output_buffer_dac_time"] - times["current_time"], bool(flags))
            return out.tobytes(), pyaudio.paContinue

        self.host = pyaudio.PyAudio()
        way = {
            "input": incoming,
            "output": not incoming,
            f"{'in' if incoming else 'out'}put_device_index": device.index,
        }
        try:
            with directed(device, incoming):
                self.stream = self.host.open(
                    rate,
                    self.channels,
                    pyaudio.paFloat32,
                    frames_per_buffer=block,
                    stream_callback=called,
                    start=True,
                    **way,
                )
        except (OSError, ValueError) as error:
            self.host.terminate()
            raise DeviceError(
                f"{device.name!r} cannot be opened at {rate} Hz with blocks of {block}: {error}"
            ) from error
        self.latency = float(
            self.stream.get_input_latency() if incoming else self.stream.get_output_latency()
        )
        self.called = time.perf_counter()

    def stop(self) -> None:
        """Ends it; never raises."""
        try:
            self.stream.close()
            self.host.terminate()
        except OSError:
            return

    @property
    def alive(self) -> bool:
        """Whether its callback is still being called."""
        try:
            return bool(self.stream.is_active()) and self.fresh
        except OSError:
            return False


STREAMS: dict[str, Callable[..., Stream]] = {
    "sounddevice": SounddeviceStream,
    "pyaudio": PyaudioStream,
}
"""The audio backends by name."""


def stream_type(name: str) -> Callable[..., Stream]:
    """The audio backend of a name.

    Raises:
        ConfigError: there is none, saying which there are.
    """
    if name not in STREAMS:
        raise ConfigError(f"expected one of the audio backends {', '.join(STREAMS)}, got {name!r}")
    return STREAMS[name]
