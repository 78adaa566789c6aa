"""How far a long command is: bars on a terminal, now and then a line in a log."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar

EVERY = 30.0
"""Seconds between lines in a log."""


class Sized(Protocol):
    """What has a length: a piece of a recording."""

    def __len__(self) -> int: ...


Piece = TypeVar("Piece", bound=Sized)


@contextmanager
def busy(doing: str) -> Iterator[None]:
    """Says on standard error, if that is a terminal, what takes seconds and knows no measure."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(doing):
        yield


def watched(pieces: Iterable[Piece], doing: str, total: float) -> Iterator[Piece]:
    """The same pieces, and a bar on a terminal: `total` is the sum of their lengths."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(doing, total=total)
        for piece in pieces:
            yield piece
            bar.advance(task, len(piece))


@contextmanager
def stages(names: Sequence[str], total: int) -> Iterator[Callable[[str, int, int], None]]:
    """A function to be told the stage, how much of it is done, and of how much; on standard error.

    Args:
        names: of the stages, in their order.
        total: what each begins with as its amount of work.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    last = 0.0
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        tasks = {name: bar.add_task(name, total=total) for name in names}

        def advance(stage: str, done: int, total: int) -> None:
            nonlocal last
            bar.update(tasks[stage], completed=done, total=total)
            now = time.monotonic()
            if not console.is_terminal and (now - last >= EVERY or done == total):
                last = now
                console.print(f"{stage} {done}/{total}", highlight=False)

        yield advance
