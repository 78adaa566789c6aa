"""CUDA C++ to machine code without a CUDA toolkit: NVIDIA's run-time compiler, which CUDA builds of
torch bring along."""

import ctypes
import os
import sysconfig
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path


def folders(name: str) -> list[Path]:
    """Folders called `name` of NVIDIA's packages, and of the CUDA toolkit."""
    packages = Path(sysconfig.get_path("purelib")) / "nvidia"
    return [
        *sorted(packages.glob(f"cu*/{name}")),
        Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / name,
    ]


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL | None:
    """The compiler's library: where the system finds it, or among the packages; None where there is
    none."""
    names = [f"libnvrtc.so.{major}" for major in (13, 12)]
    for candidate in (
        *names,
        *(
            str(path)
            for folder in folders("lib")
            for name in names
            if (path := folder / name).is_file()
        ),
    ):
        try:
            return ctypes.CDLL(candidate)
        except OSError:
            continue
    return None


def serves(header: str | None) -> bool:
    """Whether the compiler is here, and the header that the source asks for."""
    return library() is not None and (
        header is None
        or any((folder / header.strip("<>")).is_file() for folder in folders("include"))
    )


def cubin(source: Path, architecture: int, defines: Mapping[str, str | int]) -> bytes:
    """Machine code of one source file for one architecture.

    Args:
        source: the .cu file.
        architecture: compute capability times ten.
        defines: macros.

    Raises:
        FileNotFoundError: no compiler.
        RuntimeError: it refuses the source; its message follows.
    """
    nvrtc = library()
    if nvrtc is None:
        raise FileNotFoundError("libnvrtc is not here: pip install nvidia-cuda-nvrtc")
    options = [
        f"--gpu-architecture=sm_{architecture}",
        "-std=c++17",
        *(f"-D{name}={value}" for name, value in sorted(defines.items())),
    ]
    options += [f"-I{folder}" for folder in folders("include") if folder.is_dir()]
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    nvrtc.nvrtcCreateProgram(
        ctypes.byref(program), source.read_bytes(), source.name.encode(), 0, None, None
    )
    try:
        if nvrtc.nvrtcCompileProgram(
            program,
            len(options),
            (ctypes.c_char_p * len(options))(*(option.encode() for option in options)),
        ):
            nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
            log = ctypes.create_string_buffer(size.value)
            nvrtc.nvrtcGetProgramLog(program, log)
            raise RuntimeError(
                f"nvrtc refuses {source.name} for sm_{architecture}: {log.value.decode().strip()}"
            )
        nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size))
        code = ctypes.create_string_buffer(size.value)
        nvrtc.nvrtcGetCUBIN(program, code)
        return code.raw
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
