"""The ring's machine code, by numba; imported by `rtvc.engine.callback.ring` when the first ring is
made.

A module of its own, because numba keeps compiled code on disk only for functions that close over
nothing.
"""

from typing import Any

from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

WRITTEN, READ = 0, 8
"""Places of the two counters: 64 bytes apart, so that the sides do not fight for a cache line."""


def slot(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """The address of counters[index]."""
    array = context.make_array(signature.args[0])(context, builder, args[0])
    return cgutils.gep_inbounds(builder, array.data, args[1])


def load(typing: Any, counters: Any, index: Any) -> Any:
    """counters[index], nothing after it moved before it."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load_atomic(slot(context, builder, signature, args), "acquire", 8)

    return types.int64(counters, types.intp), generate


acquire: Any = intrinsic(load)


def store(typing: Any, counters: Any, index: Any, value: Any) -> Any:
    """counters[index] = value, nothing before it moved after it."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store_atomic(args[2], slot(context, builder, signature, args), "release", 8)
        return context.get_dummy_value()

    return types.void(counters, types.intp, types.int64), generate


release: Any = intrinsic(store)


@njit(nogil=True, cache=True)
def write(data: Any, counters: Any, block: Any) -> int:
    start = acquire(counters, WRITTEN)
    count = min(len(block), len(data) - (start - acquire(counters, READ)))
    at = start % len(data)
    first = min(count, len(data) - at)
    data[at : at + first] = block[:first]
    data[: count - first] = block[first:count]
    release(counters, WRITTEN, start + count)
    return int(count)


@njit(nogil=True, cache=True)
def read(data: Any, counters: Any, block: Any) -> int:
    start = acquire(counters, READ)
    count = min(len(block), acquire(counters, WRITTEN) - start)
    at = start % len(data)
    first = min(count, len(data) - at)
    block[:first] = data[at : at + first]
    block[first:count] = data[: count - first]
    release(counters, READ, start + count)
    return int(count)


@njit(nogil=True, cache=True)
def skip(counters: Any, most: int) -> int:
    start = acquire(counters, READ)
    count = min(most, acquire(counters, WRITTEN) - start)
    release(counters, READ, start + count)
    return int(count)


@njit(nogil=True, cache=True)
def fill(counters: Any) -> int:
    consumed = acquire(
        counters, READ
    )  # first: the difference can then only be too large, never negative
    return int(acquire(counters, WRITTEN) - consumed)
