"""A voice: two style vectors and what they came from, in a file of a few kB."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rtvc import checks
from rtvc.errors import VoiceError
from rtvc.files import replacing
from rtvc.voices.provenance import mix_parts, reference_reports

STYLE = 128
"""Numbers in either style vector."""
FORMAT = "rtvc-voice"
VERSION = "1"
LARGEST_FILE = 1 << 20
"""Bytes: a voice file is a few kB, a fitted one some twenty, anything above this is not one."""
MOST_FINE = 1 << 16


@dataclass(frozen=True, eq=False, repr=False)
class Voice:
    """What a converter needs to know of a speaker.

    Attributes:
        acoustic: (128,) float32, timbre.
        prosodic: (128,) float32, pitch register and range, energy, rhythm.
        fine: (F,) float32, added to the scales and shifts of one model's decoder; None unless `rtvc.voices.fit` fitted the voice.
        name: shown to people.
        source: where the vectors came from, JSON-able: references and their quality, model, parts of a mix.

    Raises:
        VoiceError: vectors of another shape, or NaN in them.
    """

    acoustic: Tensor
    prosodic: Tensor
    name: str = "voice"
    source: dict[str, Any] = field(default_factory=dict)
    fine: Tensor | None = None

    def __post_init__(self) -> None:
        for part in ("acoustic", "prosodic"):
            vector = getattr(self, part).detach().to("cpu", torch.float32).contiguous()
            if vector.shape != (STYLE,):
                raise VoiceError(f"the {part} style of {self.name!r} has the shape {tuple(vector.shape)}, ({STYLE},) was wanted")
            if not vector.isfinite().all():
                raise VoiceError(f"the {part} style of {self.name!r} holds NaN or infinity: make the voice again from its recordings")
            object.__setattr__(self, part, vector)
        if self.fine is not None:
            fine = self.fine.detach().to("cpu", torch.float32).contiguous()
            if fine.ndim != 1 or not 0 < len(fine) <= MOST_FINE or not fine.isfinite().all():
                raise VoiceError(
                    f"the fine style of {self.name!r} has the shape {tuple(fine.shape)} or NaN; up to {MOST_FINE} finite numbers wanted"
                )
            object.__setattr__(self, "fine", fine)

    def __repr__(self) -> str:
        """The name and what is known of it, without the numbers."""
        return f"Voice({self.name!r}, space={self.space!r}, speech={self.speech:.1f} s)"

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes a safetensors file, at once and whole; returns its path.

        Raises:
            VoiceError: the file cannot be written, or `source` is not JSON.
        """
        from safetensors.torch import save

        path = Path(path)
        try:
            source = json.dumps(self.source, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise VoiceError(f"the source of voice {self.name!r} is not JSON ({error}): keep numbers, texts and lists in it") from error
        metadata = {"format": FORMAT, "version": VERSION, "name": self.name, "source": source}
        tensors = {"acoustic": self.acoustic, "prosodic": self.prosodic}
        if self.fine is not None:
            tensors["fine"] = self.fine.half()
        content = save(tensors, metadata)
        if len(content) > LARGEST_FILE:
            raise VoiceError(f"voice {self.name!r} would fill {len(content)} bytes, at most {LARGEST_FILE} were wanted: shorten its source")
        try:
            with replacing(path) as fresh:
                fresh.write_bytes(content)
        except OSError as error:
            raise VoiceError(f"{path} cannot be written ({error.strerror}): check the folder and the free space") from error
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Voice":
        """Reads what `save` wrote. Nothing in the file is ever run.

        Raises:
            VoiceError: no such file, or one that is truncated, foreign, hostile or of a later version.
        """
        from safetensors import SafetensorError, safe_open

        path = Path(path)
        if not path.is_file():
            raise VoiceError(f"{path} is not there, a voice file was wanted: make one with `rtvc voice create REFERENCE… -o NAME.voice`")
        if path.stat().st_size > LARGEST_FILE:
            raise VoiceError(f"{path} has {path.stat().st_size} bytes, a voice file has a few kB: is it a recording, or a model?")
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        except (SafetensorError, OSError, ValueError) as error:
            raise VoiceError(f"{path} is no voice file ({error}): make one with `rtvc voice create`") from error
        return cls.from_parts(tensors, metadata, str(path))

    @classmethod
    def from_parts(cls, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], where: str) -> "Voice":
        """Builds a voice of a file's contents, believing none of them.

        Raises:
            VoiceError: they are not those of a voice.
        """
        if metadata.get("format") != FORMAT or set(tensors) - {"fine"} != {"acoustic", "prosodic"}:
            raise VoiceError(f"{where} is a safetensors file but no voice (it holds {', '.join(sorted(tensors)[:5]) or 'nothing'})")
        if metadata.get("version") != VERSION:
            raise VoiceError(f"{where} is a voice of version {metadata.get('version')}, this rtvc reads version {VERSION}: update rtvc")
        if not all(tensor.is_floating_point() for tensor in tensors.values()):
            raise VoiceError(f"{where} holds {tensors['acoustic'].dtype} numbers, floating point was wanted")
        try:
            source = json.loads(metadata.get("source", "{}"))
        except (ValueError, RecursionError) as error:
            raise VoiceError(f"{where} holds a source that is not JSON: make the voice again") from error
        if not isinstance(source, dict):
            raise VoiceError(f"{where} holds a source of type {type(source).__name__}, an object was wanted: make the voice again")
        name = "".join(c for c in metadata.get("name", "") if c.isprintable())[:200] or Path(where).stem
        return cls(tensors["acoustic"], tensors["prosodic"], name, source, tensors.get("fine"))

    @classmethod
    def mix(cls, weights: "Mapping[Voice, float]", name: str | None = None) -> "Voice":
        """The weighted mean of voices, of both styles alike.

        Args:
            weights: how much of each voice; they are scaled to sum to 1.
            name: of the mix; default: the parts and their shares.

        Raises:
            VoiceError: no voice, a negative weight, a sum of 0, or voices of different style spaces or fitted to different weights.
        """
        shares = checks.shares(weights)
        space = common_space(*weights)
        parts = [{"name": voice.name, "share": round(share, 6), "source": voice.source} for voice, share in shares]
        return cls(
            torch.stack([voice.acoustic * share for voice, share in shares]).sum(0),
            torch.stack([voice.prosodic * share for voice, share in shares]).sum(0),
            name or " + ".join(f"{share:.0%} {voice.name}" for voice, share in shares),
            {"mix": parts} | ({} if space is None else {"space": space}) | fitted_to(*weights),
            mixed_fine(shares),
        )

    @property
    def space(self) -> str | None:
        """The style space that the vectors lie in: the model whose style encoders made them, if that is known."""
        space = self.source.get("space")
        return None if space is None else str(space)

    @property
    def parts(self) -> list[tuple[float, str]]:
        """The shares and names of a mix, empty if it is none."""
        return mix_parts(self.source)

    @property
    def references(self) -> list[dict[str, Any]]:
        """What is known of the recordings behind the voice (`Report.as_dict`), those of mixed voices included."""
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
        source = self.source | {"timbre": self.name, "prosody": other.name, "prosody_source": other.source}
        return Voice(self.acoustic, other.prosodic, name or f"{self.name} with the prosody of {other.name}", source, self.fine)

    @property
    def fitted(self) -> str | None:
        """The weights that the voice was fitted to (`rtvc.voices.fit`), None if it was not."""
        fit = self.source.get("fit")
        return str(fit.get("weights")) if self.fine is not None and isinstance(fit, dict) else None

    def unfitted(self) -> "Voice":
        """The voice as its styles alone say it, which other weights of the same style space can use."""
        return Voice(self.acoustic, self.prosodic, self.name, {k: v for k, v in self.source.items() if k != "fit"})


