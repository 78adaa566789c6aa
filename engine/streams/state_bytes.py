"""Nested dictionaries of arrays and plain numbers, to bytes and back. Reading them runs no code:
safetensors and JSON."""

import json
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from rtvc.errors import EngineError
from rtvc.tensorfile import first_line

PLAIN = "plain"
"""Name of the metadata-like tensor that holds the JSON of everything that is no array."""

DEEPEST = 16
"""Branches of branches."""


def to_bytes(tree: dict[str, Any]) -> bytes:
    """A nested dictionary with string keys (no '/'), numpy arrays, numbers, strings, booleans and
    None -> bytes."""
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    plain: dict[str, Any] = {}

    def walk(branch: dict[str, Any], prefix: str) -> None:
        for key, value in branch.items():
            if isinstance(value, dict):
                walk(value, f"{prefix}{key}/")
            elif isinstance(value, np.ndarray):
                arrays[prefix + key] = np.ascontiguousarray(value)
            else:
                plain[prefix + key] = value

    walk(tree, "")
    arrays[PLAIN] = np.frombuffer(json.dumps(plain).encode(), np.uint8)
    return save(arrays)


def from_bytes(data: bytes) -> dict[str, Any]:
    """What `to_bytes` wrote.

    Raises:
        EngineError: when the bytes are something else.
    """
    try:
        arrays = load(data)
        leaves = json.loads(arrays.pop(PLAIN).tobytes())
        tree: dict[str, Any] = {}
        for path, value in [*leaves.items(), *arrays.items()]:
            *parents, key = path.split("/")
            branch = tree
            for parent in parents[:DEEPEST]:
                branch = branch.setdefault(parent, {})
            branch[key] = value
    except Exception as error:  # parsers, and names that contradict each other
        raise EngineError(
            f"expected a parked session, got {len(data)} other bytes ({first_line(error)}): pass"
            " what `park` returned"
        ) from error
    return tree
