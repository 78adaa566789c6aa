"""What a live conversion can be told."""

from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from rtvc.clients.live.audio_streams import stream_type
from rtvc.clients.live.devices import Device, pick
from rtvc.clients.recording.recorder import SOURCE
from rtvc.files import StrPath, check_target


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
    block_ms: float = Field(5.0, gt=0, le=200)
    margin_ms: float | None = Field(None, ge=0, le=500)
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
