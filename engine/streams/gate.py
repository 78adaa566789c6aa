"""A soft speech gate: silence yields silence, costs no model step, and the first consonant of the
next word survives.

The decision is silero-vad's (PyPI `silero-vad`, its ONNX file run directly by ONNX Runtime, 16 kHz,
32 ms frames). The gate adds a low threshold to open, a lower one to close, a hangover, and a
look-back: because the converter's output lags its input by `latency` anyway, a decision that comes
that much late still comes in time; `lookback` adds to that margin and is declared as latency by
whoever uses the gate.
"""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rtvc.audio.samples import Samples
from rtvc.engine.streams.resampler import Resampler
from rtvc.errors import DependencyError

VAD_RATE, FRAME, CONTEXT = 16_000, 512, 64
"""The detector's sample rate in Hz, its frame and the samples of the frame before that it wants to
see again."""


@cache
def detector() -> Any:
    """The one-thread ONNX Runtime session of silero-vad, shared by all gates: its state is passed
    in and out.

    Raises:
        DependencyError: when silero-vad or onnxruntime is not installed.
    """
    spec = find_spec("silero_vad")
    if spec is None or spec.origin is None or find_spec("onnxruntime") is None:
        raise DependencyError(
            "the speech gate needs silero-vad and onnxruntime: pip install 'rtvc-engine[live]', or"
            " switch the gate off"
        )
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    path = Path(spec.origin).parent / "data" / "silero_vad_16k_op15.onnx"
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class SpeechProbability(Protocol):
    """Whatever tells how likely speech is."""

    def push(self, block: Samples) -> list[float]:
        """block (N,) -> the probability of every frame that ended in it."""
        ...

    def reset(self) -> None:
        """Back to before the first sample."""
        ...

    def state(self) -> dict[str, Any]:
        """Arrays and numbers to go on from."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from what `state` returned."""
        ...


class Silero:
    """silero-vad on a stream of any rate.

    Args:
        sample_rate: of the blocks that come, in Hz.
    """

    def __init__(self, sample_rate: int) -> None:
        self.session = detector()
        self.edge = Resampler(sample_rate, VAD_RATE)
        self.reset()

    def reset(self) -> None:
        """Back to before the first sample."""
        self.edge.reset()
        self.queue: Samples = np.zeros(CONTEXT, np.float32)
        self.memory: Samples = np.zeros((2, 1, 128), np.float32)

    def push(self, block: Samples) -> list[float]:
        """block (N,) float32 in [-1, 1] -> speech probabilities, one a frame of 32 ms."""
        self.queue = np.concatenate([self.queue, self.edge.push(block)])
        parts = []
        while len(self.queue) >= CONTEXT + FRAME:
            feed = {
                "input": self.queue[None, : CONTEXT + FRAME],
                "state": self.memory,
                "sr": np.array(VAD_RATE, np.int64),
            }
            probability, self.memory = self.session.run(None, feed)
            parts.append(float(probability[0, 0]))
            self.queue = self.queue[FRAME:]
        return parts

    def state(self) -> dict[str, Any]:
        """Arrays and numbers to go on from."""
        return {"edge": self.edge.state(), "queue": self.queue, "memory": self.memory}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from what `state` returned."""
        self.edge.restore(state["edge"])
        self.queue, self.memory = np.array(state["queue"]), np.array(state["memory"])


class Gate:
    """Decides chunk by chunk whether the converter need run.

    Args:
        sample_rate: of the chunks, in Hz.
        opens: speech probability at which the gate opens; low, because a missed consonant is worse
            than a noise let through.
        closes: probability under which it starts to count the hangover.
        hangover: seconds that it stays open after the last speech; the converter hears silence
            before it sleeps.
        lookback: seconds by which audio is held back behind the decision, on top of the converter's
            own latency.
        detector: another source of probabilities, for tests.

    Attributes:
        on: while it is not, everything is let through and nothing is listened to.
    """

    on = True

    def __init__(
        self,
        sample_rate: int,
        *,
        opens: float = 0.2,
        closes: float = 0.12,
        hangover: float = 0.4,
        lookback: float = 0.0,
        detector: SpeechProbability | None = None,
    ) -> None:
        self.rate, self.opens, self.closes, self.hangover, self.lookback = (
            sample_rate,
            opens,
            closes,
            hangover,
            lookback,
        )
        self.detector = Silero(sample_rate) if detector is None else detector
        self.reset()

    def reset(self) -> None:
        """Closed, before the first sample."""
        self.detector.reset()
        self.open, self.quiet = False, 0.0
        self.chunks = self.skipped = 0

    def decide(self, chunk: Samples) -> bool:
        """chunk (N,) -> whether the gate is open once this chunk has been heard."""
        seconds = len(chunk) / self.rate
        if not self.on:
            self.open, self.quiet = True, 0.0
            self.chunks += 1
            return True
        probabilities = self.detector.push(chunk)
        if any(p >= (self.closes if self.open else self.opens) for p in probabilities):
            self.open, self.quiet = True, 0.0
        elif self.open:
            self.quiet += seconds
            self.open = self.quiet <= self.hangover
        self.chunks += 1
        self.skipped += not self.open
        return self.open

    def state(self) -> dict[str, Any]:
        """Arrays and numbers to go on from."""
        return {"detector": self.detector.state(), "open": self.open, "quiet": self.quiet}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from what `state` returned."""
        self.detector.restore(state["detector"])
        self.open, self.quiet = bool(state["open"]), float(state["quiet"])
