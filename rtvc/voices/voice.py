"""A voice: two style vectors and what they came from, in a file of a few kB."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rtvc import checks
from rtvc.errors import OutputError, VoiceError
from rtvc.files import write
from rtvc.printable import printable
from rtvc.voices.provenance import fitted_weights, mix_parts, reference_reports
from rtvc.voices.voice_file import Contents, check_voice_file, encoded, read_file, shown_name

STYLE = 128
"""Numbers in either style vector, and in a token of timbre."""
MOST_TOKENS = 256
MOST_FINE = 1 << 16
LARGEST_STYLE = 64
"""Largest number in a style: twice what the style encoders say of silence and of white noise, 30.5,
the furthest from speech that they were found to go. Of speech they say 4 at most."""
LARGEST_FINE = 1000
"""Largest number in a fine style: a fit moves each by 0.03 a step at most, at first, and falling to
nothing."""


@dataclass(frozen=True, eq=False, repr=False)
class Voice:
    """What a converter needs to know of a speaker.

    Attributes:
        acoustic: (128,) float32, timbre; models that hear timbre as tokens keep K of them behind
            it, (128 + 128 K,).
        prosodic: (128,) float32, pitch register and range, energy, rhythm.
        fine: (F,) float32, added to the scales and shifts of one model's decoder; None unless
            `rtvc.voices.fit` fitted the voice.
        name: shown to people.
        source: where the vectors came from, JSON-able: references and their quality, model, parts
            of a mix.

    Raises:
        VoiceError: vectors of another shape, or NaN in them.
    """

    acoustic: Tensor
    prosodic: Tensor
    name: str = "voice"
    source: dict[str, Any] = field(default_factory=dict)
    fine: Tensor | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", shown_name(self.name) or "voice")
        for part in ("acoustic", "prosodic"):
            vector = getattr(self, part).detach().to("cpu", torch.float32).contiguous()
            most = STYLE * (1 + MOST_TOKENS) if part == "acoustic" else STYLE
            if vector.ndim != 1 or vector.shape[0] % STYLE or not 0 < vector.shape[0] <= most:
                raise VoiceError(
                    f"expected the {part} style of {self.name!r} to have the shape ({STYLE},), got"
                    f" {tuple(vector.shape)}: make the voice again from its recordings"
                )
            if not vector.isfinite().all():
                raise VoiceError(
                    f"the {part} style of {self.name!r} holds NaN or infinity: make the voice again"
                    " from its recordings"
                )
            if (size := float(vector.abs().max())) > LARGEST_STYLE:
                raise VoiceError(
                    f"the {part} style of {self.name!r} reaches {size:.3g}, no recording brings it"
                    f" above {LARGEST_STYLE}: make the voice again from its recordings"
                )
            object.__setattr__(self, part, vector)
        if self.fine is not None:
            fine = self.fine.detach().to("cpu", torch.float32).contiguous()
            if (
                fine.ndim != 1
                or not 0 < len(fine) <= MOST_FINE
                or not fine.abs().max() <= LARGEST_FINE
            ):
                raise VoiceError(
                    f"expected a fine style of up to {MOST_FINE} numbers of at most {LARGEST_FINE},"
                    f" that of {self.name!r} has the shape {tuple(fine.shape)}, or NaN, or larger"
                    " ones"
                )
            object.__setattr__(self, "fine", fine)

    def __repr__(self) -> str:
        """The name and what is known of it, without the numbers."""
        return f"Voice({self.name!r}, space={self.space!r}, speech={self.speech:.1f} s)"

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes a safetensors file, at once and whole; returns its path.

        Raises:
            VoiceError: the file cannot be written, its name does not end in `.voice`, or `source`
                is not JSON.
        """
        path = check_voice_file(path)
        try:
            write(path, self.content())
        except OutputError as error:
            raise VoiceError(str(error)) from error
        return path

    def content(self) -> bytes:
        """The bytes of a voice file.

        Raises:
            VoiceError: `source` is not JSON, or too long.
        """
        tensors = {"acoustic": self.acoustic, "prosodic": self.prosodic}
        if self.fine is not None:
            tensors["fine"] = self.fine.half()
        return encoded(tensors, self.name, self.source)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Voice":
        """Reads what `save` wrote. Nothing in the file is ever run.

        Raises:
            VoiceError: no such file, or one that is truncated, foreign, hostile or of a later
                version.
        """
        return cls._of(read_file(path))

    @classmethod
    def _of(cls, contents: Contents) -> "Voice":
        tensors, name, source = contents
        return cls(tensors["acoustic"], tensors["prosodic"], name, source, tensors.get("fine"))

    @classmethod
    def mix(cls, weights: "Mapping[Voice, float]", name: str | None = None) -> "Voice":
        """The weighted mean of voices, of both styles alike.

        Args:
            weights: how much of each voice; they are scaled to sum to 1.
            name: of the mix; default: the parts and their shares.

        Raises:
            VoiceError: no voice, a negative weight, a sum of 0, or voices of different style spaces
                or fitted to different weights.
        """
        shares = shares_of(weights)
        space = common_space(*weights)
        if len({voice.acoustic.shape[0] for voice in weights}) > 1:
            raise VoiceError(
                "expected acoustic styles of one length, got voices of several models: make them"
                " again from their recordings"
            )
        parts = [
            {"name": voice.name, "share": round(share, 6), "source": voice.source}
            for voice, share in shares
        ]
        return cls(
            torch.stack([voice.acoustic * share for voice, share in shares]).sum(0),
            torch.stack([voice.prosodic * share for voice, share in shares]).sum(0),
            name or " + ".join(f"{share:.0%} {voice.name}" for voice, share in shares),
            {"mix": parts} | ({} if space is None else {"space": space}) | fitted_to(*weights),
            mixed_fine(shares),
        )

    @property
    def space(self) -> str | None:
        """The style space that the vectors lie in: the model whose style encoders made them, if
        that is known."""
        space = self.source.get("space")
        return None if space is None else printable(space)

    @property
    def parts(self) -> list[tuple[float, str]]:
        """The shares and names of a mix, empty if it is none."""
        return mix_parts(self.source)

    @property
    def references(self) -> list[dict[str, Any]]:
        """What is known of the recordings behind the voice (`Report.as_dict`), those of mixed
        voices included."""
        return reference_reports(self.source)

    @property
    def speech(self) -> float:
        """Seconds of speech behind the voice, 0 if that is not known."""
        return sum(float(entry["speech"]) for entry in self.references)

    def with_prosody_of(self, other: "Voice", name: str | None = None) -> "Voice":
        """This voice's timbre with another voice's prosody.

        Raises:
            VoiceError: voices of different style spaces.
        """
        common_space(self, other)
        source = self.source | {
            "timbre": self.name,
            "prosody": other.name,
            "prosody_source": other.source,
        }
        return Voice(
            self.acoustic,
            other.prosodic,
            name or f"{self.name} with the prosody of {other.name}",
            source,
            self.fine,
        )

    @property
    def fitted(self) -> str | None:
        """The weights that the voice was fitted to (`rtvc.voices.fit`), None if it was not."""
        return fitted_weights(self.source) if self.fine is not None else None

    def unfitted(self) -> "Voice":
        """The voice as its styles alone say it, which other weights of the same style space can
        use."""
        return Voice(
            self.acoustic,
            self.prosodic,
            self.name,
            {k: v for k, v in self.source.items() if k != "fit"},
        )


