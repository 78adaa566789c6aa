"""`python -m rtvc.engine.builder`: builds and times backends for the process that started it, which
converts meanwhile.

It reads a line of JSON and a model's weights from standard input, which its parent alone writes,
and answers with lines of JSON: a backend whenever there is a better one, and why nothing better
could be had if that is so. It ends when standard input closes.
"""

import _thread
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

NICE = 10
"""How far it stands back behind everything else."""
PATIENCE_S = 5.0
"""Seconds until it ends the hard way."""


def main() -> None:
    """The whole of it."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer
    if hasattr(os, "nice"):
        os.nice(NICE)
    order = json.loads(sys.stdin.buffer.readline())
    model = sys.stdin.buffer.read(order["bytes"])
    threading.Thread(target=watch, args=(sys.stdin.buffer,), daemon=True).start()
    for answer in improvements(model, order):
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()


def watch(pipe: BinaryIO) -> None:
    """Ends the process when its parent has, what is half built taken away; a library that does not
    let itself be interrupted is given some seconds."""
    while pipe.read(1):
        pass
    _thread.interrupt_main()
    time.sleep(PATIENCE_S)
    os._exit(1)


def improvements(model: bytes, order: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A line whenever a better backend is ready."""
    import torch

    from rtvc.engine.auto import contest
    from rtvc.engine.sent_model import unpacked
    from rtvc.errors import RtvcError

    torch.set_num_threads(1)
    converter = unpacked(order["model"], model)
    cache = Path(order["cache"])
    try:
        for chunk in order["chunks"]:
            for backend, _ in contest(
                converter, chunk, cache=cache, candidates=order["candidates"]
            ):
                yield {"chunk": chunk, "backend": backend.name}
    except RtvcError as error:
        yield {"problem": str(error)}


if __name__ == "__main__":
    main()
