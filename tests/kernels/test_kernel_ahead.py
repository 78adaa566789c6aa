"""Every Triton kernel becomes machine code for six architectures, without a GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.support.kernel_checks import interpreter

interpreter()

from rtvc.kernels import (  # noqa: E402
    adain_triton,
    block_step_triton,
    frame_norm_triton,
    istft_triton,
    source_triton,
)
from rtvc.kernels.toolchain.ahead import ARCHITECTURES, variants  # noqa: E402
from rtvc.kernels.toolchain.launch import type_of  # noqa: E402

SHARED = {80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}
"""Shared memory that one block may use, in KiB, by architecture (CUDA C++ programming guide, table
of compute capabilities)."""


def test_every_kernel_is_among_the_variants() -> None:
    modules = (adain_triton, block_step_triton, frame_norm_triton, istft_triton, source_triton)
    kernels = {
        f"{m.__name__}.{name}" for m in modules for name in vars(m) if name.endswith("kernel")
    }
    assert {
        f"{v.kernel.fn.__module__}.{v.kernel.fn.__name__}"
        for v in variants(torch.bfloat16).values()
    } == kernels


def test_every_variant_compiles_for_every_architecture(tmp_path: Path) -> None:
    """In a process of its own: this one interprets. bfloat16 for the odd ones out keeps the
    conversions covered."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {
        "TRITON_CACHE_DIR": str(tmp_path / "cache")
    }
    rows = []
    for dtype, architectures in (("fp32", ARCHITECTURES[::2]), ("bf16", ARCHITECTURES[1::2])):
        command = [
            sys.executable,
            "-m",
            "rtvc.kernels.toolchain.ahead",
            "--dtype",
            dtype,
            "-o",
            str(tmp_path),
            "--arch",
            *map(str, architectures),
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, cwd=Path(__file__).parents[2]
        )
        assert done.returncode == 0, done.stderr[-2000:]
        rows += [json.loads(line) for line in done.stdout.splitlines()]
    assert {(row["kernel"], row["arch"]) for row in rows} == {
        (name, arch) for name in variants(torch.float32) for arch in ARCHITECTURES
    }
    for row in rows:
        cubin = tmp_path / f"{row['kernel']}_{row['dtype']}_sm{row['arch']}.cubin"
        assert (
            cubin.read_bytes()[:4] == b"\x7fELF" and row["shared"] <= 1024 * SHARED[row["arch"]]
        ), row


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("x", torch.zeros(1), "*fp32"),
        ("n", 7, "i32"),
        ("n", 1, "constexpr"),
        ("eps", 1e-5, "fp32"),
        ("alpha", None, "constexpr"),
        ("ROWS", 4, "constexpr"),
    ],
)
def test_arguments_are_typed_as_the_compiler_would(name: str, value: object, kind: str) -> None:
    assert type_of(name, value) == kind
