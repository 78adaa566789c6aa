"""What a server refused, and which of it is worth another attempt."""

from rtvc.engine.protocol.fields import Code
from rtvc.engine.protocol.refusals import Refusal

__all__ = ["TEMPORARY", "Refusal"]

TEMPORARY = frozenset({Code.FULL, Code.DRAINING, Code.RATE_LIMITED, Code.INTERNAL})
"""Refusals after which another attempt to resume may succeed, here or on another machine."""
