"""Audio outside torch."""

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]
"""Samples in -1..1: (N,) of one channel, (N, C) of several."""