def common_space(*voices: Voice) -> str | None:
    """The style space of some voices, as far as it is known.

    Raises:
        VoiceError: they lie in different ones.
    """
    spaces = sorted({voice.space for voice in voices if voice.space is not None})
    if len(spaces) > 1:
        raise VoiceError(f"voices made by different models ({', '.join(spaces)}) cannot be mixed: make them with one")
    return spaces[0] if spaces else None


def fitted_to(*voices: Voice) -> dict[str, Any]:
    """What the source of a mix says of the weights that its parts were fitted to.

    Raises:
        VoiceError: to different ones.
    """
    weights = sorted({voice.fitted for voice in voices if voice.fitted is not None})
    if len(weights) > 1:
        raise VoiceError(f"voices fitted to different weights ({', '.join(weights)}) cannot be mixed: make them again with one model")
    return {"fit": {"weights": weights[0]}} if weights else {}


def mixed_fine(shares: Sequence[tuple[Any, float]]) -> Tensor | None:
    """The weighted sum of the `fine` of some voices (anything with styles), None where no voice has one.

    Raises:
        VoiceError: they are of different lengths.
    """
    found: list[tuple[Tensor, float]] = [(fine, share) for voice, share in shares if (fine := getattr(voice, "fine", None)) is not None]
    if not found:
        return None
    if len(lengths := {len(fine) for fine, _ in found}) > 1:
        raise VoiceError(f"voices fitted to {sorted(lengths)} numbers cannot be mixed: make them again with one model")
    return torch.stack([share * fine for fine, share in found]).sum(0)
