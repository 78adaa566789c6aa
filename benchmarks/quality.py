"""`rtvc bench quality`: `rtvc evaluate` of the default model as a stream, and its difference from
offline, which must be none."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtvc.engine.backends.base import Backend
from rtvc.engine.streams.session import Session

ALLOWED = 1e-4
"""Largest difference of a sample between the stream and the offline conversion: float32 sums in
another order, no more."""


class Streamed:
    """The default model as `rtvc evaluate` calls a converter, through a session in uneven blocks;
    it keeps its difference from offline."""

    def __init__(self, loaded: Any, backend: Backend, seed: int = 0) -> None:
        self.loaded, self.backend, self.rng = loaded, backend, np.random.default_rng(seed)
        self.differences: list[float] = []

    def __call__(self, source: Path, references: list[Path]) -> tuple[NDArray[np.float32], float]:
        """(source, references) -> (N,) float32 mono at 24 kHz, and the seconds it took."""
        from time import perf_counter

        from rtvc.audio.io import decode
        from rtvc.audio.recording import prepare

        wave, rate = decode(source)
        x, voice = prepare(wave, rate).numpy(), self.loaded.voice(*references)
        session, parts, at = Session(self.backend, voice), list[NDArray[np.float32]](), 0
        began = perf_counter()
        while at < len(x):
            size = int(self.rng.integers(1, 2400))
            parts.append(session.push(x[at : at + size]))
            at += size
        y = np.concatenate([*parts, session.flush()])
        spent = perf_counter() - began
        offline = self.loaded.convert(x, 24_000, voice)
        self.differences.append(float(np.abs(y - offline[: len(y)]).max()))
        return y, spent


def quality(
    pairs: Path,
    *,
    limit: int | None = None,
    chunk: int = 600,
    model: str | None = None,
    lookahead: float | None = None,
) -> dict[str, Any]:
    """The evaluation of the streamed model, with `streaming`: the largest difference from offline,
    and whether they are equal."""
    from rtvc.engine.backends.eager import TorchBackend
    from rtvc.engine.loading import streaming
    from rtvc.evaluate.run import evaluate_pairs

    loaded, converter = streaming(model, lookahead)
    convert = Streamed(loaded, TorchBackend(converter, chunk))
    result = evaluate_pairs(convert, pairs, limit, model=f"{loaded.model.name}, streamed")
    largest = max(convert.differences, default=0.0)
    return {
        **result,
        "streaming": {
            "largest_difference": largest,
            "allowed": ALLOWED,
            "equal": largest <= ALLOWED,
        },
    }
