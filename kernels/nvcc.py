"""CUDA C++ to machine code: nvcc where it is installed, each cubin made once a machine and kept."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=1)
def compiler() -> str | None:
    """The path of nvcc: on PATH, below $CUDA_HOME, or in the usual place; None where there is none."""
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
        FileNotFoundError: no nvcc.
        RuntimeError: nvcc refuses the source; its message follows.
    """
    options = [f"-arch=sm_{architecture}", "-O3", "-std=c++17", *(f"-D{name}={value}" for name, value in sorted(defines.items()))]
    text = source.read_bytes()
    name = hashlib.sha256(b"\0".join([text, *(option.encode() for option in options)])).hexdigest()[:24]
    kept = cache() / f"{source.stem}-{name}.cubin"
    if kept.is_file():
        return kept.read_bytes()
    tool = compiler()
    if tool is None:
        raise FileNotFoundError(f"compiling {source.name} needs nvcc: install the CUDA toolkit or set CUDA_HOME")
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
        made = Path(folder) / "out.cubin"
        done = subprocess.run([tool, "-cubin", *options, str(source), "-o", str(made)], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"nvcc refuses {source.name} for sm_{architecture}: {done.stderr.strip()}")
        os.replace(made, kept)
    return kept.read_bytes()
