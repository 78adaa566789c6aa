"""How far a long command is: bars on a terminal, now and then a line in a log."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

EVERY = 30.0
"""Seconds between lines in a log."""


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
