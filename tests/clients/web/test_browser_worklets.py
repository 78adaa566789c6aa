"""The page's audio worklets under simulated time: what the capture end posts, and how the jitter
buffer plays."""

import base64
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from browser import chromium, worklet

RATE, QUANTUM, BLOCK = 48_000, 128, 480

PLAY = """([arrivals, quanta, chunk]) => {
    // arrivals: [quantum before which it comes, first sample's index]; blocks of 480 of a slow sine
    const player = new made({ processorOptions: { margin: 0.02 } });
    player.port.onmessage({ data: { chunk } });
    const out = new Float32Array(128 * quanta);
    for (let q = 0; q < quanta; q++) {
        globalThis.currentTime = (q * 128) / sampleRate;
        while (arrivals.length && arrivals[0][0] <= q) {
            const [, first] = arrivals.shift();
            const samples = Float32Array.from({ length: 480 },
                (_, i) => 0.5 * Math.sin((first + i) / 40));
            player.port.onmessage({ data: { samples, captured: first / sampleRate } });
        }
        player.process([], [[out.subarray(128 * q, 128 * (q + 1))]]);
    }
    const bytes = new Uint8Array(out.buffer), letters = [];
    for (let at = 0; at < bytes.length; at += 4096)
        letters.push(String.fromCharCode(...bytes.subarray(at, at + 4096)));
    const { underruns, dropped, margin, lag } = player;
    return { out: btoa(letters.join("")), underruns, dropped, margin, lag, reports: posted };
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


def played(
    browser: Any, arrivals: list[tuple[int, int]], seconds: float, chunk: float = 0.0
) -> dict[str, Any]:
    """What the player made of the blocks."""
    page = worklet(browser, "playback")
    found: dict[str, Any] = page.evaluate(PLAY, [arrivals, int(seconds * RATE / QUANTUM), chunk])
    page.close()
    found["out"] = np.frombuffer(base64.b64decode(found["out"]), np.float32)
    return found


def schedule(
    seconds: float, delay: float = 0.05, late: Any = lambda at: 0.0
) -> list[tuple[int, int]]:
    """A block every 10 ms, each `delay` after its capture plus what `late` says; never overtaking
    each other."""
    arrivals, latest = [], 0.0
    for first in range(0, int(seconds * RATE), BLOCK):
        latest = max(latest, (first + BLOCK) / RATE + delay + late(first / RATE))
        arrivals.append((int(np.ceil(latest * RATE / QUANTUM)), first))
    return arrivals


def steepest(out: np.ndarray) -> float:
    """The largest step between neighbouring samples; the sine's own is 0.0125."""
    return float(np.abs(np.diff(out)).max())


def test_even_audio_is_played_whole_without_a_click_and_its_age_is_known(browser: Any) -> None:
    found = played(browser, schedule(2.0), 2.0)
    assert found["underruns"] == 0 and found["dropped"] == 0
    begin = int(np.flatnonzero(found["out"])[0])
    sine = 0.5 * np.sin(np.arange(RATE) / 40)
    heard = found["out"][
        begin + 300 : begin + RATE - 1
    ]  # after the fade-in; what is not zero first is sample 1
    np.testing.assert_allclose(heard, sine[301:RATE], atol=1e-6)
    # 10 ms block + 50 ms way + 20 ms margin and at most a block and two quanta of waiting for it
    assert 0.080 <= found["lag"] <= 0.080 + (BLOCK + 2 * QUANTUM) / RATE
    assert found["lag"] == pytest.approx(begin / RATE, abs=QUANTUM / RATE)
    assert steepest(found["out"]) < 0.02


def test_audio_that_comes_in_chunks_begins_without_running_dry(browser: Any) -> None:
    """A server sends 50 ms at a time, the first piece shorter: the wait at the beginning covers the
    time between two chunks."""
    arrivals = [
        (int(np.ceil(((first // 2400 + 1) * 2400 / RATE + 0.06) * RATE / QUANTUM)), first)
        for first in range(960, 3 * RATE, BLOCK)
    ]
    eager, patient = (
        played(browser, list(arrivals), 3.0),
        played(browser, list(arrivals), 3.0, chunk=0.05),
    )
    assert eager["underruns"] >= 1 and patient["underruns"] == 0
    assert patient["lag"] < 0.06 + 0.05 + 0.02 + 0.03


def test_a_hole_in_the_network_is_a_fade_and_a_longer_margin(browser: Any) -> None:
    found = played(browser, schedule(3.0, late=lambda at: 0.12 if 1.0 <= at < 1.01 else 0.0), 3.0)
    assert found["underruns"] == 1
    assert found["margin"] > 0.025, "after running dry more audio waits"
    assert steepest(found["out"]) < 0.03, "silence begins and ends without a step"
    assert found["lag"] < 0.25


def test_what_jitter_left_over_is_dropped_and_the_lag_recovers(browser: Any) -> None:
    calm = played(browser, schedule(4.0), 4.0)
    burst = played(
        browser,
        schedule(4.0, late=lambda at: 0.8 * max(0.0, 1 - (at - 1.0) / 0.8) if at >= 1.0 else 0.0),
        4.0,
    )
    assert burst["underruns"] >= 1 and burst["dropped"] > 0.3 * RATE, (
        "an outage of 0.8 s comes back as a burst, which is stale"
    )
    assert burst["lag"] < calm["lag"] + 0.06
    assert steepest(burst["out"]) < 0.12, "the cut is a cross-fade"


def test_a_lasting_surplus_is_dropped_too(browser: Any) -> None:
    found = played(
        browser, schedule(4.0, delay=0.15, late=lambda at: -0.1 if at > 1.0 else 0.0), 4.0
    )
    assert 0.05 * RATE < found["dropped"] < 0.12 * RATE, (
        "the way became 100 ms shorter: so much waits for nothing"
    )
    assert found["underruns"] == 0
    assert found["lag"] < 0.13


def test_reports_come_ten_times_a_second(browser: Any) -> None:
    reports = played(browser, schedule(2.0, delay=0.2), 2.0)["reports"]
    assert len(reports) == pytest.approx(20, abs=1)
    assert set(reports[-1]) == {"lag", "level", "margin", "underruns", "dropped"}
    assert reports[0]["lag"] is None, "nothing sounds yet"
    assert reports[-1]["level"] == pytest.approx(0.02, abs=0.02)


def test_the_capture_end_cuts_blocks_and_flushes_the_last(browser: Any) -> None:
    page = worklet(browser, "capture")
    posted = page.evaluate("""() => {
            const capture = new made({ processorOptions: { block: 480 } });
            const feed = (count) => { for (let q = 0; q < count; q++) {
                capture.process([[Float32Array.from({ length: 128 },
                    (_, i) => (currentFrame + i) / 1e6)]]);
                currentFrame += 128;
            } };
            feed(2);
            capture.port.onmessage({ data: "start" });
            feed(10);
            capture.process([[]]);
            capture.port.onmessage({ data: "stop" });
            feed(3);
            return posted.map(({ samples, captured, done }) =>
                ({ samples: samples && [...samples], captured, done }));
        }""")
    *blocks, done = posted
    assert done["done"] and [len(block["samples"]) for block in blocks] == [480, 480, 320]
    heard = np.concatenate([block["samples"] for block in blocks])
    np.testing.assert_allclose(heard, np.arange(256, 256 + 1280) / 1e6, atol=1e-9)
    np.testing.assert_allclose(
        [block["captured"] * RATE for block in blocks], [256, 736, 1216], atol=1e-6
    )
