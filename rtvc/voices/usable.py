"""Which voices a model may use, and how: the one place where that is decided, for the Python
interface and for servers."""

from rtvc.errors import VoiceError
from rtvc.voices.voice import Voice


def usable(voice: Voice, space: str | None, weights: str | None) -> Voice:
    """The voice, without its fit unless that is known to be to these weights.

    What fitting added to a voice moves the scales and shifts of one set of weights; added to those
    of another it is noise.

    Args:
        voice: from anywhere.
        space: style space of the model.
        weights: name of its weights, as `rtvc.voices.fit.weights_of` gives it; None for a model
            that fits no voices.

    Raises:
        VoiceError: its styles are of another space.
    """
    if voice.space not in (None, space):
        raise VoiceError(
            f"expected a voice of the model {space!r}, got {voice.name!r} of {voice.space!r}: make"
            f" it again from its recordings, rtvc voice create RECORDING… -o {voice.name}.voice"
        )
    fits = weights is not None and voice.fitted == weights
    return voice if fits or voice.fine is None else voice.unfitted()
