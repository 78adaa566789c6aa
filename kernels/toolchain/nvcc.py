"""CUDA C++ to machine code: by nvcc, else by the run-time compiler that comes with torch; each
cubin made once a machine and kept."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from rtvc.kernels.toolchain import nvrtc


@lru_cache(maxsize=1)
def compiler() -> str | None:
    """The path of nvcc: on PATH, below $CUDA_HOME, or in the usual place; None where there is
    none."""
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    return shutil.which("nvcc") or shutil.which(f"{home}/bin/nvcc")


def cache() -> Path:
    """Where cubins are kept: $RTVC_CACHE, or rtvc below the user's cache folder."""
    if "RTVC_CACHE" in os.environ:
        return Path(os.environ["RTVC_CACHE"]) / "cubins"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "rtvc" / "cubins"


def cubin(source: Path, architecture: int, defines: Mapping[str, str | int]) -> bytes:
    """Machine code of one source file for one architecture.

    Args:
        source: the .cu file.
        architecture: compute capability times ten.
        defines: macros.

    Raises:
        FileNotFoundError: no compiler.
        RuntimeError: the compiler refuses the source; its message follows.
    """
    options = [
        f"-arch=sm_{architecture}",
        "-O3",
        "-std=c++17",
        *(f"-D{name}={value}" for name, value in sorted(defines.items())),
    ]
    text = source.read_bytes()
    name = hashlib.sha256(b"\0".join([text, *(option.encode() for option in options)])).hexdigest()[
        :24
    ]
    kept = cache() / f"{source.stem}-{name}.cubin"
    if kept.is_file():
        return kept.read_bytes()
    tool = compiler()
    if tool is None and nvrtc.library() is None:
        raise FileNotFoundError(
            f"compiling {source.name} needs nvcc or libnvrtc: install the CUDA toolkit, or pip"
            " install nvidia-cuda-nvrtc"
        )
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
        out = Path(folder) / "out.cubin"
        if tool is None:
            out.write_bytes(nvrtc.cubin(source, architecture, defines))
        else:
            done = subprocess.run(
                [tool, "-cubin", *options, str(source), "-o", str(out)],
                capture_output=True,
                text=True,
            )
            if done.returncode:
                raise RuntimeError(
                    f"nvcc refuses {source.name} for sm_{architecture}: {done.stderr.strip()}"
                )
        os.replace(out, kept)
    return kept.read_bytes()


def available(header: str | None = None) -> bool:
    """Whether CUDA C++ that includes `header` can be compiled here."""
    return compiler() is not None or nvrtc.serves(header)
