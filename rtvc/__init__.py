"""Real-time, one-shot, streaming voice conversion.

import rtvc

vc = rtvc.load()
voice = vc.voice("reference.wav")
y = vc.convert(x, sample_rate, voice)
"""

from typing import TYPE_CHECKING, Any

from rtvc.errors import RtvcError

if TYPE_CHECKING:
    from rtvc.api import VoiceConverter, load
    from rtvc.voices.voice import Voice

__all__ = ["RtvcError", "Voice", "VoiceConverter", "__version__", "load"]

HOMES = {"Voice": "rtvc.voices.voice", "VoiceConverter": "rtvc.api", "load": "rtvc.api"}
"""Where each public name lives; torch is imported when one of them is first used."""


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first asked for (PEP 562)."""
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("rtvc-engine")
    elif name in HOMES:
        from importlib import import_module

        value = getattr(import_module(HOMES[name]), name)
    else:
        raise AttributeError(f"module 'rtvc' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, for completion."""
    return sorted({*globals(), *__all__})
