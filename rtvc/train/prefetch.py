"""Batches prepared ahead by a bounded number of threads, handed out in order."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch.utils import _pytree as pytree

from rtvc.train.stage import Batch


class Feed:
    """Iterates over `make(index)` for increasing indices. What is prepared but not used is thrown
    away: nothing depends on it."""

    def __init__(self, make: Callable[[int], Batch], indices: Iterator[int], workers: int) -> None:
        self.make, self.indices = make, indices
        self.pool = ThreadPoolExecutor(workers, thread_name_prefix="batches") if workers else None
        self.ready: deque[Future[Batch]] = deque()
        for _ in range(2 * workers):
            self._submit()

    def _submit(self) -> None:
        if self.pool and (index := next(self.indices, None)) is not None:
            self.ready.append(self.pool.submit(self.make, index))

    def next(self) -> Batch:
        """The next batch; an exception of `make` is raised here."""
        if self.pool is None:
            return self.make(next(self.indices))
        future = self.ready.popleft()
        self._submit()
        return future.result()

    def close(self) -> None:
        """Stops the threads."""
        if self.pool:
            self.pool.shutdown(wait=True, cancel_futures=True)


def moved(batch: Batch, device: torch.device) -> Batch:
    """The batch on the device, as a fresh dict."""

    def move(leaf: object) -> object:
        return leaf.to(device, non_blocking=True) if isinstance(leaf, torch.Tensor) else leaf

    return dict(pytree.tree_map(move, batch))
