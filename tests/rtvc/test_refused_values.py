"""A value that cannot be is refused with a word for it, the old one stays, and no stream is ever
silenced by one.
"""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from converters import DelayConverter, TestVoice, TinyConverter
from standins import TinyModel, WholeModel, speech
from torch import Tensor

from rtvc import checks
from rtvc.clients.control.speaking import stepped
from rtvc.converter import VoiceConverter
from rtvc.engine.backends.eager import TorchBackend
from rtvc.engine.streams.block import check_block
from rtvc.engine.streams.capacity import Capacity
from rtvc.engine.streams.chunker import Chunker
from rtvc.engine.streams.pool import Pool
from rtvc.engine.streams.resampler import Resampler
from rtvc.engine.streams.session import Session
from rtvc.errors import AudioError, ConfigError, RtvcError, VoiceError
from rtvc.models.streaming.interface import conditioned
from rtvc.models_by_name import load
from rtvc.stream_model import StreamModel
from rtvc.voices.voice import Voice
from tests.support.streams import noise, voice

IMPOSSIBLE: list[Any] = [
    math.nan,
    math.inf,
    -math.inf,
    1e6,
    "1",
    None,
    True,
    [1.0],
    1j,
    torch.tensor(1.0),
]
"""Values that no control takes."""


NO_PATHS: list[Any] = [None, 1, b"x", 1.5, ["a"], True]
"""What is neither a path nor a name."""


@pytest.fixture
def vc() -> VoiceConverter:
    return VoiceConverter(StreamModel(TinyModel().eval(), "tiny"))


@pytest.mark.parametrize("value", IMPOSSIBLE, ids=repr)
@pytest.mark.parametrize("control", ["pitch", "prosody", "wet"])
def test_a_refused_control_leaves_the_old_one_and_the_sound(
    vc: VoiceConverter, control: str, value: Any
) -> None:
    x, stream, plain = (
        noise(6_000),
        vc.stream(voice(), pitch=2, prosody=0.5, wet=0.75),
        vc.stream(voice(), pitch=2, prosody=0.5, wet=0.75),
    )
    first = stream.push(x)
    with pytest.raises(AudioError, match=r"expected a number from (-24 to 24|0 to 1) as"):
        setattr(stream, control, value)
    assert (stream.pitch, stream.prosody, stream.wet) == (2, 0.5, 0.75)
    wanted = np.concatenate([plain.push(x), plain.push(x), plain.flush()])
    np.testing.assert_array_equal(np.concatenate([first, stream.push(x), stream.flush()]), wanted)
    with pytest.raises(AudioError):
        vc.stream(voice(), **{control: value})
    if control != "wet":
        with pytest.raises(AudioError):
            vc.convert(speech(1.0), 16_000, voice(), **{control: value})
        pool = Pool(TorchBackend(TinyConverter(), 600), capacity=Capacity(0.025, {}, 4))
        with pytest.raises(AudioError):
            pool.join(TestVoice(1), **{control: value})
        assert not pool.sessions and not pool.join(TestVoice(1), **{control: 0.5}).done


def test_the_limits_themselves_are_taken(vc: VoiceConverter) -> None:
    stream = vc.stream(voice())
    for pitch in (-24, 24.0, np.float32(3), Fraction(1, 2)):
        stream.pitch = pitch  # type: ignore[assignment]
        assert stream.pitch == float(pitch)
    stream.prosody = stream.wet = np.int64(1)  # type: ignore[assignment]
    for control, outside in (
        ("pitch", 24.001),
        ("pitch", -25),
        ("prosody", -1e-9),
        ("wet", 1.0001),
    ):
        with pytest.raises(AudioError):
            setattr(stream, control, outside)


@pytest.mark.parametrize(
    "weights",
    [
        {},
        {"nan": math.nan},
        {"inf": math.inf},
        {"none": None},
        {"text": "1"},
        {"one": -1.0},
        {"zero": 0.0},
    ],
)
def test_a_mix_of_impossible_weights_leaves_the_old_voice(
    vc: VoiceConverter, weights: dict[str, Any]
) -> None:
    stream = vc.stream(voice())
    before = stream.chunker.voice
    with pytest.raises(VoiceError, match=r"expected finite weights, at least one above 0"):
        stream.mix({voice(index): weight for index, weight in enumerate(weights.values())})
    with pytest.raises(VoiceError, match="at least one above 0"):
        Voice.mix({voice(index): weight for index, weight in enumerate(weights.values())})
    assert stream.chunker.voice is before


