"""GPUs that a test says are here."""

import pytest

from rtvc.engine.graph.gpu import Gpu
from rtvc.engine.tensorrt import flavours
from rtvc.errors import EngineError


def on_machine(monkeypatch: pytest.MonkeyPatch, found: Gpu | None) -> None:
    """Answers for the GPU that is here."""

    def need(what: str) -> Gpu:
        if found is None:
            raise EngineError(f"{what} needs an NVIDIA GPU")
        return found

    monkeypatch.setattr(flavours, "gpu", lambda: found)
    monkeypatch.setattr(flavours, "need_gpu", need)
    for module in ("registry", "cached"):
        monkeypatch.setattr(f"rtvc.engine.{module}.need_gpu", need)
