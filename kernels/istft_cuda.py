"""`istft` in CUDA C++ for small windows: compiled for the GPU at hand, loaded through the
driver."""

import ctypes
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from rtvc.kernels.forms import FORMS
from rtvc.kernels.toolchain import nvcc
from rtvc.kernels.toolchain.driver import Kernel

SOURCE = Path(__file__).with_name("istft.cu")
THREADS = 128
"""The value that `istft.cu` has for it."""
LARGEST = 32
"""Samples of a window up to which a frame fits the registers of a thread."""
TYPES = {torch.float32: "float", torch.float16: "__half", torch.bfloat16: "__nv_bfloat16"}
HEADERS = {torch.float16: "<cuda_fp16.h>", torch.bfloat16: "<cuda_bf16.h>"}
"""What the types come from; float32 needs none, so that it compiles without CUDA's headers."""


class Arguments(ctypes.Structure):
    """What the kernel takes, in the order of `istft.cu`."""

    _fields_ = (
        ("x", ctypes.c_void_p),
        ("tail", ctypes.c_void_p),
        ("matrix", ctypes.c_void_p),
        ("y", ctypes.c_void_p),
        ("after", ctypes.c_void_p),
        ("row", ctypes.c_longlong),
        ("channel", ctypes.c_longlong),
        ("frame", ctypes.c_longlong),
        ("frames", ctypes.c_int),
    )


def defines(size: int, hop: int, form: str, dtype: torch.dtype) -> dict[str, str | int]:
    """The macros of one variant."""
    macros: dict[str, str | int] = {
        "SIZE": size,
        "HOP": hop,
        "FORM": FORMS[form],
        "TYPE": TYPES[dtype],
    }
    return macros | ({"HEADER": HEADERS[dtype]} if dtype in HEADERS else {})


def available(size: int, dtype: torch.dtype = torch.float32) -> bool:
    """Whether this twin serves windows of `size` samples on this machine."""
    return size <= LARGEST and nvcc.available(HEADERS.get(dtype))


@lru_cache(maxsize=64)
def kernel(device: int, size: int, hop: int, form: str, dtype: torch.dtype) -> Kernel:
    """The variant's function, compiled and loaded once a device."""
    major, minor = torch.cuda.get_device_capability(device)
    return Kernel(nvcc.cubin(SOURCE, 10 * major + minor, defines(size, hop, form, dtype)), "istft")


def blocks(frames: int, size: int, hop: int) -> int:
    """Blocks of threads a row of the batch."""
    count = -(-size // hop)
    return -(-(frames + count - 1) // (THREADS - count + 1))


def prepare(x: Tensor, tail: Tensor, matrix: Tensor, hop: int) -> tuple[Arguments, Tensor, Tensor]:
    """The kernel's arguments, and the tensors it will fill: y (B, 1, T * hop) and the next tail."""
    y = torch.empty(x.shape[0], 1, x.shape[2] * hop, dtype=x.dtype, device=x.device)
    after = torch.empty_like(tail)
    pointers = (x.data_ptr(), tail.data_ptr(), matrix.data_ptr(), y.data_ptr(), after.data_ptr())
    return Arguments(*pointers, *x.stride(), x.shape[2]), y, after


def forward(x: Tensor, tail: Tensor, matrix: Tensor, hop: int, form: str) -> tuple[Tensor, Tensor]:
    """y (B, 1, T * hop) and the next tail (B, 1, n_fft - hop)."""
    size, tail, matrix = matrix.shape[1], tail.float().contiguous(), matrix.float().contiguous()
    with torch.cuda.device(x.device):
        function = kernel(torch.cuda.current_device(), size, hop, form, x.dtype)
        arguments, y, after = prepare(x, tail, matrix, hop)
        function((blocks(x.shape[2], size, hop), x.shape[0]), THREADS, arguments)
    return y, after
