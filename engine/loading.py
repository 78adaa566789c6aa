"""The model that commands stream with."""

from rtvc import api
from rtvc.errors import ConfigError
from rtvc.models.streaming.interface import Converter


def streaming(model: str | None = None) -> tuple[api.VoiceConverter, Converter]:
    """A loaded model and its streaming converter.

    Raises:
        ConfigError: when the model needs whole recordings.
    """
    loaded = api.load(model)
    if not isinstance(loaded.model, api.StreamModel):
        raise ConfigError(
            f"the model {loaded.model.name!r} needs whole recordings and cannot stream: leave"
            " --model away"
        )
    return loaded, loaded.model.converter
