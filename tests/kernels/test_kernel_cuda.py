"""The CUDA C++ twin of the iSTFT kernel: its arithmetic by a C++ compiler, its machine code by
nvcc, its loading by a fake driver."""

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from rtvc.kernels.istft import reference, synthesis_matrix
from rtvc.kernels.istft_cuda import SOURCE, available, blocks, defines, prepare
from rtvc.kernels.toolchain import driver, nvcc, nvrtc
from rtvc.kernels.toolchain.ahead import ARCHITECTURES
from tests.support.kernel_checks import as_good_as_torch, poisoned

CASES = [
    (20, 5, "sine", 3, 300),
    (20, 5, "polar", 2, 1),
    (16, 4, "complex", 2, 129),
    (22, 8, "sine", 40, 2),
    (8, 8, "complex", 1, 200),
]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("kind", ["float", "_Float16"])
def test_its_phases_run_thread_after_thread_are_as_good_as_plain_torch(
    case: tuple[int, int, str, int, int], kind: str, tmp_path: Path
) -> None:
    tool = shutil.which("g++")
    if tool is None:
        pytest.skip("no C++ compiler: apt-get install g++")
    size, hop, form, batch, frames = case
    macros = defines(size, hop, form, torch.float32) | {"TYPE": kind}
    command = [
        tool,
        "-x",
        "c++",
        "-O1",
        "-shared",
        "-fPIC",
        "-std=c++17",
        *(f"-D{k}={v}" for k, v in macros.items()),
        str(SOURCE),
    ]
    subprocess.run([*command, "-o", str(tmp_path / "istft.so")], check=True)
    function = ctypes.CDLL(str(tmp_path / "istft.so")).istft
    x = torch.randn(
        batch, frames, size + 2, dtype=torch.float32 if kind == "float" else torch.float16
    ).mT
    x = (
        x
        if form == "complex"
        else torch.cat([x[:, : size // 2 + 1], 30 * x[:, size // 2 + 1 :]], 1)
    )
    tail, matrix = torch.randn(batch, 1, size - hop), synthesis_matrix(size, hop).float()
    with poisoned():
        arguments, y, after = prepare(x, tail, matrix, hop)
    function(ctypes.byref(arguments), blocks(frames, size, hop), batch)
    rough, rough_after = reference(x, tail.to(x.dtype), matrix.to(x.dtype), hop, form)
    exact, exact_after = reference(x.double(), tail.double(), matrix.double(), hop, form)
    as_good_as_torch("y", y, rough, exact)
    if size > hop:
        as_good_as_torch("tail", after, rough_after.float(), exact_after)


@pytest.mark.parametrize("tool", ["nvcc", "nvrtc"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_compiles_for_every_architecture(
    architecture: int, tool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dtype = (torch.float32, torch.float16, torch.bfloat16)[ARCHITECTURES.index(architecture) % 3]
    macros = defines(20, 5, "sine", dtype)
    if tool == "nvcc" and nvcc.compiler() is None:
        pytest.skip("no nvcc: install the CUDA toolkit")
    if tool == "nvrtc":
        if nvrtc.library() is None:
            pytest.skip("no libnvrtc: pip install nvidia-cuda-nvrtc")
        if not nvrtc.serves(macros.get("HEADER")):  # type: ignore[arg-type]
            macros = defines(20, 5, "sine", torch.float32)
        monkeypatch.setattr(nvcc, "compiler", lambda: None)
    monkeypatch.setenv("RTVC_CACHE", str(tmp_path))
    code = nvcc.cubin(SOURCE, architecture, macros)
    assert code[:4] == b"\x7fELF" and b"istft" in code
    monkeypatch.setattr(nvcc, "compiler", lambda: None)
    monkeypatch.setattr(nvrtc, "library", lambda: None)
    assert nvcc.cubin(SOURCE, architecture, macros) == code, "a cubin is made once and kept"


def test_what_cannot_be_compiled_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RTVC_CACHE", str(tmp_path))
    if nvcc.compiler() is not None:
        with pytest.raises(RuntimeError, match=r"nvcc refuses istft\.cu for sm_90: "):
            nvcc.cubin(SOURCE, 90, {"SIZE": 20})
    monkeypatch.setattr(nvcc, "compiler", lambda: None)
    if nvrtc.library() is not None:
        with pytest.raises(RuntimeError, match=r"nvrtc refuses istft\.cu for sm_90: "):
            nvcc.cubin(SOURCE, 90, {"SIZE": 20})
    monkeypatch.setattr(nvrtc, "library", lambda: None)
    with pytest.raises(FileNotFoundError, match="needs nvcc or libnvrtc"):
        nvcc.cubin(SOURCE, 90, defines(20, 5, "polar", torch.float32))
    with pytest.raises(FileNotFoundError, match="pip install nvidia-cuda-nvrtc"):
        nvrtc.cubin(SOURCE, 90, defines(20, 5, "polar", torch.float32))
    assert available(20) is False and available(600) is False


def test_halves_need_cudas_headers_and_float32_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nvcc, "compiler", lambda: None)
    monkeypatch.setattr(nvrtc, "library", lambda: object())
    monkeypatch.setattr(nvrtc, "folders", lambda name: [tmp_path])
    assert available(20) and not available(20, torch.bfloat16)
    (tmp_path / "cuda_bf16.h").touch()
    assert available(20, torch.bfloat16) and not available(600)


class FakeDriver:
    """Records calls as the driver would get them; refuses what it is told to."""

    def __init__(self, refuse: str = "") -> None:
        self.refuse, self.calls = refuse, list[tuple[str, tuple[Any, ...]]]()

    def __getattr__(self, name: str) -> Any:
        def function(*arguments: Any) -> int:
            self.calls.append((name, arguments))
            if name == "cuGetErrorString":
                ctypes.cast(arguments[1], ctypes.POINTER(ctypes.c_char_p))[0] = (
                    b"no kernel image is available"
                )
            return 209 if name == self.refuse else 0

        return function


def test_a_kernel_is_loaded_and_started_on_the_current_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Stream:
        cuda_stream = 77

    fake = FakeDriver()
    monkeypatch.setattr(driver, "library", lambda: fake)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: Stream())
    arguments, y, _ = prepare(torch.zeros(2, 22, 9), torch.zeros(2, 1, 15), torch.zeros(22, 20), 5)
    driver.Kernel(b"\x7fELF", "istft")((3, 2), 128, arguments)
    assert [name for name, _ in fake.calls] == [
        "cuModuleLoadData",
        "cuModuleGetFunction",
        "cuLaunchKernel",
    ]
    grid = fake.calls[-1][1]
    assert grid[1:8] == (3, 2, 1, 128, 1, 1, 0) and grid[8].value == 77
    assert ctypes.cast(grid[9][0], ctypes.POINTER(type(arguments))).contents.y == y.data_ptr()
    monkeypatch.setattr(driver, "library", lambda: FakeDriver("cuModuleLoadData"))
    with pytest.raises(
        RuntimeError, match=r"cuModuleLoadData: no kernel image is available \(209\)"
    ):
        driver.Kernel(b"\x7fELF", "istft")
