"""Real headless Chromium, driven by Playwright, with a file in place of the microphone."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WEB = Path(__file__).parents[2] / "clients" / "web"


def executable() -> str:
    """The browser; the test is skipped where there is none."""
    pytest.importorskip(
        "playwright", reason="Playwright is not installed: pip install 'rtvc-engine[test]'"
    )
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    return found


@contextmanager
def chromium(microphone: Path | None = None) -> Iterator[Any]:
    """A browser that hears a WAV file, over and over, when a page asks for the microphone, and
    allows it without asking."""
    path = executable()
    from playwright.sync_api import sync_playwright

    switches = [
        "--no-sandbox",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        "--autoplay-policy=no-user-gesture-required",
    ]
    if microphone is not None:
        switches.append(f"--use-file-for-fake-audio-capture={microphone}")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=path, args=switches)
        try:
            yield browser
        finally:
            browser.close()


WORKLET = """(text) => {
    globalThis.sampleRate = 48000; globalThis.currentTime = 0; globalThis.currentFrame = 0;
    globalThis.posted = [];
    globalThis.AudioWorkletProcessor = class {
        constructor() { this.port = { postMessage: (data) => posted.push(data) }; }
    };
    globalThis.made = null;
    globalThis.registerProcessor = (name, kind) => (globalThis.made = kind);
    (0, eval)(text);
}"""
"""Evaluated on an empty page: what an audio worklet finds around it, so that time can be
simulated."""


def worklet(browser: Any, name: str) -> Any:
    """A page in which the class of a worklet is `made`."""
    page = browser.new_page()
    page.evaluate(WORKLET, (WEB / f"{name}.worklet.js").read_text())
    return page


COLOURS = """(e) => {
    const opaque = (x) => {
        while (x && getComputedStyle(x).backgroundColor === 'rgba(0, 0, 0, 0)') x = x.parentElement;
        return getComputedStyle(x).backgroundColor;
    };
    return [getComputedStyle(e).color, opaque(e)];
}"""


def contrast(page: Any, selector: str) -> float:
    """WCAG 2.2, 1.4.3: the ratio of the colours of a text and of what is behind it."""
    ink, ground = page.locator(selector).first.evaluate(COLOURS)

    def luminance(colour: str) -> float:
        parts = np.array([float(part) for part in re.findall(r"[\d.]+", colour)[:3]]) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    light, dark = sorted((luminance(ink), luminance(ground)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
