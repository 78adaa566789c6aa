"""Every Triton kernel compiled to machine code without a GPU: `python -m
rtvc.kernels.toolchain.ahead --arch 80 90 -o DIR`.

What is compiled are the launches themselves: the launchers are called with meta tensors of the
sizes that the models use, and a recorder keeps kernel, types and constants instead of starting
anything.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rtvc.kernels.forms import Step
from rtvc.kernels.toolchain.launch import STAGES, Recorded, Recorder

ARCHITECTURES = (80, 86, 89, 90, 100, 120)
"""Compute capabilities times ten: A100, RTX 30, RTX 40 and L4, H100, B200, RTX 50."""
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def variants(dtype: torch.dtype) -> dict[str, Recorded]:
    """Every kernel at the sizes of the models, for tensors of `dtype`, by name."""
    from rtvc.kernels import (
        adain_triton,
        block_step_triton,
        frame_norm_triton,
        istft_triton,
        source_triton,
    )

    def meta(*shape: int, of: torch.dtype = dtype) -> Tensor:
        return torch.empty(*shape, dtype=of, device="meta")

    single = torch.float32
    launches: dict[str, Recorded] = {}

    def record(name: str, launcher: Any, *arguments: Any, **options: Any) -> None:
        recorder = Recorder()
        launcher(*arguments, **options, start=recorder)
        (launches[name],) = recorder.launches

    # The paper's decoder: 512 channels at 80 Hz, two seconds; and 128 channels of its generator.
    x, style, row = meta(8, 512, 160), meta(8, 512), meta(8, 512, of=single)
    lengths, alpha = meta(8, of=torch.int64), meta(512)
    record("adain", adain_triton.forward, x, style, style, lengths, alpha, "snake", 0.2, 1e-5)
    record(
        "adain_backward",
        adain_triton.backward,
        x,
        x,
        style,
        style,
        lengths,
        alpha,
        row,
        row,
        "snake",
        0.2,
    )
    long, style, row = meta(8, 128, 48_000), meta(8, 128), meta(8, 128, of=single)
    record("adain_long", adain_triton.forward, long, style, style, None, None, "leaky", 0.2, 1e-5)
    record(
        "adain_long_backward",
        adain_triton.backward,
        long,
        long,
        style,
        style,
        None,
        None,
        row,
        row,
        "leaky",
        0.2,
    )
    # The streaming model: 384 channels, two frames, frames first in memory.
    x, style, frame = meta(64, 2, 384).mT, meta(64, 768)[:, :384], meta(64, 2, of=single)
    record("frame_norm", frame_norm_triton.forward, x, style, style, None, "leaky", 0.2, 1e-5)
    record(
        "frame_norm_backward",
        frame_norm_triton.backward,
        x,
        x,
        style,
        style,
        None,
        frame,
        frame,
        "leaky",
        0.2,
    )
    record(
        "istft_20",
        istft_triton.forward,
        meta(16, 22, 7200),
        meta(16, 1, 15, of=single),
        meta(22, 20, of=single),
        5,
        "sine",
    )
    matrix = meta(602, 600, of=single)
    record(
        "istft_600",
        istft_triton.forward,
        meta(64, 4, 602).mT,
        meta(64, 1, 450, of=single),
        matrix,
        150,
        "complex",
    )
    wide = torch.float64  # of F0 and phase
    ends = [
        meta(64, 2, of=wide),
        meta(64, 2, of=single),
        meta(64, 1, of=wide),
        meta(64, 1, of=single),
        meta(64, 1, of=wide),
    ]
    record("source", source_triton.forward, *ends, 24_000, 300)
    for rows in (1, 256):
        x, past = meta(rows, 2, 384).mT, meta(rows, 8, 384).mT
        weight, bias, style = meta(384, 3, 384), meta(384), meta(rows, 384)
        step = Step("frame", "leaky", 4, 0.2, 1e-5)
        record(
            f"block_step_{rows}",
            block_step_triton.forward,
            x,
            past,
            weight,
            bias,
            style,
            style,
            None,
            None,
            step,
        )
    point, none = meta(384, 1, 384), meta(256, 384, 0)
    record(
        "block_step_pointwise",
        block_step_triton.forward,
        x,
        none,
        point,
        bias,
        None,
        None,
        x,
        None,
        Step("none", "gelu", 1, 0.2, 1e-5),
    )
    return launches


def compile_one(launch: Recorded, architecture: int) -> dict[str, Any]:
    """Compiles one launch: its cubin, PTX and shared memory in bytes."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    source = ASTSource(
        fn=launch.kernel,
        signature=launch.signature(),
        constexprs=launch.constants(),
        attrs=launch.aligned(),
    )
    compiled = compile(
        source,
        target=GPUTarget("cuda", architecture, 32),
        options={"num_warps": launch.num_warps, "num_stages": STAGES},
    )
    return {
        "cubin": compiled.asm["cubin"],
        "ptx": compiled.asm["ptx"],
        "shared": compiled.metadata.shared,
        "warps": launch.num_warps,
    }


