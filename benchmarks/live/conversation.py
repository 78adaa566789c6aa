"""A live conversation on a simulated clock: sound cards, a worker, stalls of both; hours pass in
minutes.

The pump is the real one; only time is made up. Steps cost what they are said to cost, stalls take
the worker (or the whole machine, callbacks included) away, and the two sound cards may disagree on
what a second is.
"""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rtvc.audio.samples import Samples
from rtvc.engine.callback.duplex import Pump


@dataclass(frozen=True)
class Stall:
    """An interruption.

    Attributes:
        at: when it begins, in seconds.
        length: seconds that it takes.
        machine: whether the audio callbacks stop too: what was said meanwhile is lost by the sound
            card, not by us.
    """

    at: float
    length: float
    machine: bool = False


@dataclass
class Conversation:
    """What happened.

    Attributes:
        times: when each block began to sound, in seconds, (K,).
        lags: its capture-to-playback time in seconds; NaN while nothing was there to play, (K,).
        played: what sounded, when it was asked for, (N,).
        captured: samples that entered.
        dropped: samples dropped on purpose.
    """

    times: NDArray[np.float64]
    lags: NDArray[np.float64]
    played: Samples
    captured: int
    dropped: int
    recoveries: list[float] = field(default_factory=list)


def converse(
    pump: Pump,
    seconds: float,
    source: Callable[[int, int], Samples],
    *,
    block: float = 0.010,
    cost: float = 0.005,
    stalls: Sequence[Stall] = (),
    skew: float = 0.0,
    record: bool = False,
    listen: Callable[[Samples], None] | None = None,
    each_second: Callable[[float], None] | None = None,
) -> Conversation:
    """Runs a pump for some simulated seconds.

    Args:
        pump: the way from capture to playback, with its session.
        seconds: how long.
        source: gives `count` input samples from position `start`.
        block: seconds a block of both sound cards.
        cost: seconds that one step of the model takes.
        stalls: interruptions, in any order.
        skew: by how much the playback clock runs faster than the capture clock, as a share.
        record: keep what was played.
        listen: hears every block that is played.
        each_second: called once a simulated second.
    """
    size_in, size_out = round(block * pump.rate_in), round(block * pump.rate_out)
    events = [(block, 0), (block / 2, 1), (0.001, 2)]  # capture, playback, worker
    heapq.heapify(events)
    expected = int(seconds / block * (1 + abs(skew))) + 2
    times, lags, played = np.full(expected, np.inf), np.full(expected, np.nan), list[Samples]()
    sounded = 0
    position, stalled, out, next_second = (
        0,
        sorted(stalls, key=lambda s: s.at),
        np.zeros(size_out, np.float32),
        0.0,
    )
    pending: tuple[Samples, float] | None = None
    while events[0][0] < seconds:
        now, kind = heapq.heappop(events)
        if each_second and now >= next_second:
            each_second(now)
            next_second += 1
        hold = next(
            (s for s in stalled if s.at <= now < s.at + s.length and (s.machine or kind == 2)), None
        )
        if hold is not None:
            end = hold.at + hold.length
            if kind == 0:
                position += round((end - now) * pump.rate_in)
            heapq.heappush(events, (end, kind))
        elif kind == 0:
            pump.capture(source(position, size_in), now - block)
            position += size_in
            heapq.heappush(events, (now + block, 0))
        elif kind == 1:
            before = pump.playout.sounded
            pump.play(out, now)
            times[sounded] = now
            lags[sounded] = pump.playout.lag if pump.playout.sounded > before else np.nan
            sounded += 1
            if record:
                played.append(out.copy())
            if listen:
                listen(out)
            heapq.heappush(events, (now + block / (1 + skew), 1))
        elif pending is not None:
            pump.deliver(*pending, now)
            pending = None
            heapq.heappush(events, (now, 2))
        else:
            before = pump.session.steps
            produced = pump.process(now)
            steps = pump.session.steps - before
            pending = produced if len(produced[0]) else None
            heapq.heappush(events, (now + (steps * cost if steps else 0.001), 2))
    conversation = Conversation(
        times[:sounded],
        lags[:sounded],
        np.concatenate(played) if played else np.zeros(0, np.float32),
        position,
        pump.dropped,
    )
    conversation.recoveries = [recovery(conversation, stall) for stall in stalled]
    return conversation


def recovery(conversation: Conversation, stall: Stall, tolerance: float = 0.024) -> float:
    """Seconds from the end of a stall until the lag was back at what it was before, within
    `tolerance` seconds, to stay.

    The nominal lag is a band: where in a block the cards happen to meet is worth up to 10 ms, and
    playout leaves 12 ms to drift control.
    """
    times, lags = conversation.times, conversation.lags
    before = lags[(times > stall.at - 0.5) & (times < stall.at)]
    end = stall.at + stall.length
    after = (times >= end) & (times < end + 1.0)
    bad = ~(lags[after] <= np.nanmax(before) + tolerance)
    return float(times[after][bad].max() - end) if bad.any() else 0.0
