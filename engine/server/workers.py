"""The threads and tasks of a server beside the one that steps the pool: the event loop waits for
none of them."""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")

CONTROL_S = 5.0
"""Seconds within which the thread that starts and changes sessions must have answered."""


class Workers:
    """One thread that starts and changes sessions, two that ask the store, one that makes voices,
    and the tasks that end with the server."""

    def __init__(self) -> None:
        self._control = ThreadPoolExecutor(1, "rtvc-control")
        self._store = ThreadPoolExecutor(2, "rtvc-store")
        self.making = ThreadPoolExecutor(1, "rtvc-voices")
        self._tasks: set[asyncio.Task[Any]] = set()
        self._probe: asyncio.Future[None] | None = None
        self._answered = 0.0  # when the control thread did something last, on the loop's clock

    def start(self) -> None:
        """To be called in the event loop, before anything else."""
        self.loop = asyncio.get_running_loop()
        self._answered = self.loop.time()

    async def end_tasks(self) -> None:
        """Cancels the tasks and waits for them."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def stop(self) -> None:
        """Ends the threads; what nobody began is left undone."""
        for executor in (self._control, self._store, self.making):
            executor.shutdown(cancel_futures=True)

    def task(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Runs a coroutine until it ends or the server does."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def control(self, work: Callable[[], T]) -> T:
        """Does something short with sessions, one thing after the other."""
        return await self.loop.run_in_executor(self._control, work)

    async def stored(self, work: Callable[[], T]) -> T:
        """Asks the store, which may take its time: no session waits for that."""
        return await self.loop.run_in_executor(self._store, work)

    def in_loop(self, work: Callable[..., None], *arguments: Any) -> None:
        """Has the event loop do something; for other threads."""
        with suppress(RuntimeError):  # the loop was closed while the last tick ran
            self.loop.call_soon_threadsafe(work, *arguments)

    def probe(self) -> None:
        """Asks the control thread for an answer, unless the last one is still due."""
        if self._probe is None or self._probe.done():
            self._probe = self.loop.run_in_executor(self._control, lambda: None)
            self._probe.add_done_callback(self._note_answer)

    @property
    def answering(self) -> bool:
        """Whether the control thread has answered lately."""
        return self.loop.time() - self._answered < CONTROL_S

    def _note_answer(self, probe: "asyncio.Future[None]") -> None:
        if not probe.cancelled() and probe.exception() is None:
            self._answered = self.loop.time()
