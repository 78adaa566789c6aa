"""One line that says how it goes."""

from rtvc.clients.live.status import Status
from rtvc.printable import printable


def meter(db: float, width: int = 8, floor: float = -60.0) -> str:
    """A level as a bar: empty at `floor` dB, full at 0."""
    full = round(width * min(1.0, max(0.0, 1 - db / floor)))
    return "█" * full + "·" * (width - full)


def line(status: Status) -> str:
    """A status in one line of at most 120 characters."""
    if status.state != "running":
        return printable(f"{status.state}: {status.problem}", 120)
    flags = " bypass" * status.bypass + " muted" * status.muted
    return (
        f"in {meter(status.level_in_db)} out {meter(status.level_out_db)} lag"
        f" {status.lag_p50_ms:.0f}/{status.lag_p95_ms:.0f}/{status.lag_p99_ms:.0f} ms"
        f" xruns {status.xruns} under {status.underruns} dropped {status.dropped_ms:.0f} ms"
        f" rtf {status.rtf:.2f}{flags}"
    )[:120]
