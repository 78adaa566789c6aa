"""Randomness as a function of where it is used: (seed, step, row, ...) names a stream, nothing
carries over from before.

A run that is killed and resumed, a batch that is prefetched by a thread, and a rank of a
distributed run all draw the same numbers as the uninterrupted run, because no generator lives
longer than the piece of work it was made for.
"""

import hashlib

import numpy as np
import torch


def derive(seed: int, *keys: int | str) -> int:
    """A 63-bit seed from a run's seed and the place where it is used. Independent of the process
    and the machine."""
    text = "/".join(str(key) for key in (seed, *keys))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, *keys: int | str) -> torch.Generator:
    """A CPU generator for one piece of work."""
    return torch.Generator().manual_seed(derive(seed, *keys))


def numpy_generator(seed: int, *keys: int | str) -> np.random.Generator:
    """The same for numpy."""
    return np.random.default_rng(derive(seed, *keys))
