"""A browser with a microphone, and a server with the page."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile
import soxr
from background import background
from browser import WEB, chromium

from tests.support.page import RATE, ROOT, page_of


@pytest.fixture(scope="module")
def microphone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the browser hears: real speech, as a WAV file."""
    wave, rate = soundfile.read(ROOT / "examples" / "source.flac")
    path = tmp_path_factory.mktemp("microphone") / "speech.wav"
    soundfile.write(path, soxr.resample(wave, rate, RATE), RATE, subtype="PCM_16")
    return path


@pytest.fixture(scope="module")
def browser(microphone: Path) -> Iterator[Any]:
    with chromium(microphone) as running:
        yield running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, str]]:
    """A server whose model gives back what it hears, times 1 (`one`) or 0.5 (`half`); with the
    page."""
    with background(tmp_path_factory.mktemp("voices"), page=WEB) as (service, url):
        yield service, page_of(url)
