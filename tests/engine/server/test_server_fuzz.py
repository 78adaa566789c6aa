"""Whatever is sent, nothing breaks: hostile frames against both ends without sockets, and against a
live server."""

import asyncio
import random

import pytest
from fuzzing import Bytes, core, instrumented, live
from hostile_messages import Hostile
from hypothesis import given, settings
from hypothesis import strategies as st

from rtvc.engine.protocol.frames import parse
from rtvc.engine.protocol.messages import FROM_CLIENT, FROM_SERVER
from rtvc.engine.protocol.refusals import Violation, read_message
from rtvc.errors import ProtocolError


def test_a_hundred_thousand_hostile_frames_are_refused_or_heard():
    counts = core(random.Random(1), 100_000)
    assert sum(counts.values()) == 100_000
    assert min(counts.values()) > 1_000, counts  # every way out was taken often


def test_a_guided_run_sees_into_both_ends_and_the_parsers():
    seen = []
    assert instrumented(lambda function: seen.append(function.__qualname__) or function) > 50
    assert {"parse", "read_message", "ServerSide.receive", "ClientSide.receive"} <= set(seen)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=2_000))
def test_frames_made_of_any_bytes(data):
    core(Bytes(data), 1 + len(data) // 32)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=100))
def test_any_bytes_are_a_frame_or_an_error(data):
    try:
        assert parse(data).to_bytes() == data
    except ProtocolError as error:
        assert len(str(error)) < 200


@settings(max_examples=100, deadline=None)
@given(
    st.one_of(
        st.text(max_size=200),
        st.recursive(
            st.none() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
        ).map(str),
    )
)
def test_any_text_is_a_message_or_refused(text):
    for adapter in (FROM_CLIENT, FROM_SERVER):
        assert isinstance(read_message(text, adapter, 10_000), Violation)


@pytest.mark.slow
def test_a_live_server_under_attack_serves_the_others(tmp_path):
    counted = asyncio.run(live(tmp_path, 5_000))
    assert counted["frames"] >= 5_000 and counted["connections"] > 25


def test_the_frames_are_reproducible():
    first, second = (Hostile(random.Random(3)) for _ in range(2))
    assert [first.frame() for _ in range(500)] == [second.frame() for _ in range(500)]
