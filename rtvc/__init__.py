"""Real-time, one-shot, streaming voice conversion.

import rtvc

vc = rtvc.load()
voice = vc.voice("reference.wav")
y = vc.convert(x, sample_rate, voice)
"""

from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

from rtvc.errors import RtvcError

if TYPE_CHECKING:
    from rtvc.converter import VoiceConverter
    from rtvc.models_by_name import load
    from rtvc.voices.voice import Voice

__all__ = ["RtvcError", "Voice", "VoiceConverter", "__version__", "load"]

HOMES = {
    "Voice": "rtvc.voices.voice",
    "VoiceConverter": "rtvc.converter",
    "load": "rtvc.models_by_name",
}
"""Where each public name lives; torch is imported when one of them is first used."""


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first asked for (PEP 562)."""
    if name == "__version__":
        from rtvc.version import version

        value: Any = version()
    elif name in HOMES:
        value = getattr(import_module(HOMES[name]), name)
    else:
        raise AttributeError(f"module 'rtvc' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, for completion."""
    return sorted({*globals(), *__all__})


CLIENTS = {
    "Client": "rtvc.clients.websocket.client",
    "Refusal": "rtvc.clients.websocket.refusal",
    "Remote": "rtvc.clients.websocket.remote",
    "connect": "rtvc.clients.websocket.client",
    "convert": "rtvc.clients.websocket.remote",
}
"""What `rtvc.clients` offers; `clients/__init__.pyi` tells type checkers the same."""


def client_name(name: str) -> Any:
    """Imports a name of `rtvc.clients` when it is first asked for."""
    if name not in CLIENTS:
        raise AttributeError(f"module 'rtvc.clients' has no attribute {name!r}")
    return getattr(import_module(CLIENTS[name]), name)


# That folder can have no `__init__.py` to say this itself: at the top of a checkout it would shadow
# an installed package called `clients`. Whoever imports `rtvc.clients` imports `rtvc` first, so the
# empty module is given its `__getattr__` here, and `CLIENTS` names modules as text: rtvc imports
# nothing from above. Without links in the checkout (setup.py) everything but the folders works.
with suppress(ModuleNotFoundError):
    vars(import_module("rtvc.clients"))["__getattr__"] = client_name
