"""Two ways to run the teacher over a corpus: our torch modules, or the published int8 ONNX
graph."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from rtvc.errors import ConfigError, needs_extra
from rtvc.teacher.bank import STYLE, VoiceBank
from rtvc.teacher.kokoro import Teacher, check_device
from rtvc.teacher.phonemes import Alphabet
from rtvc.teacher.sources import onnx_path

CONTENT = "/encoder/MatMul_1_output_0"
F0 = "/decoder/decoder/Unsqueeze_output_0"
ENERGY = "/decoder/decoder/Unsqueeze_1_output_0"
"""Inner tensors of the graph; the alignment is the second input of the node that makes the
content."""

GPU_BATCH = 32
"""Utterances at once on a GPU; on a CPU one at a time is as fast."""


@dataclass(frozen=True)
class Request:
    """One utterance to make.

    Attributes:
        tokens: boundaries included.
        style: (256,) float32, acoustic then prosodic.
        speed: 1 is natural.
        seed: of the noise; the ONNX graph has none.
    """

    tokens: tuple[int, ...]
    style: NDArray[np.float32]
    speed: float
    seed: int


@dataclass(frozen=True)
class Take:
    """One utterance made: audio (600 T,) at 24 kHz, content (512, T), f0 (2 T,), energy (2 T,), all
    float32; tokens (T,) int64."""

    audio: NDArray[np.float32]
    content: NDArray[np.float32]
    f0: NDArray[np.float32]
    energy: NDArray[np.float32]
    tokens: NDArray[np.int64]


class Engine(Protocol):
    """Attributes: `batch`, utterances that are best made together; `bank`, its voices; `alphabet`,
    its token table."""

    batch: int
    bank: VoiceBank
    alphabet: Alphabet

    def make(self, requests: Sequence[Request]) -> Iterator[Take]:
        """The utterances, in order."""
        ...


class TorchEngine:
    """The torch modules; batches on a GPU."""

    def __init__(self, teacher: Teacher) -> None:
        self.teacher, self.bank, self.alphabet = teacher, teacher.bank, teacher.alphabet
        self.batch = 1 if teacher.device.type == "cpu" else GPU_BATCH

    def make(self, requests: Sequence[Request]) -> Iterator[Take]:
        """The utterances, in order."""
        styles = torch.from_numpy(np.stack([request.style for request in requests]))
        acoustic, prosodic = styles.split(STYLE, 1)
        tokens, speeds, seeds = zip(*((r.tokens, r.speed, r.seed) for r in requests), strict=True)
        for row in self.teacher.speak(tokens, acoustic, prosodic, speeds, seeds).rows():
            plan = row.plan
            audio, content, f0, energy = (
                x[0].float().cpu().numpy()
                for x in (row.waveform, plan.content, plan.f0, plan.energy)
            )
            yield Take(audio, content, f0, energy, plan.tokens[0].cpu().numpy())


class OnnxEngine:
    """The graph as published, with its inner tensors as outputs; the reference of the parity test.

    Attributes:
        batch: 1.
        bank: the voices.
        alphabet: the token table.
    """

    def __init__(self, bank: VoiceBank, alphabet: Alphabet, threads: int = 1) -> None:
        """Raises:
        DependencyError: without onnx and onnxruntime.
        """
        with needs_extra("train", "the ONNX engine needs onnx and onnxruntime"):
            import onnx
            import onnxruntime
        self.bank, self.alphabet, self.batch = bank, alphabet, 1
        model = onnx.load(str(onnx_path()))
        (maker,) = (node for node in model.graph.node if CONTENT in node.output)
        extra = [CONTENT, F0, ENERGY, maker.input[1]]
        model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in extra)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session: Any = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def make(self, requests: Sequence[Request]) -> Iterator[Take]:
        """The utterances, in order."""
        for request in requests:
            tokens = np.array([request.tokens], np.int64)
            feed = {
                "tokens": tokens,
                "style": request.style[None],
                "speed": np.array([request.speed], np.float32),
            }
            audio, content, f0, energy, alignment = self._session.run(None, feed)
            owner = alignment.reshape(alignment.shape[-2:]).argmax(0)
            yield Take(audio.ravel(), content[0], f0.ravel(), energy.ravel(), tokens[0, owner])


def fast_dtype(device: str) -> torch.dtype:
    """bfloat16 where the hardware multiplies it fast, else float32."""
    if torch.device(device).type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32


def open_engine(name: str = "auto", device: str = "cpu", threads: int = 1) -> Engine:
    """An engine by name.

    Args:
        name: "torch", "onnx", or "auto": ONNX on a CPU that multiplies no bfloat16, where int8 is
            faster, torch elsewhere.
        device: for torch.
        threads: for ONNX; torch takes the process's own setting.
    """
    if name not in ("auto", "torch", "onnx"):
        raise ConfigError(f"there is no engine {name!r}: give auto, torch or onnx")
    check_device(device)
    dtype = fast_dtype(device)
    if name == "onnx" or (
        name == "auto" and device == "cpu" and dtype == torch.float32 and _has_onnx()
    ):
        from rtvc.teacher.weights import load

        return OnnxEngine(*load()[1:], threads)
    return TorchEngine(Teacher.load(device=device, dtype=dtype))


def _has_onnx() -> bool:
    from importlib.util import find_spec

    return all(find_spec(name) for name in ("onnx", "onnxruntime"))
