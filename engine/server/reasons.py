"""Why a server says no, for what is said in more than one place."""

from rtvc.engine.protocol.fields import Code
from rtvc.engine.protocol.formats import OPUS_RATES, offered
from rtvc.engine.protocol.messages import Start
from rtvc.engine.protocol.refusals import Refusal

ELSEWHERE = "try again later, or another server"


def draining(message: str = "this server is going down") -> Refusal:
    """No more here."""
    return Refusal(Code.DRAINING, message, "connect again: another one takes over", fatal=True)


def superseded() -> Refusal:
    """The session's client came over another connection."""
    message = "the session goes on over another connection"
    return Refusal(Code.SUPERSEDED, message, fatal=True)


def full(message: str, advice: str = ELSEWHERE) -> Refusal:
    """No place."""
    return Refusal(Code.FULL, message, advice, fatal=True)


def too_late(message: str) -> Refusal:
    """What it takes to go on is no longer there."""
    return Refusal(Code.TOO_LATE, message, "start a new session", fatal=True)


def broken(message: str, advice: str) -> Refusal:
    """Something failed that should not."""
    return Refusal(Code.INTERNAL, message, advice, fatal=True)


def check_format(start: Start) -> None:
    """Asks whether the audio of a session can be read and written here.

    Raises:
        Refusal: an unknown format, or rates that it does not know.
    """
    if start.format not in offered():
        raise Refusal(
            Code.UNSUPPORTED,
            f"{start.format} is not spoken here",
            f"take one of {', '.join(offered())}",
        )
    rates = (start.sample_rate, start.output_rate or start.sample_rate)
    if start.format == "opus" and not set(rates) <= set(OPUS_RATES):
        raise Refusal(
            Code.UNSUPPORTED,
            f"Opus does not know {rates[0]} and {rates[1]} Hz",
            f"take one of {OPUS_RATES}",
        )
