"""Sound cards behind two callbacks: `capture(block, at)` and `play(out, at)`, times in seconds of
`time.perf_counter`.

The callbacks copy samples and return; a model never runs in them. sounddevice and pyaudio both sit
on PortAudio.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from rtvc.audio.samples import Samples
from rtvc.clients.live.devices import Device, directed, portaudio
from rtvc.clients.sound.heartbeat import Callback, Heartbeat, Stream
from rtvc.clients.sound.server_stream import ServerStream
from rtvc.errors import ConfigError, DependencyError, DeviceError


class SounddeviceStream(Heartbeat):
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
            self.hurry()
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


class PyaudioStream(Heartbeat):
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
            self.hurry()
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


def nearest(device: Device, callback: Callback, *, rate: int, block: int, incoming: bool) -> Stream:
    """A stream by the shortest way: of the sound server itself where the device is one of its, else
    of PortAudio.

    Raises:
        DeviceError: when the device cannot be opened so.
    """
    if device.by_server:
        try:
            return ServerStream(device, callback, rate=rate, block=block, incoming=incoming)
        except (DependencyError, DeviceError):
            if device.server:  # the server was asked for this one by name
                raise
    return SounddeviceStream(device, callback, rate=rate, block=block, incoming=incoming)


STREAMS: dict[str, Callable[..., Stream]] = {
    "auto": nearest,
    "server": ServerStream,
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
