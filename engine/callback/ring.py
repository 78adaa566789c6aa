"""A lock-free single-producer single-consumer ring: numpy memory, numba code, no allocation, no
lock.

The audio callback is one side and the worker thread the other. Each side writes one counter and
reads the other's; counters only grow, and are published by release stores and read by acquire loads
(the scheme of L. Lamport, "Proving the Correctness of Multiprocess Programs", 1977, with the memory
orders of C++11), so it is right on ARM as well as on x86.
"""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from rtvc.errors import EngineError, needs_extra


@cache
def compiled() -> tuple[Any, Any, Any, Any]:
    """The functions `write`, `read`, `skip` and `fill`, compiled on first use; they run without
    Python's lock.

    Raises:
        DependencyError: when numba is not installed.
    """
    with needs_extra("live", "the ring buffer of live conversion needs numba"):
        from rtvc.engine.callback.ring_native import fill, read, skip, write

    return write, read, skip, fill


class Ring:
    """Numbers of one type, in order, from one thread to another.

    Args:
        capacity: how many it holds.
        dtype: of the numbers.
    """

    def __init__(self, capacity: int, dtype: DTypeLike = np.float32) -> None:
        if capacity < 1:
            raise EngineError(f"expected a ring of at least one place, got {capacity}")
        self.data: NDArray[Any] = np.zeros(capacity, dtype)
        self.counters = np.zeros(16, np.int64)  # written at 0, consumed at 8
        self._write, self._read, self._skip, self._fill = compiled()
        self.warm()

    def warm(self) -> None:
        """Compiles for this type now, so that the first audio block does not wait for a
        compiler."""
        self.write(self.data[:1])
        self.read(self.data[:1])
        self.skip(0)
        self.counters[:] = 0
        self.data[:] = 0

    @property
    def capacity(self) -> int:
        """How many numbers it holds."""
        return len(self.data)

    @property
    def written(self) -> int:
        """Numbers written since the beginning."""
        return int(self.counters[0])

    @property
    def consumed(self) -> int:
        """Numbers read or skipped since the beginning."""
        return int(self.counters[8])

    def __len__(self) -> int:
        return int(self._fill(self.counters))

    def write(self, block: NDArray[Any]) -> int:
        """The producer's: takes as much of block (N,) as fits and returns how many that were."""
        return int(self._write(self.data, self.counters, block))

    def read(self, block: NDArray[Any]) -> int:
        """The consumer's: fills block (N,) from its beginning and returns how many there were."""
        return int(self._read(self.data, self.counters, block))

    def peek(self, block: NDArray[Any]) -> int:
        """The consumer's: like `read`, and what was read stays."""
        count = min(len(block), len(self))
        places = (self.consumed + np.arange(count)) % self.capacity
        block[:count] = self.data[places]
        return count

    def skip(self, count: int) -> int:
        """The consumer's: lets up to `count` numbers go and returns how many there were."""
        return int(self._skip(self.counters, count))