def resources(ptx: str, architecture: int) -> dict[str, int]:
    """Registers and spilled bytes a thread, as the assembler that Triton ships reports them."""
    from triton import knobs

    target = re.findall(r"\.target (\w+)", ptx)[0]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.ptx"
        path.write_text(ptx)
        tool = (
            knobs.nvidia.ptxas_blackwell
            if architecture >= 100 and hasattr(knobs.nvidia, "ptxas_blackwell")
            else knobs.nvidia.ptxas
        ).path
        done = subprocess.run(
            [tool, "-v", f"--gpu-name={target}", str(path), "-o", f"{folder}/out"],
            capture_output=True,
            text=True,
            check=True,
        )
    registers, spills = (
        re.search(r"Used (\d+) registers", done.stderr),
        re.findall(r"(\d+) bytes spill", done.stderr),
    )
    return {"registers": int(registers[1]) if registers else -1, "spilled": sum(map(int, spills))}


def compile_all(
    architectures: Sequence[int],
    dtypes: Sequence[str],
    *,
    kernels: Sequence[str] = ("",),
    report: bool = False,
) -> Iterator[dict[str, Any]]:
    """Every kernel for every architecture and dtype; yields one row a cubin, bytes included."""
    for dtype in dtypes:
        for name, launch in variants(DTYPES[dtype]).items():
            if not name.startswith(tuple(kernels)):
                continue
            for architecture in architectures:
                began = time.perf_counter()
                compiled = compile_one(launch, architecture)
                more = resources(compiled["ptx"], architecture) if report else {}
                yield {
                    "kernel": name,
                    "dtype": dtype,
                    "arch": architecture,
                    "bytes": len(compiled["cubin"]),
                    "shared": compiled["shared"],
                    "warps": compiled["warps"],
                    "seconds": round(time.perf_counter() - began, 2),
                    **more,
                    "cubin": compiled["cubin"],
                }


def main(arguments: Sequence[str] | None = None) -> int:
    """Compiles, prints one JSON line a cubin, and writes the cubins if a folder is named."""
    parser = argparse.ArgumentParser(
        prog="python -m rtvc.kernels.toolchain.ahead", description=__doc__
    )
    parser.add_argument(
        "--arch",
        type=int,
        nargs="+",
        default=list(ARCHITECTURES),
        help="compute capabilities times ten",
    )
    parser.add_argument(
        "--dtype", nargs="+", choices=sorted(DTYPES), default=["fp32"], help="what the tensors hold"
    )
    parser.add_argument("--kernel", nargs="+", help="only those whose names begin so")
    parser.add_argument(
        "--report", action="store_true", help="registers and spills, by the assembler"
    )
    parser.add_argument("-o", "--output", type=Path, help="folder for the cubins")
    options = parser.parse_args(arguments)
    if options.output is not None:
        options.output.mkdir(parents=True, exist_ok=True)
    for row in compile_all(
        options.arch, options.dtype, kernels=options.kernel or ("",), report=options.report
    ):
        cubin = row.pop("cubin")
        if options.output is not None:
            (options.output / f"{row['kernel']}_{row['dtype']}_sm{row['arch']}.cubin").write_bytes(
                cubin
            )
        print(json.dumps(row), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
