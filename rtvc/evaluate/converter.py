"""A model of this library as the function that an evaluation asks for: whole recordings, or a
stream of small chunks."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtvc.audio.io import decode, mono
from rtvc.audio.mel import HOP, SAMPLE_RATE
from rtvc.errors import ConfigError
from rtvc.evaluate.audio import Wave
from rtvc.models.streaming.interface import Converter, conditioned
from rtvc.voices.voice import Voice

CODE = ("converter.py", "stream_model.py", "audio", "layers", "models", "voices", "kernels")
"""What decides, besides the weights, what a conversion sounds like: relative to the package."""


class Stepper(Protocol):
    """What runs a stream's steps in place of the model itself; `rtvc.engine.backends.base.Backend`
    is one."""

    name: str

    def initial(self, batch: int) -> Tensor:
        """The state before the first sample, (B, S)."""
        ...

    def condition(self, voice: Voice) -> Tensor:
        """What a step needs to know of a voice, (1, V)."""
        ...

    def step(self, x: Tensor, voice: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, 1, N), voice (B, V), state (B, S) -> y (B, 1, N) and the next state."""
        ...


class LibraryConverter:
    """`rtvc.load(model)` as a `ConvertFn`.

    Attributes:
        name: of the model, as results name it.
        key: changes whenever conversions could: with the weights, the code or the chunk.
    """

    def __init__(
        self,
        model: str | None = None,
        chunk: float | None = None,
        device: str = "cpu",
        fit: int | None = None,
        open_stepper: Callable[[Converter, int], Stepper] | None = None,
        lookahead: float | None = None,
    ) -> None:
        """Loads the model.

        Args:
            model: as `rtvc.load` takes it.
            chunk: milliseconds that are converted at a time, as in a live stream; None converts
                whole recordings.
            device: cpu or cuda.
            fit: steps of fitting each voice to its references; None takes none.
            open_stepper: makes what runs the steps of a stream of a model, with chunks of so many
                samples; by default the model does.
            lookahead: as `rtvc.load` takes it.

        Raises:
            ConfigError: no such model; a chunk that is no multiple of 12.5 ms, or for a model that
                cannot stream.
        """
        from rtvc.models_by_name import load

        self._converter = load(model, device, lookahead)
        self._fit = self._converter.fit_steps(fit)
        self._samples: int | None = None
        self._stepper: Stepper | None = None
        if chunk is not None:
            samples = chunk * SAMPLE_RATE / 1000
            if samples <= 0 or samples % HOP:
                raise ConfigError(
                    f"expected a chunk of a multiple of {1000 * HOP / SAMPLE_RATE:g} ms, got"
                    f" {chunk:g} ms: try 25"
                )
            if (streaming := self._converter.model.streaming) is None:
                raise ConfigError(
                    f"the model {self._converter.model.name!r} needs whole recordings: leave"
                    " --chunk out"
                )
            self._samples = int(samples)
            if open_stepper is not None:
                self._stepper = open_stepper(streaming.converter, self._samples)
        name = (
            self._converter.model.name
            if model is None or not Path(model).is_file()
            else Path(model).name
        )
        details = (
            ([] if lookahead is None else [f"{lookahead:g} ms of look-ahead"])
            + ([] if chunk is None else [f"{chunk:g} ms chunks"])
            + ([self._stepper.name] if self._stepper else [])
            + ([f"voices fitted in {self._fit} steps"] if self._fit else [])
        )
        self.name = ", ".join([name, *details])
        self.key = self._key()
        self._voices: dict[tuple[Path, ...], Voice] = {}

    def __call__(self, source: Path, references: list[Path]) -> tuple[Wave, float]:
        """A `ConvertFn`: making the voice is not counted, it happens once a speaker and before a
        stream begins."""
        if not self._voices:  # the first steps pay for allocations and lazy initialisation
            self._timed(
                np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE).astype(np.float32),
                SAMPLE_RATE,
                self.voice(references),
            )
        wave, rate = decode(source)
        return self._timed(mono(wave), rate, self.voice(references))

    @property
    def streaming(self) -> Any:
        """The streaming converter itself.

        Raises:
            ConfigError: the model needs whole recordings.
        """
        if (streaming := self._converter.model.streaming) is None:
            raise ConfigError(
                f"the model {self._converter.model.name!r} needs whole recordings: name one that"
                " streams with --model"
            )
        return streaming.converter

    def voice(self, references: list[Path]) -> Voice:
        """The voice of some recordings, made once."""
        names = tuple(references)
        if names not in self._voices:
            self._voices[names] = self._converter.voice(*references, fit=self._fit)
        return self._voices[names]

    def _timed(self, wave: Wave, rate: int, voice: Voice) -> tuple[Wave, float]:
        if self._samples is None:
            started = perf_counter()
            converted = self._converter.convert(wave, rate, voice)
            return converted, perf_counter() - started
        from rtvc.audio.recording import prepare

        x = prepare(wave, rate).to(self._converter.device)
        y, seconds = streamed(self.streaming, x, voice, self._samples, self._stepper)
        return y.float().cpu().numpy(), seconds

    def _key(self) -> str:
        digest = hashlib.sha256(f"{self.name} {self._samples} {self._fit}".encode())
        for name, tensor in sorted(tensors(self._converter.model)):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(
                tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            )
        package = Path(__file__).parents[1]
        for entry in CODE:
            for file in (
                sorted((package / entry).rglob("*.py"))
                if (package / entry).is_dir()
                else [package / entry]
            ):
                digest.update(file.read_bytes())
        return digest.hexdigest()[:16]


def streamed(
    converter: Converter, wave: Tensor, voice: Voice, chunk: int, stepper: Stepper | None = None
) -> tuple[Tensor, float]:
    """wave (N,) through a converter, or what runs its steps, `chunk` samples at a time, as it comes
    in live.

    Returns:
        (N,), aligned with the input: the latency is flushed with silence and trimmed; and the
        seconds that the steps took.
    """
    latency = converter.latency
    padded = F.pad(wave, (0, latency + -(len(wave) + latency) % chunk))[None, None]
    with torch.inference_mode():
        started = perf_counter()
        conditions = stepper.condition(voice) if stepper else conditioned(converter, voice)
        state, outputs = (stepper or converter).initial(1), []
        step = stepper.step if stepper else converter
        for x in padded.split(chunk, -1):
            y, state = step(x, conditions, state)
            outputs.append(y)
        whole = torch.cat(outputs, -1)[0, 0, latency : latency + len(wave)].cpu()
        seconds = perf_counter() - started
    return whole, seconds


def tensors(holder: Any, path: str = "", depth: int = 3) -> list[tuple[str, Tensor]]:
    """Every parameter and buffer of a module, or of the modules and tensors that an object
    holds."""
    if isinstance(holder, nn.Module):
        return [
            (f"{path}.{name}", tensor)
            for name, tensor in [*holder.named_parameters(), *holder.named_buffers()]
        ]
    if isinstance(holder, Tensor):
        return [(path, holder)]
    members = getattr(holder, "__dict__", {}) if depth else {}
    return [
        pair
        for name, value in members.items()
        for pair in tensors(value, f"{path}.{name}", depth - 1)
    ]