@pytest.mark.parametrize(
    "wrong", ["r.flac", None, 3, {"acoustic": 1}, torch.zeros(128), np.zeros(128)], ids=repr
)
def test_what_is_no_voice_is_told_to_be_none(vc: VoiceConverter, wrong: Any) -> None:
    stream = vc.stream(voice())
    uses: list[Callable[[], Any]] = [
        lambda: vc.convert(speech(1.0), 16_000, wrong),
        lambda: vc.stream(wrong),
        lambda: stream.swap(wrong),
        lambda: stream.mix({"r.flac": 1.0}),  # type: ignore[dict-item]
    ]
    for use in uses:
        with pytest.raises(
            VoiceError,
            match=(
                r"a Voice\b.*: make one with"
                r" `vc\.voice\('reference\.wav'\)`"
            ),
        ):
            use()


def test_a_voice_that_comes_to_nan_is_refused_and_the_old_one_speaks_on() -> None:
    class Overflowing(DelayConverter):
        def condition(
            self, acoustic: Tensor, prosodic: Tensor, *, pitch: float = 0.0, prosody: float = 1.0
        ) -> Tensor:
            return super().condition(acoustic, prosodic, pitch=pitch, prosody=prosody) * 1e38

    huge = TestVoice(gain=30.0)
    with pytest.raises(VoiceError, match="comes to NaN or infinity"):
        conditioned(Overflowing(), huge)
    stream = Session(TorchBackend(Overflowing(), 600), TestVoice(gain=1e-38))
    with pytest.raises(VoiceError):
        stream.swap(huge)
    x = noise(3_000)
    np.testing.assert_allclose(np.concatenate([stream.push(x), stream.flush()]), x, rtol=1e-5)


BLOCKS: list[tuple[Any, str]] = [
    (np.array([0.0, np.nan], np.float32), "NaN or infinity"),
    (np.array([np.inf], np.float64), "NaN or infinity"),
    (np.full(480, 1e18, np.float32), r"reaches 1e\+18: divide 16-bit integers by 32768"),
    (np.full(480, 1e300), "reaches 1e"),
    (np.array([-4.01], np.float32), r"reaches 4\.01"),
    (noise(480) * 32768, "divide 16-bit integers"),
    (np.zeros(10, np.int16), "int16"),
    (np.zeros((2, 10)), "mono"),
    ([[1.0], [1.0, 2.0]], "pass an array of floats"),
    ("block", "expected a block of mono samples"),
    (None, "expected a block of mono samples"),
]


@pytest.mark.parametrize(("block", "why"), BLOCKS, ids=[why for _, why in BLOCKS])
def test_of_a_refused_block_nothing_was_heard(vc: VoiceConverter, block: Any, why: str) -> None:
    x, stream, plain = noise(6_000), vc.stream(voice()), vc.stream(voice())
    first = stream.push(x)
    with pytest.raises(AudioError, match=why):
        stream.push(block)
    with pytest.raises(AudioError):
        Pool(TorchBackend(TinyConverter(), 600), capacity=Capacity(0.025, {}, 4)).join(
            TestVoice(1)
        ).push(block)
    wanted = np.concatenate([plain.push(x), plain.push(x), plain.flush()])
    np.testing.assert_array_equal(np.concatenate([first, stream.push(x), stream.flush()]), wanted)


def test_tensors_are_blocks_and_loud_ones_pass() -> None:
    grown = torch.linspace(-4, 4, 100).requires_grad_()
    np.testing.assert_array_equal(check_block(grown), grown.detach().numpy())


@pytest.mark.parametrize("moment", [math.nan, math.inf, "now", True])
def test_times_that_are_none_are_refused(vc: VoiceConverter, moment: Any) -> None:
    stream = vc.stream(voice())
    for times in ({"captured": moment}, {"captured": 0.0, "now": moment}):
        with pytest.raises(AudioError, match="expected a finite number of seconds"):
            stream.push(noise(100), **times)


@pytest.mark.parametrize(
    "rate", [48_000, 48_000.0, np.float64(48_000), np.int32(48_000), Fraction(48_000)]
)
def test_whole_rates_of_any_type_are_rates(vc: VoiceConverter, rate: Any) -> None:
    x = noise(24_000)
    stream = vc.stream(voice(), sample_rate=rate, output_rate=rate)
    assert len(np.concatenate([stream.push(x), stream.flush()])) == len(x)
    assert len(vc.convert(x, rate, voice(), output_rate=rate)) == len(x)
    assert type(Resampler(rate, 24_000).rate_in) is int


