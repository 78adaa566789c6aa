"""Content that stands in the encoder's place: a recording's labels, the exact content of the
teacher's speech, or what the encoder hears when it waits longest."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rtvc.audio.io import write as write_audio
from rtvc.audio.mel import HOP, SAMPLE_RATE
from rtvc.data.labelled import CONTENT_HOP, load_utterance
from rtvc.errors import ConfigError
from rtvc.evaluate.audio import read
from rtvc.evaluate.pairs import Pair
from rtvc.models.streaming.analysis import BANDS
from rtvc.models.streaming.dial import DialConverter

MEL_FRAMES = 2
"""For each of content."""


class BridgeLabels:
    """The labels that the encoder learned from: what a large recogniser hears, translated by the
    bridge."""

    def __init__(self, path: Path) -> None:
        """From a run of stage `bridge`, or weights that it exported.

        Raises:
            CheckpointError: there are no such weights.
            DependencyError: faster-whisper is not installed.
        """
        from rtvc.train.state import load_weights
        from rtvc.train.streaming.bridge import BridgeNet, Listener

        weights = load_weights(path)
        if "bridge" not in weights:
            raise ConfigError(
                f"expected a bridge, {path} holds {', '.join(weights)}: name one with --bridge"
            )
        self._net = BridgeNet.of_weights(
            {name: tensor.float() for name, tensor in weights["bridge"].items()}
        )
        self._listen = Listener()
        self._kept: dict[Path, Tensor] = {}
        digest = hashlib.sha256()
        for name, tensor in sorted(weights["bridge"].items()):
            digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
        self.identity = digest.hexdigest()[:16]

    def __call__(self, path: Path) -> Tensor:
        """Content (512, T), see `rtvc.evaluate.studies.where.Labels`."""
        from rtvc.train.streaming.bridge import at_40

        if path not in self._kept:
            wave = read(path).clip(-1, 1)
            frames = max(1, len(wave) // CONTENT_HOP)
            states = at_40(torch.from_numpy(self._listen(wave).astype(np.float32)), frames)
            with torch.inference_mode():
                content, _ = self._net(states[None])
            self._kept[path] = content[0].mT.repeat_interleave(MEL_FRAMES, -1)
        return self._kept[path]


class LongestLookahead:
    """What a converter's own encoder hears where its dial waits longest."""

    identity = "longest look-ahead"

    def __init__(self, converter: DialConverter) -> None:
        self._converter = converter
        self._right = max(converter.encoder.lookaheads)

    def __call__(self, path: Path) -> Tensor:
        """Content (Z, T), frame t of the converter's own analysis."""
        wave = torch.from_numpy(read(path))
        padded = F.pad(wave, (0, self._right * HOP + -len(wave) % HOP))[None, None]
        analysis = self._converter.analysis
        with torch.inference_mode():
            features, _ = analysis(padded, analysis.initial(1))
            (content,) = self._converter.encoder.contents(features[:, :BANDS], (self._right,))
        return content[0]


class TeacherSpeech:
    """Utterances that `rtvc teacher generate` wrote, as recordings in a folder, and their exact
    content."""

    def __init__(self, corpus: Path, folder: Path, count: int) -> None:
        """The first `count` of them.

        Args:
            corpus: what the teacher's command wrote, .npz files.
            folder: for the recordings, .wav files.
            count: how many.

        Raises:
            ConfigError: there are none.
            AudioError: one cannot be read.
        """
        files = sorted(corpus.glob("*.npz"))[:count]
        if not files:
            raise ConfigError(
                f"{corpus} holds no .npz files: name a folder that `rtvc teacher generate` wrote,"
                " or leave --teacher out"
            )
        self._files = {folder / f"{file.stem}.wav": file for file in files}
        digest = hashlib.sha256()
        for recording, file in self._files.items():
            digest.update(file.read_bytes())
            audio = np.asarray(load_utterance(file).audio / 32768, np.float32)
            recording.parent.mkdir(parents=True, exist_ok=True)
            write_audio(recording, audio, SAMPLE_RATE)
        self.identity = digest.hexdigest()[:16]

    def pairs(self, transcribe: Callable[[Path], str]) -> list[Pair]:
        """Each with itself, in the words that a recogniser hears in it: the teacher keeps no
        text."""
        return [Pair(path, "teacher", (path,), transcribe(path)) for path in self._files]

    def __call__(self, path: Path) -> Tensor:
        """Content (512, T), see `rtvc.evaluate.studies.where.Labels`."""
        content = torch.from_numpy(load_utterance(self._files[path]).content.astype(np.float32))
        return content.repeat_interleave(MEL_FRAMES, -1)
