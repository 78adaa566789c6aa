"""What a server tells Prometheus."""

from collections.abc import Callable, Iterable
from typing import Any

from rtvc.errors import needs_extra

LAG = (0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)
STEP = (0.0005, 0.001, 0.002, 0.004, 0.006, 0.008, 0.012, 0.016, 0.025, 0.05, 0.1)
"""Upper bounds of the histograms' buckets, in seconds."""


class Metrics:
    """Counters, gauges and histograms of one server, in a registry of their own.

    Raises:
        DependencyError: when prometheus-client is not installed.
    """

    def __init__(self) -> None:
        with needs_extra("serve", "the server's metrics need prometheus-client"):
            from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
        self.registry = CollectorRegistry()
        known: dict[str, Any] = {"registry": self.registry}
        self._gauge: Callable[[str, str], Any] = lambda name, text: Gauge(name, text, **known)
        self.lag = Histogram(
            "rtvc_lag_seconds",
            "age of the first sample of an output frame when it is sent, by the server's clock",
            buckets=LAG,
            **known,
        )
        self.step = Histogram(
            "rtvc_step_seconds", "time of one batched step of the model", buckets=STEP, **known
        )
        self.xruns = Counter("rtvc_xruns", "chunks converted after their deadline", **known)
        self.resets = Counter(
            "rtvc_state_resets", "sessions whose state was no longer finite and began anew", **known
        )
        self.dropped = Counter("rtvc_dropped_seconds", "stale audio that was dropped", **known)
        self.refusals = Counter("rtvc_refusals", "what was refused, by code", ["code"], **known)
        self.frames = Counter("rtvc_frames", "audio frames", ["direction"], **known)
        self.frames_in, self.frames_out = self.frames.labels("in"), self.frames.labels("out")
        self.packets = Counter(
            "rtvc_call_packets",
            "packets of calls that have ended, by what became of them",
            ["fate"],
            **known,
        )
        self.started = Counter("rtvc_sessions_started", "sessions that were started", **known)
        self.resumed = Counter("rtvc_sessions_resumed", "sessions that were resumed", **known)
        self.uploads = Counter("rtvc_uploads", "reference recordings that became voices", **known)
        self.crashes = Counter("rtvc_internal_errors", "errors that should not happen", **known)

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A gauge whose value is asked for when it is read."""
        self._gauge(name, text).set_function(value)

    def steps(self, seconds: Iterable[float]) -> None:
        """The times of steps that were taken."""
        for time in seconds:
            self.step.observe(time)

    def text(self) -> tuple[bytes, str]:
        """Everything in Prometheus' text format, and its content type."""
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        return generate_latest(self.registry), CONTENT_TYPE_LATEST