@pytest.mark.parametrize(
    "rate", [44_100.5, "48000", math.nan, math.inf, 0, -1, True, [48_000], 10**9]
)
def test_other_rates_are_refused_everywhere(vc: VoiceConverter, rate: Any) -> None:
    x = speech(1.0)
    for use in (
        lambda: vc.stream(voice(), sample_rate=rate),
        lambda: vc.stream(voice(), output_rate=rate),
        lambda: vc.convert(x, rate, voice()),
        lambda: vc.convert(x, 16_000, voice(), output_rate=rate),
        lambda: vc.voice((x, rate)),
    ):
        with pytest.raises(
            RtvcError, match=r"a whole number from 4000 to|an array first, then its rate"
        ):
            use()


def test_callers_mistakes_say_what_to_pass(vc: VoiceConverter) -> None:
    x = speech(1.0)
    mistakes: list[tuple[Callable[[], Any], str]] = [
        (lambda: vc.voice(["a.wav"]), r"several are passed one by one, as in vc\.voice\(\*paths\)"),  # type: ignore[arg-type]
        (lambda: vc.voice((16_000, x)), "an array first, then its rate in Hz"),
        (lambda: vc.voice((x, 16_000, 1)), "an array first"),  # type: ignore[arg-type]
        (lambda: vc.voice(3), "as a reference, got 3"),  # type: ignore[arg-type]
        (lambda: vc.voice(timbre=3), "as a reference, got 3"),  # type: ignore[arg-type]
        (lambda: vc.voice((x, 16_000), fit=-1), "as `fit`, got -1"),
        (lambda: vc.voice((x, 16_000), fit=math.nan), "as `fit`, got nan"),  # type: ignore[arg-type]
        (lambda: vc.voice((x, 16_000), name=3), "as the name of a voice"),  # type: ignore[arg-type]
        (lambda: vc.convert("a.wav", 16_000, voice()), r"got the path a\.wav: read it first"),
        (lambda: vc.convert(None, 16_000, voice()), "expected .* samples"),
        (lambda: vc.convert([[1.0], [1.0, 2.0]], 16_000, voice()), "pass one array"),
        (lambda: vc.stream(voice(), chunk="600"), "as `chunk`, got '600'"),  # type: ignore[arg-type]
        (lambda: vc.stream(voice(), speed=2), "expected settings among backlog, .* got speed"),
        (lambda: vc.stream(voice()).mix([voice()]), "expected voices and their weights"),  # type: ignore[arg-type]
    ]
    for mistake, wanted in mistakes:
        with pytest.raises(RtvcError, match=wanted):
            mistake()


def test_models_of_whole_recordings_are_limited_as_well() -> None:
    class Blasting(WholeModel):
        def convert(
            self, wave: Tensor, acoustic: Tensor, prosodic: Tensor, *, pitch: float, prosody: float
        ) -> Tensor:
            return 200 * wave

    vc = VoiceConverter(Blasting())
    y = vc.convert(speech(2.0), 16_000, voice(), output_rate=44_100)
    assert 0.85 < np.abs(y).max() <= 1 and np.sqrt(np.mean(y**2)) > 0.05


def test_steps_of_the_pitch_end_at_the_limits() -> None:
    lowest, highest = checks.PITCH
    assert stepped("up", highest - 0.5) == stepped("up", highest) == highest
    assert stepped("down", lowest + 0.5) == stepped("down", lowest) == lowest
    assert stepped("up", 3.0) == 4.0 and stepped("down", 3.0) == 2.0 and stepped(7.5, 3.0) == 7.5


def test_a_line_takes_whole_float_rates() -> None:
    chunker = Chunker(24_000, 600, 0, torch.zeros(1, 1), rate_in=48_000.0, rate_out=44_100.0)
    assert chunker.exit.rate_out == 44_100


@pytest.mark.parametrize("value", NO_PATHS, ids=repr)
def test_what_is_no_path_is_refused_at_every_door(vc: VoiceConverter, value: Any) -> None:
    expected = "expected a path or a name as"
    if value is not None:  # which is the model that ships
        with pytest.raises(ConfigError, match=expected):
            load(value)
    with pytest.raises(VoiceError, match=expected):
        Voice.load(value)
    with pytest.raises(VoiceError, match=expected):
        voice().save(value)
    with pytest.raises(ConfigError, match=expected):
        vc.stream(voice(), backend=value)


@pytest.mark.parametrize("value", ["a", "25", True, [25], 1j], ids=repr)
def test_a_look_ahead_is_a_number(value: Any) -> None:
    with pytest.raises(ConfigError, match="expected milliseconds as the look-ahead"):
        load("stream", lookahead=value)
