"""Where a running conversion says how it is reached: a file that only its user can read.

One file a process in the runtime folder of the user (XDG Base Directory Specification; elsewhere
a private folder among the temporary files). What a killed process left behind is swept away by
whoever looks next.
"""

import contextlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from rtvc.errors import ServiceError
from rtvc.files import read_json

PREFIX = "control-"


@dataclass(frozen=True)
class Address:
    """How to reach a running conversion.

    Attributes:
        url: of its endpoint, `http://127.0.0.1:PORT`.
        token: that every request must carry.
        pid: of its process.
    """

    url: str
    token: str
    pid: int


def runtime_folder() -> Path:
    """The folder of these files, which only the user can enter; made if it is not there.

    Raises:
        ServiceError: somebody else's folder is in its place.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        folder = Path(runtime) / "rtvc"
    else:
        user = getattr(os, "getuid", lambda: os.environ.get("USERNAME", "user"))()
        folder = Path(tempfile.gettempdir()) / f"rtvc-{user}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if hasattr(os, "getuid"):
        facts = folder.lstat()
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o077:
            raise ServiceError(
                f"{folder} can be read by others: remove it, or set XDG_RUNTIME_DIR to a folder of"
                " your own"
            )
    return folder


@contextmanager
def announced(address: Address) -> Iterator[Path]:
    """Leaves the address in the runtime folder for as long as the block runs; gives the file."""
    path = runtime_folder() / f"{PREFIX}{address.pid}.json"
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(asdict(address), file)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def addresses() -> list[Address]:
    """Of all conversions of this user that run, the youngest first."""
    dated = list[tuple[float, Address]]()
    for path in runtime_folder().glob(f"{PREFIX}*.json"):
        with contextlib.suppress(OSError, ValueError, TypeError):
            address = Address(**read_json(path))
            if alive(address.pid):
                dated.append((path.stat().st_mtime, address))
            else:
                path.unlink(missing_ok=True)
    return [address for _, address in sorted(dated, key=lambda both: -both[0])]


def address_of(pid: int | None = None) -> Address:
    """Of the conversion that is meant: the youngest, or that of a process.

    Raises:
        ServiceError: none runs.
    """
    for address in addresses():
        if pid in (None, address.pid):
            return address
    raise ServiceError(
        "expected a running `rtvc live` or `rtvc stream --mic`, found none of yours"
        + (f" with the process number {pid}" if pid is not None else "")
        + ": start one, or name another machine's server with --url"
    )


def alive(pid: int) -> bool:
    """Whether a process of this number runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is somebody else's
        return True
    return True
