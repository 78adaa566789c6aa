"""The model that commands stream with."""

from rtvc import models_by_name
from rtvc.converter import VoiceConverter
from rtvc.errors import ConfigError
from rtvc.models.streaming.interface import Converter


def streaming(model: str | None = None) -> tuple[VoiceConverter, Converter]:
    """A loaded model and its streaming converter.

    Raises:
        ConfigError: when the model needs whole recordings.
    """
    loaded = models_by_name.load(model)
    if (live := loaded.model.streaming) is None:
        raise ConfigError(
            f"the model {loaded.model.name!r} needs whole recordings and cannot stream: leave"
            " --model away"
        )
    return loaded, live.converter
