"""Transcripts by a second recogniser, Moonshine tiny (Jeffries et al. 2024, arXiv 2410.15608):
greedy, English, one thread.

No training ever sees it, and unlike Whisper it works on the waveform itself. Its two graphs (MIT)
are read out of the package `moonshine-voice` and run by onnxruntime: the package's own library cuts
speech at pauses first, and hears words in the cuts.
"""

import importlib.util
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rtvc.errors import DependencyError
from rtvc.evaluate.audio import Wave, at_16k
from rtvc.evaluate.judges.optional import ADVICE, need, one_thread

HEADS, WIDTH = 8, 36
"""Of the decoder's attention."""
START, END = 1, 2
"""Tokens around a transcript."""
TOKENS_A_SECOND = 6.5
"""What the authors let it write at most: a decoder caught in a loop would go on. Fast reading takes
5.4."""


class Moonshine:
    """The tiny English model."""

    def __init__(self, folder: Path | None = None) -> None:
        """From a folder of its files, by default the installed package's.

        Raises:
            DependencyError: the package, or its model, is not there.
        """
        folder = folder or installed_model()
        runtime = need("onnxruntime")
        self._encoder, self._decoder = (
            runtime.InferenceSession(
                str(folder / f"{name}.ort"), one_thread(runtime), providers=["CPUExecutionProvider"]
            )
            for name in ("encoder_model", "decoder_model_merged")
        )
        self._pieces = list(pieces((folder / "tokenizer.bin").read_bytes()))

    def transcribe(self, wave: Wave) -> str:
        """(N,) at 24 kHz -> the words heard."""
        samples = at_16k(wave)
        if not np.any(samples):
            return ""
        tokens = self._written(samples, math.ceil(len(samples) / 16000 * TOKENS_A_SECOND))
        return (
            b"".join(self._pieces[token] for token in tokens)
            .decode("utf-8", "replace")
            .replace("▁", " ")
            .strip()
        )

    def _written(self, samples: Wave, most: int) -> list[int]:
        """The likeliest token again and again, at most so many; the attention's keys and values go
        from step to step."""
        everything = np.ones((1, len(samples)), np.int64)
        (hidden,) = self._encoder.run(
            None, {"input_values": samples[None], "attention_mask": everything}
        )
        names = [
            entry.name for entry in self._decoder.get_inputs() if entry.name.startswith("past")
        ]
        past: dict[str, Any] = {name: np.zeros((1, HEADS, 0, WIDTH), np.float32) for name in names}
        outputs = [
            entry.name.replace("present", "past_key_values")
            for entry in self._decoder.get_outputs()
        ]
        tokens: list[int] = []
        for step in range(most):
            asked = {
                "input_ids": np.array([[tokens[-1] if tokens else START]], np.int64),
                "encoder_hidden_states": hidden,
                "encoder_attention_mask": everything,
                "use_cache_branch": np.array([step > 0]),
            }
            outputs_by_name = dict(zip(outputs, self._decoder.run(None, asked | past), strict=True))
            # Keys and values of what was heard come whole from the first step only.
            past = {
                name: outputs_by_name[name] if step == 0 or ".decoder." in name else past[name]
                for name in names
            }
            token = int(outputs_by_name["logits"][0, -1].argmax())
            if token == END:
                break
            tokens.append(token)
        return tokens


def installed_model() -> Path:
    """The folder of the model in the installed package, which is not imported: that would load its
    own library."""
    spec = importlib.util.find_spec("moonshine_voice")
    if spec is None or spec.origin is None:
        raise DependencyError(
            "a second recogniser needs the package moonshine-voice, which is not installed:"
            f" {ADVICE}"
        )
    folder = Path(spec.origin).parent / "assets" / "tiny-en"
    if not folder.is_dir():
        raise DependencyError(
            f"the installed moonshine-voice has no model in {folder.name}, as 0.0.49 has: {ADVICE}"
        )
    return folder


def pieces(data: bytes) -> Iterator[bytes]:
    """A vocabulary: before every piece its length, in two bytes from 128 on."""
    place = 0
    while place < len(data):
        length, place = data[place], place + 1
        if length >= 128:
            length, place = length - 128 + 128 * data[place], place + 1
        yield data[place : place + length]
        place += length
