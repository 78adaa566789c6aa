"""What a test does with the page of a server in a browser."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from rtvc.engine.streams.session import Session

ROOT = Path(__file__).parents[2]
WAIT = 20_000  # milliseconds
RATE = 44_100
"""Of the browser's stand-in for a sound card, in Hz."""


def page_of(url: str) -> str:
    """The page of the server with this websocket."""
    return url.replace("ws", "http", 1).removesuffix("v1")


@contextmanager
def opened(
    browser: Any, url: str, *, wait: int = WAIT, console: bool = True, **settings: Any
) -> Iterator[Any]:
    """The page at `url`, whose waits take `wait` milliseconds at most; nothing it does may end in
    an error, nor in the console, unless that is to be expected of what it is refused."""
    context = browser.new_context(**settings)
    page, problems = context.new_page(), list[str]()
    page.set_default_timeout(wait)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "console",
        lambda message: (
            problems.append(message.text) if console and message.type == "error" else None
        ),
    )
    page.goto(url)
    try:
        yield page
        assert not [text for text in problems if "WebSocket connection" not in text], problems
    finally:
        context.close()


def reach(page: Any, state: str) -> None:
    """Waits until the page says so."""
    page.wait_for_selector(f"#status[data-state={state}]")


def talk(
    page: Any,
    folder: Path,
    seconds: float,
    meanwhile: Any = lambda: None,
    afterwards: Any = lambda: None,
) -> tuple[np.ndarray, np.ndarray, int]:
    """Start, speak, Stop, save: what was said and what was heard, as 16-bit numbers, and their
    rate; nothing is left out."""
    page.check("#headphones")  # no echo cancellation: the microphone is heard as it is
    page.select_option(
        "#slow", "whole"
    )  # or a busy machine would leave stale audio out, as promised
    page.click("#go")
    reach(page, "live")
    page.wait_for_timeout(500 * seconds)
    meanwhile()
    page.wait_for_timeout(500 * seconds)
    page.click("#go")
    afterwards()
    page.wait_for_selector("#status[data-state=ready]", timeout=4 * WAIT)
    found = []
    for name in ("said", "heard"):
        with page.expect_download() as download:
            page.click(f"#save-{name}")
        assert download.value.suggested_filename == f"{name}.wav"
        download.value.save_as(folder / f"{name}.wav")
        samples, rate = soundfile.read(folder / f"{name}.wav", dtype="int16")
        found.append(samples.astype(np.int64))
    return found[0], found[1], rate


def converted(backend: Any, voice: Any, said: np.ndarray, rate: int, **settings: Any) -> np.ndarray:
    """What the engine makes of the same samples offline, as 16-bit numbers."""
    session = Session(backend, voice, sample_rate=rate, **settings)
    y = np.concatenate([session.push((said / 32_768).astype(np.float32)), session.flush()])
    return np.clip(np.rint(y * 32_768), -32_768, 32_767).astype(np.int64)


def likeness(a: np.ndarray, b: np.ndarray) -> float:
    """How well the loud half of 0.3 s stretches of `a` is found somewhere in `b`: the median of
    their largest normalised correlations."""
    length, size = 3 * RATE // 10, 1 << (len(b) + RATE).bit_length()
    spectrum, energy = np.fft.rfft(b, size), np.cumsum(np.concatenate([[0.0], np.square(b)]))
    norms = np.sqrt(
        np.maximum(energy[length:] - energy[:-length], 1e-3 * energy[-1] * length / len(b))
    )
    pieces = [a[at : at + length] for at in range(0, len(a) - length, length)]
    loud = sorted(pieces, key=lambda piece: -float(np.square(piece).sum()))[: len(pieces) // 2]
    found = [
        np.fft.irfft(spectrum * np.conj(np.fft.rfft(piece, size)), size)[: len(norms)]
        / norms
        / np.linalg.norm(piece)
        for piece in loud
    ]
    return float(np.median([piece.max() for piece in found]))
