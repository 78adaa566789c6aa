"""The teacher's voices and their weighted mixes."""

import difflib
import math
from collections.abc import Iterator, Mapping
from typing import TypeAlias

import torch
from torch import Tensor

from rtvc.errors import VoiceError

Mix: TypeAlias = str | Mapping[str, float]
"""A voice "af_heart", a mix "af_heart:0.7,am_adam:0.3", or the same as a mapping."""

ROWS, STYLE = 510, 128
"""A voice has a style for every count of phonemes up to 510; a style is 128 acoustic, then 128
prosodic numbers."""


def parse_mix(mix: Mix) -> dict[str, float]:
    """Weights of the voices, adding up to 1.

    Raises:
        VoiceError: for an empty mix, or a weight that is not a positive number.
    """
    if isinstance(mix, str):
        pairs = [part.strip().partition(":") for part in mix.split(",") if part.strip()]
        names = [name.strip() for name, _, _ in pairs]
        if len(set(names)) < len(names):
            raise VoiceError(f"the mix {mix!r} names a voice twice: give each voice one weight")
        try:
            weights = {
                name.strip(): float(weight) if colon else 1.0 for name, colon, weight in pairs
            }
        except ValueError as error:
            raise VoiceError(
                f"the mix {mix!r} has a weight that is not a number: write it like"
                " af_heart:0.7,am_adam:0.3"
            ) from error
    else:
        weights = dict(mix)
    total = sum(weights.values())
    if not weights or not math.isfinite(total) or min(weights.values()) <= 0:
        raise VoiceError(
            f"the mix {mix!r} is empty or has a weight that is not positive: write it like"
            " af_heart:0.7,am_adam:0.3"
        )
    return {name: weight / total for name, weight in weights.items()}


class VoiceBank(Mapping[str, Tensor]):
    """The voices by name, each float32 (510, 256)."""

    def __init__(self, voices: Mapping[str, Tensor]) -> None:
        for name, voice in voices.items():
            if voice.shape != (ROWS, 2 * STYLE) or not voice.isfinite().all():
                raise VoiceError(
                    f"expected finite numbers of shape ({ROWS}, {2 * STYLE}), the voice {name} has"
                    f" shape {tuple(voice.shape)}, or others"
                )
        self._voices = dict(sorted(voices.items()))

    def __getitem__(self, name: str) -> Tensor:
        return self._voices[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._voices)

    def __len__(self) -> int:
        return len(self._voices)

    def voice(self, name: str) -> Tensor:
        """(510, 256) of the voice.

        Raises:
            VoiceError: for a name that is not among the voices.
        """
        if name not in self:
            close = ", ".join(difflib.get_close_matches(name, self, 3, 0.3) or list(self)[:3])
            raise VoiceError(
                f"there is no voice {name!r} among the teacher's {len(self)}: did you mean {close}?"
            )
        return self[name]

    def style(self, mix: Mix, phonemes: int, prosody: Mix | None = None) -> Tensor:
        """The style of an utterance: the weighted sum of the voices' rows for its count of
        phonemes.

        Args:
            mix: of the acoustic half.
            phonemes: boundaries not counted.
            prosody: of the prosodic half, if it differs.

        Returns:
            (256,): acoustic style 128, prosodic style 128.
        """
        row = min(max(phonemes, 1), ROWS) - 1

        def half(voices: Mix, part: slice) -> Tensor:
            return torch.stack(
                [weight * self.voice(name)[row, part] for name, weight in parse_mix(voices).items()]
            ).sum(0)

        return torch.cat(
            [half(mix, slice(STYLE)), half(mix if prosody is None else prosody, slice(STYLE, None))]
        )
