"""Kernels from cubins through the CUDA driver's C interface: no build of torch, no headers, no
version to match."""

import ctypes
from collections.abc import Sequence
from functools import lru_cache

import torch


class Kernel:
    """A function of a loaded cubin, started on torch's current stream of the current device.

    Args:
        code: the cubin.
        name: of an extern "C" function that takes one structure by value.

    Raises:
        OSError: no CUDA driver here.
        RuntimeError: the driver refuses the code, for instance as made for another GPU.
    """

    def __init__(self, code: bytes, name: str) -> None:
        torch.cuda.current_stream()  # makes torch's context the current one
        self.library = library()
        self.code, self.module, self.function = code, ctypes.c_void_p(), ctypes.c_void_p()
        self.call("cuModuleLoadData", ctypes.byref(self.module), self.code)
        self.call("cuModuleGetFunction", ctypes.byref(self.function), self.module, name.encode())

    def call(self, name: str, *arguments: object) -> None:
        """Calls the driver and raises RuntimeError with its own words if it fails."""
        code = getattr(self.library, name)(*arguments)
        if code:
            text = ctypes.c_char_p()
            self.library.cuGetErrorString(code, ctypes.byref(text))
            raise RuntimeError(f"{name}: {(text.value or b'unknown error').decode()} ({code})")

    def __call__(self, grid: Sequence[int], threads: int, arguments: ctypes.Structure) -> None:
        """Starts the function over `grid` (x, y) blocks of `threads`."""
        pointers = (ctypes.c_void_p * 1)(ctypes.cast(ctypes.byref(arguments), ctypes.c_void_p))
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        self.call(
            "cuLaunchKernel",
            self.function,
            grid[0],
            grid[1],
            1,
            threads,
            1,
            1,
            0,
            stream,
            pointers,
            None,
        )


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL:
    """The driver's library, as every NVIDIA driver installs it."""
    return ctypes.CDLL("libcuda.so.1")
