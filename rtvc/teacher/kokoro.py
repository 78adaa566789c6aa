"""The teacher as a library: text or IPA and a voice to speech with its exact content, F0, energy
and phoneme labels."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from rtvc.errors import ConfigError, TextError, VoiceError
from rtvc.teacher.bank import STYLE, Mix, VoiceBank
from rtvc.teacher.network import SAMPLES, Kokoro, Plan
from rtvc.teacher.phonemes import Alphabet, phonemize
from rtvc.teacher.ragged import lay_out
from rtvc.teacher.weights import load

Sound: TypeAlias = Mix | Tensor
"""A voice, a mix of voices, or one half of a style itself, (128,)."""


@dataclass(frozen=True, eq=False)
class Speech:
    """A batch of utterances and all that they were made from; zeros behind a row's end.

    Attributes:
        waveform: (B, N = 600 T) at 24 kHz.
        plan: content, F0, energy, token of each frame, and lengths.
        acoustic: (B, 128) style of the decoder.
        prosodic: (B, 128) style of the prosody predictor.
        phonemes: in each row, boundaries not counted.
    """

    waveform: Tensor
    plan: Plan
    acoustic: Tensor
    prosodic: Tensor
    phonemes: tuple[int, ...]

    @property
    def content(self) -> Tensor:
        """(B, 512, T) at 40 Hz."""
        return self.plan.content

    @property
    def f0(self) -> Tensor:
        """(B, 2 T) Hz at 80 Hz."""
        return self.plan.f0

    @property
    def energy(self) -> Tensor:
        """(B, 2 T) log norm at 80 Hz."""
        return self.plan.energy

    @property
    def tokens(self) -> Tensor:
        """(B, T) the token spoken in each 40 Hz frame, int64."""
        return self.plan.tokens

    @property
    def lengths(self) -> Tensor:
        """(B,) content frames of each row, int64."""
        return self.plan.lengths

    def __len__(self) -> int:
        return len(self.waveform)

    def rows(self) -> Iterator["Speech"]:
        """Each utterance for itself, B = 1, without padding."""
        for i, (count, frames) in enumerate(zip(self.phonemes, self.lengths.tolist(), strict=True)):
            one = slice(i, i + 1)
            content, f0, energy, tokens, lengths = (tensor[one] for tensor in self.plan)
            plan = Plan(
                content[..., :frames],
                f0[:, : 2 * frames],
                energy[:, : 2 * frames],
                tokens[:, :frames],
                lengths,
            )
            yield Speech(
                self.waveform[one, : SAMPLES * frames],
                plan,
                self.acoustic[one],
                self.prosodic[one],
                (count,),
            )


class Teacher:
    """Kokoro-82M (StyleTTS 2) as a source of speech that is labelled exactly.

    A batch gives the same numbers as its rows would one by one, up to floating point. Not for
    several threads at once.

    Attributes:
        network: the five components.
        bank: the voices.
        alphabet: the token table.
    """

    def __init__(
        self,
        network: Kokoro,
        bank: VoiceBank,
        alphabet: Alphabet,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """See `load`."""
        if not dtype.is_floating_point:
            raise ConfigError(
                f"the teacher cannot compute in {dtype}: give float64, float32, bfloat16 or float16"
            )
        self.network, self.bank, self.alphabet = network.to(device), bank, alphabet
        # Durations and F0 suffer from fewer than 24 bits, and cost little; only the decoder goes
        # below float32.
        self.network.to(torch.promote_types(dtype, torch.float32))
        source = self.network.decoder.generator.m_source
        self.network.decoder.to(dtype)
        source.to(torch.promote_types(dtype, torch.float32))
        lay_out(self.network)

    @classmethod
    def load(
        cls,
        path: Path | None = None,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> "Teacher":
        """The imported teacher.

        Args:
            path: its file; by default the one that `rtvc weights import-kokoro` wrote.
            device: to compute on.
            dtype: of the decoder; all before it computes in float32, or float64.

        Raises:
            CheckpointError: if the file is missing or damaged.
            ConfigError: for a device that this machine lacks.
        """
        check_device(device)
        return cls(*load(path), device, dtype)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.network.bert_encoder.weight.device

    def say(
        self,
        texts: str | Sequence[str],
        voice: Sound | list[Sound] = "af_heart",
        *,
        prosody: Sound | list[Sound] | None = None,
        speed: float | list[float] = 1.0,
        seed: int = 0,
        ipa: bool = False,
    ) -> Speech:
        """Speaks a text, or several as one batch.

        Args:
            texts: English, or IPA.
            voice: for all rows or for each: a voice, a weighted mix, or an acoustic style (128,)
                with `prosody` given too.
            prosody: the same for the prosodic half; by default that of `voice`.
            speed: for all rows or for each; 1 is natural.
            seed: of the noise in the harmonic source; row i draws from `seed + i`.
            ipa: whether the texts are IPA.

        Raises:
            TextError: for an empty text, or one of more than 510 phonemes.
            VoiceError: for a voice that does not exist.
        """
        rows = [texts] if isinstance(texts, str) else list(texts)
        if not rows:
            raise TextError("no text came: give at least one")
        tokens = [self.alphabet.encode(row) for row in (rows if ipa else phonemize(rows))]
        counts = [len(row) - 2 for row in tokens]
        voices = _each(voice, len(rows), "voices")
        acoustic = self.styles(voices, counts, "acoustic")
        prosodic = self.styles(
            voices if prosody is None else _each(prosody, len(rows), "prosodies"),
            counts,
            "prosodic",
        )
        return self.speak(
            tokens,
            acoustic,
            prosodic,
            _each(speed, len(rows), "speeds"),
            [seed + i for i in range(len(rows))],
        )

    def speak(
        self,
        tokens: Sequence[Sequence[int]],
        acoustic: Tensor,
        prosodic: Tensor,
        speeds: Sequence[float],
        seeds: Sequence[int],
    ) -> Speech:
        """Speaks rows of tokens.

        Args:
            tokens: of each row, boundaries included.
            acoustic: (B, 128).
            prosodic: (B, 128).
            speeds: one a row.
            seeds: one a row.
        """
        if min(speeds) <= 0:
            raise ConfigError(
                f"a speed of {min(speeds)} came: 1 is natural, 2 twice as fast, 0 or less is none"
            )
        prosodic, acoustic = (
            style.to(self.device, self.network.bert_encoder.weight.dtype)
            for style in (prosodic, acoustic)
        )
        plan = self.network.plan(tokens, prosodic, torch.tensor(speeds).to(prosodic))
        wave = self.network.decode(plan, acoustic, seeds)
        return Speech(wave, plan, acoustic, prosodic, tuple(len(row) - 2 for row in tokens))

    def revoice(self, speech: Speech, voice: Sound | list[Sound], *, seed: int = 0) -> Speech:
        """The same content, F0 and energy with another acoustic style: with `speech`, a
        frame-aligned parallel pair.

        To move the pitch as well, change `speech.plan` before: `replace(speech,
        plan=speech.plan._replace(f0=...))`.

        Args:
            speech: what `say` gave.
            voice: for all rows or for each: a voice, a weighted mix, or an acoustic style (128,).
            seed: as in `say`; the same seed draws the same noise.
        """
        acoustic = self.styles(_each(voice, len(speech), "voices"), speech.phonemes, "acoustic").to(
            speech.acoustic
        )
        wave = self.network.decode(speech.plan, acoustic, [seed + i for i in range(len(speech))])
        return replace(speech, waveform=wave, acoustic=acoustic)

    def styles(self, voices: Sequence[Sound], phonemes: Sequence[int], half: str) -> Tensor:
        """The "acoustic" or "prosodic" half of each row's voice, (B, 128), for its count of
        phonemes."""
        part = slice(STYLE) if half == "acoustic" else slice(STYLE, None)
        rows = []
        for voice, count in zip(voices, phonemes, strict=True):
            if isinstance(voice, Tensor):
                if voice.shape != (STYLE,):
                    raise VoiceError(
                        f"expected an {half} style of shape ({STYLE},), got {tuple(voice.shape)}"
                    )
                rows.append(voice.to(self.device))
            else:
                rows.append(self.bank.style(voice, count)[part].to(self.device))
        return torch.stack(rows)


def check_device(device: torch.device | str) -> None:
    """Raises ConfigError for a device that this machine, or its torch, lacks."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"the device {device} cannot be used here ({str(error).splitlines()[0]}): give cpu, or"
            " cuda where a GPU is"
        ) from error


def _each(value: Any, count: int, what: str) -> list[Any]:
    """One value a row: the same for all, or a list of the right length."""
    values = value if isinstance(value, list) else [value] * count
    if len(values) != count:
        raise ConfigError(
            f"{len(values)} {what} came for {count} texts: give one, or a list of one for each"
        )
    return values
