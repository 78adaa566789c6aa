"""A converter's step as a graph: `torch.export` with a free batch size, and from it ONNX. The start of every compiled backend."""

import logging
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rtvc.engine.backends.base import Layout, PackedStep
from rtvc.errors import DependencyError, EngineError
from rtvc.models.streaming.interface import Converter

MOST_ROWS = 256
"""Largest batch that an exported step promises to take."""
OPSET = 20


def rfft(x: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """`torch.fft.rfft` over the last axis as small matrix products (Cooley and Tukey, 1965: n = rows * columns).

    Graph runtimes run these well and disagree on what an FFT node means. x (..., N) -> complex (..., n // 2 + 1).

    Raises:
        EngineError: for another axis, a norm, or an odd prime length.
    """
    size = x.shape[-1] if n is None else n
    rows = max((d for d in range(1, int(size**0.5) * 2 + 1) if size % d == 0 and d * d <= 2 * size), default=1)
    if dim not in (-1, x.ndim - 1) or norm not in (None, "backward") or rows == 1:
        raise EngineError(f"an FFT of {size} samples over axis {dim} with norm {norm} cannot be exported: use the torch-eager backend")
    columns, last = size // rows, size // rows // 2 + 1  # bin k = k1 + rows * k2; k2 up to half of the columns is enough
    x = torch.nn.functional.pad(x[..., :size], (0, max(0, size - x.shape[-1]))).unflatten(-1, (rows, columns))

    def wave(a: int, b: int, period: int) -> tuple[Tensor, Tensor]:
        angle = -2 * torch.pi * (torch.arange(a, dtype=torch.float64)[:, None] * torch.arange(b, dtype=torch.float64) % period) / period
        return torch.cos(angle).to(x), torch.sin(angle).to(x)

    cosine, sine = wave(rows, rows, rows)
    real, imaginary = cosine @ x, sine @ x
    cosine, sine = wave(rows, columns, size)
    real, imaginary = real * cosine - imaginary * sine, real * sine + imaginary * cosine
    cosine, sine = wave(columns, last, columns)
    parts = torch.cat([real, imaginary], -1) @ torch.cat([torch.cat([cosine, sine], 1), torch.cat([-sine, cosine], 1)])
    real, imaginary = (part.mT.flatten(-2)[..., : size // 2 + 1] for part in parts.split(last, -1))
    return torch.complex(real.contiguous(), imaginary.contiguous())


def voice_size(converter: Converter) -> int:
    """V, the numbers that condition a step."""
    with torch.inference_mode():
        return int(converter.condition(torch.zeros(1, 128), torch.zeros(1, 128)).shape[1])


def exported(converter: Converter, chunk: int) -> Any:
    """The `torch.export` program of one step of `chunk` samples: (x, voice, state) -> (y, next), batch free.

    Raises:
        EngineError: when the model holds something that cannot be exported.
    """
    layout = Layout.of(converter.initial(1))
    step = PackedStep(converter, layout).eval()
    arguments = (torch.zeros(2, 1, chunk), torch.zeros(2, voice_size(converter)), layout.pack(converter.initial(2)))
    batch = torch.export.Dim("batch", min=1, max=MOST_ROWS)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.export.export(step, arguments, dynamic_shapes={"x": {0: batch}, "voice": {0: batch}, "state": {0: batch}})
            return program.run_decompositions({torch.ops.aten.fft_rfft.default: rfft})
    except (RuntimeError, torch._dynamo.exc.UserError) as error:
        raise EngineError(f"the model's step cannot be exported ({str(error).splitlines()[0]}): use the torch-eager backend") from error


def write_onnx(converter: Converter, chunk: int, path: Path, source: Path | None = None) -> None:
    """Writes the step as one ONNX file, constants folded by ONNX Runtime so that every weight is a plain matrix.

    `source` is such a file from before: it is copied, which saves a minute.

    Raises:
        DependencyError: without onnx, onnxscript or onnxruntime.
        EngineError: when the model holds something that cannot be exported.
    """
    if source is not None:
        shutil.copyfile(source, path)
        return
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise DependencyError(f"building an ONNX engine needs {error.name}: pip install 'rtvc-engine[onnx]'") from error
    program = exported(converter, chunk)
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = torch.onnx.export(
                program, dynamo=True, input_names=["x", "voice", "state"], output_names=["y", "next"], opset_version=OPSET, verbose=False
            )
    finally:
        logging.getLogger("torch.onnx").setLevel(level)
    if found is None:
        raise EngineError("torch.onnx gave no program for the model's step: use the torch-eager backend")
    raw = path.with_suffix(".raw.onnx")
    found.save(str(raw))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(raw), options, providers=["CPUExecutionProvider"])
    raw.unlink()
    model = onnx.load(str(path))
    del model.graph.value_info[:]  # shapes inferred before folding disagree with what quantisers infer again
    onnx.save(model, str(path))


def weights(converter: Converter) -> dict[str, torch.Tensor]:
    """The converter's parameters and saved buffers, by name.

    Raises:
        EngineError: when the converter is no torch module.
    """
    if not isinstance(converter, nn.Module):
        raise EngineError(f"a {type(converter).__name__} came, a torch module was wanted: engines are built from its weights")
    return dict(converter.state_dict())