def check_voice(value: object) -> Voice:
    """A voice, if it is one.

    Raises:
        VoiceError: it is something else.
    """
    if not isinstance(value, Voice):
        raise VoiceError(
            f"expected a Voice, got {checks.what(value)}: make one with"
            " `vc.voice('reference.wav')`, or load one with `rtvc.Voice.load('anna.voice')`"
        )
    return value


def shares_of(weights: Mapping[Voice, float]) -> list[tuple[Voice, float]]:
    """Voices and their weights, scaled to a sum of 1.

    Raises:
        VoiceError: no voice, something that is none, or weights that are not finite, negative or
            all zero.
    """
    if not isinstance(weights, Mapping):
        raise VoiceError(
            f"expected voices and their weights, as in {{anna: 0.7, bob: 0.3}}, got"
            f" {checks.what(weights)}: pass a dictionary"
        )
    values = list(weights.values())
    numbers = [
        number
        for value in values
        if (number := checks.real(value)) is not None and 0 <= number < math.inf
    ]
    total = sum(numbers)
    if not values or len(numbers) < len(values) or not 0 < total < math.inf:
        shown = ", ".join(checks.what(value) for value in values)
        raise VoiceError(
            f"expected finite weights, at least one above 0 and none below, got [{shown}]"
        )
    return [
        (check_voice(part), number / total) for part, number in zip(weights, numbers, strict=True)
    ]


def common_space(*voices: Voice) -> str | None:
    """The style space of some voices, as far as it is known.

    Raises:
        VoiceError: they lie in different ones.
    """
    spaces = sorted({voice.space for voice in voices if voice.space is not None})
    if len(spaces) > 1:
        raise VoiceError(
            f"voices made by different models ({', '.join(spaces)}) cannot be mixed: make them"
            " with one"
        )
    return spaces[0] if spaces else None


def fitted_to(*voices: Voice) -> dict[str, Any]:
    """What the source of a mix says of the weights that its parts were fitted to.

    Raises:
        VoiceError: to different ones.
    """
    weights = sorted({voice.fitted for voice in voices if voice.fitted is not None})
    if len(weights) > 1:
        raise VoiceError(
            f"voices fitted to different weights ({', '.join(weights)}) cannot be mixed: make them"
            " again with one model"
        )
    return {"fit": {"weights": weights[0]}} if weights else {}


def mixed_fine(shares: Sequence[tuple[Voice, float]]) -> Tensor | None:
    """The weighted sum of the `fine` of some voices, (F,); None where no voice has one.

    Raises:
        VoiceError: they are of different lengths.
    """
    parts = [(voice.fine, share) for voice, share in shares if voice.fine is not None]
    if not parts:
        return None
    if len(lengths := {len(fine) for fine, _ in parts}) > 1:
        raise VoiceError(
            f"voices fitted to {sorted(lengths)} numbers cannot be mixed: make them again with one"
            " model"
        )
    return torch.stack([share * fine for fine, share in parts]).sum(0)
