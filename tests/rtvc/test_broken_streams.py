"""What goes wrong inside a stream ends neither it nor its neighbours, nor leaves full scale."""

import math
import threading
from typing import Any

import numpy as np
import pytest
import torch
from converters import DelayConverter, TestVoice
from pooling import KeptPool
from torch import Tensor

from rtvc.engine.backends.eager import TorchBackend
from rtvc.engine.callback.duplex import Pump
from rtvc.engine.streams.capacity import Capacity
from rtvc.engine.streams.health import broken_rows, is_finite
from rtvc.engine.streams.session import Session
from rtvc.errors import AudioError, EngineError
from tests.support.calling import noise


class Breaking(DelayConverter):
    """Its state becomes NaN once it heard a sample above 0.5."""

    def forward(self, x: Tensor, voice: Tensor, state: Any) -> tuple[Tensor, Any]:
        y, state = super().forward(x, voice, state)
        bad = (x.amax((1, 2)) > 0.5)[:, None, None]
        return torch.where(bad, math.nan, y), torch.where(bad, math.nan, state)


def test_a_broken_state_begins_anew_and_is_counted() -> None:
    x = noise(12_000)
    x[3_000] = 0.9
    stream = Session(TorchBackend(Breaking(), 600), TestVoice(gain=1.0))
    y = np.concatenate([stream.push(x), stream.flush()])
    assert stream.resets == 1 and np.isfinite(y).all() and len(y) == len(x)
    np.testing.assert_array_equal(y[3_600:], x[3_600:])
    assert not y[2_700:3_000].any(), "what the state had held is lost, and no more"


def test_in_a_pool_only_the_broken_row_begins_anew() -> None:
    pool = KeptPool(TorchBackend(Breaking(), 600), capacity=Capacity(0.025, {}, 4))
    members, x = [pool.join(TestVoice(gain=1.0)) for _ in range(3)], noise(12_000)
    for index, member in enumerate(members):
        said = x.copy()
        said[3_000] = 0.9 if index == 1 else 0.1
        member.push(said)
        member.finish()
    while not all(member.done for member in members):
        pool.tick()
    outputs = [pool.pull(member) for member in members]
    assert [member.resets for member in members] == [0, 1, 0]
    for y in outputs:
        assert len(y) == len(x) and np.isfinite(y).all()
        np.testing.assert_array_equal(y[3_600:], x[3_600:])
    assert is_finite(pool.states) and broken_rows(
        torch.tensor([[1.0, 2.0], [math.nan, 0.0], [math.inf, -math.inf]])
    ) == [1, 2]


def test_whatever_a_converter_says_leaves_within_full_scale() -> None:
    """Loud converters, the dry path, and what resampling swings beyond: at the session's door all
    of it ends.
    """
    x = np.sign(np.sin(np.arange(30_000) / 7)).astype(np.float32)
    for gain, wet in ((30.0, 1.0), (1.0, 0.0), (1.0, 0.5)):
        stream = Session(
            TorchBackend(DelayConverter(), 600),
            TestVoice(gain=gain),
            sample_rate=24_000,
            output_rate=44_100,
            wet=wet,
        )
        y = np.concatenate([stream.push(3 * x), stream.flush()])
        assert np.abs(y).max() == 1.0


def test_two_threads_in_one_stream_are_an_error_and_lose_nothing() -> None:
    inside, go = threading.Event(), threading.Event()

    class Slow(TorchBackend):
        def step(self, x: Tensor, voice: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
            inside.set()
            assert go.wait(120)
            return super().step(x, voice, state)

    x, parts = noise(3_000), list[np.ndarray]()
    stream = Session(Slow(DelayConverter(), 600), TestVoice(gain=1.0))
    thread = threading.Thread(target=lambda: parts.append(stream.push(x)))
    thread.start()
    assert inside.wait(120)
    for use in (
        lambda: stream.push(x),
        stream.flush,
        stream.reset,
        stream.park,
        lambda: stream.resume(b""),
    ):
        with pytest.raises(EngineError, match="got two in one stream"):
            use()
    stream.wet = 1.0  # controls may be turned from another thread
    go.set()
    thread.join()
    np.testing.assert_array_equal(np.concatenate([*parts, stream.flush()]), x)


def test_parked_bytes_with_impossible_values_are_refused() -> None:
    stream = Session(TorchBackend(DelayConverter(), 600), TestVoice(gain=1.0))
    stream.push(noise(3_000))
    good, other = stream.park(), Session(TorchBackend(DelayConverter(), 600), TestVoice(gain=0.5))
    stream._pitch = math.nan
    with pytest.raises(AudioError, match="pitch"):
        other.resume(stream.park())
    stream._pitch, stream.state = 0.0, torch.full_like(stream.state, math.nan)
    with pytest.raises(EngineError, match="expected a finite state"):
        other.resume(stream.park())
    assert other.pitch == 0.0 and is_finite(other.state)
    other.resume(good)
    assert np.isfinite(other.push(noise(3_000))).all()


def test_a_device_that_gives_nonsense_does_not_end_a_live_conversion() -> None:
    pump = Pump(
        Session(TorchBackend(DelayConverter(), 600), TestVoice(gain=1.0)), correct_drift=False
    )
    block = noise(3_000)
    block[100:103] = math.nan, math.inf, 1e9
    pump.capture(block, 0.0)
    heard, _ = pump.process(0.2)
    assert (
        pump.repaired == 3
        and np.isfinite(heard).all()
        and heard[100] == 0
        and heard[101] == heard[102] == 1
    )
