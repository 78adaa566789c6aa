"""What a live conversion can be told."""

from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from rtvc.clients.live.audio_streams import stream_type
from rtvc.clients.live.devices import Device, pick
from rtvc.clients.recording.recorder import SOURCE
from rtvc.clients.sound.priority import processors
from rtvc.files import StrPath, check_target

BLOCK_MS, SHORT_BLOCK_MS = 5.0, 2.5
"""A block of a device; and of one that a sound server stands before, which has buffers of its own
between."""


class LiveConfig(BaseModel):
    """What `rtvc live` can be told.

    Attributes:
        margin_ms: what should wait at the player; None adapts it to the jitter.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: str | None = None
    output: str | None = None
    input_rate: int | None = None
    output_rate: int | None = None
    block_ms: float = Field(default=BLOCK_MS, gt=0, le=200)
    margin_ms: float | None = Field(default=None, ge=0, le=500)
    sound: str = "auto"
    gate: bool = True
    lookback_ms: float = Field(0.0, ge=0, le=500)
    pitch: float = 0.0
    prosody: float = 1.0
    monitor: bool = False
    record: Path | None = None
    denoise: bool = False
    agc: bool = False


def check_devices(config: LiveConfig, sources: Iterable[StrPath] = ()) -> tuple[Device, Device]:
    """The microphone and the loudspeaker that are meant; to be asked before long work.

    Args:
        config: of the conversion.
        sources: files that are read, over which nothing is to be recorded.

    Raises:
        ConfigError: an audio backend that does not exist.
        DeviceError: a device that is not there, or several that could be meant.
        OutputError: nothing can be recorded to the folder.
    """
    stream_type(config.sound)
    devices = pick(config.input, "input"), pick(config.output, "output")
    if config.record is not None:
        check_target(config.record / f"{SOURCE}.flac", sources=sources, folders=True)
    return devices


def block_ms(asked: float | None, sound: str, devices: tuple[Device, Device]) -> float:
    """Milliseconds a block: what is asked for, or what suits the devices.

    Args:
        asked: None for what suits.
        sound: name of the audio backend.
        devices: microphone and loudspeaker.
    """
    if asked is not None:
        return asked
    direct = sound in ("auto", "server") and all(device.by_server for device in devices)
    # With one processor a server may wait for a step of the model: its buffers must outlast that.
    return SHORT_BLOCK_MS if direct and processors() > 1 else BLOCK_MS
