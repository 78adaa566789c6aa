"""A pool whose output is kept by session until it is asked for."""

from collections import defaultdict

import numpy as np

from rtvc.engine.streams.pool import Pool


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
