"""The model that commands stream with."""

from rtvc import models_by_name
from rtvc.converter import VoiceConverter
from rtvc.errors import ConfigError
from rtvc.models.streaming.interface import Converter


def streaming(
    model: str | None = None, lookahead: float | None = None
) -> tuple[VoiceConverter, Converter]:
    """A loaded model and its streaming converter; arguments as those of `rtvc.load`.

    Raises:
        ConfigError: when the model needs whole recordings, or has not that look-ahead.
    """
    loaded = models_by_name.load(model, lookahead=lookahead)
    if (live := loaded.model.streaming) is None:
        raise ConfigError(
            f"the model {loaded.model.name!r} needs whole recordings and cannot stream: leave"
            " --model away"
        )
    return loaded, live.converter
