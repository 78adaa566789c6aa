"""The streaming model: causal from microphone to loudspeaker."""

from rtvc.models.streaming.assets import load_default, load_file, save_file
from rtvc.models.streaming.model import StreamingConfig, StreamingConverter

__all__ = ["StreamingConfig", "StreamingConverter", "load_default", "load_file", "save_file"]
