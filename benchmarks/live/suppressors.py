"""Noise suppressors that were candidates for `--denoise`, beside the one that was chosen."""

import importlib
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from rtvc.clients.input.suppressor import Framed
from rtvc.errors import DependencyError

Samples = NDArray[np.float32]

HUSH = "livekit.plugins.hush"


def hush(rate: int) -> Framed:
    """Hush (PyPI `livekit-plugins-hush`, Apache-2.0), a DeepFilterNet 3 at 16 kHz.

    The package's own door opens LiveKit, which nothing here needs: its model is taken by itself.

    Raises:
        DependencyError: it is not installed.
    """
    try:
        spec = find_spec(HUSH)
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None:
        raise DependencyError("Hush is missing: pip install --no-deps livekit-plugins-hush")
    if "rtvc_hush" not in sys.modules:
        package = ModuleType("rtvc_hush")
        package.__path__ = [str(Path(spec.origin).parent)]
        sys.modules["rtvc_hush"] = package
    module = importlib.import_module("rtvc_hush._hush_model")
    session = module.HushSession(module.HushModel())

    def process(frame: Samples) -> Samples:
        return np.asarray(session.process_frame(frame), np.float32)

    return Framed(rate, 16_000, 160, process, 0.010)
