"""A pool whose output is kept by session until it is asked for, and a backend that tells the order
of its steps."""

from collections import defaultdict

import numpy as np

from rtvc.engine.backends.eager import TorchBackend
from rtvc.engine.streams.pool import Pool


class OneByOne(TorchBackend):
    """A backend of one row, and the first sample of every chunk in the order of the steps."""

    batches = (1,)

    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, **settings)
        self.order = []

    def step(self, x, voice, state):
        self.order.append(float(x[0, 0, 0]))
        return super().step(x, voice, state)


class KeptPool(Pool):
    """Keeps the pieces of every tick; `pull` gives what came of one session, (N,) float32."""

    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, **settings)
        self.kept = defaultdict(list)

    def tick(self, now=None):
        pieces = super().tick(now)
        for piece in pieces:
            self.kept[piece.session].append(piece.samples)
        return pieces

    def pull(self, session):
        return np.concatenate([np.zeros(0, np.float32), *self.kept.pop(session, [])])
