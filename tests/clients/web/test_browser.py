"""The browser page in real headless Chromium, against a live server: what a person does with it,
and what comes out."""

from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from background import Route, thread_of
from browser import WEB
from converters import DelayConverter
from serving import gain_voice
from standins import speech

from rtvc.engine.backends.eager import TorchBackend
from rtvc.voices.voice import Voice
from tests.support.page import RATE, ROOT, converted, likeness, opened, page_of, reach, talk


@pytest.mark.slow
def test_real_speech_is_converted_as_it_is_offline(
    browser: Any, microphone: Path, tmp_path: Path
) -> None:
    """Must hold to the last bit: the shipped model, a voice made of a dropped reference, a
    microphone, and back."""
    from rtvc.engine.server.app import serving
    from rtvc.engine.server.service import Service
    from rtvc.engine.streams.capacity import Capacity
    from rtvc.engine.voices.store import VoiceStore
    from rtvc.models_by_name import load

    loaded = load()
    backend, store = (
        TorchBackend(loaded.model.converter, 1200),
        VoiceStore(tmp_path / "voices", loaded.model.space),
    )  # type: ignore[attr-defined]

    @asynccontextmanager
    async def serve() -> Any:
        service = Service(
            backend,
            store,
            lambda x, rate, name: loaded.voice((x, rate), name=name),
            capacity=Capacity(0.05, {}, 4),
        )
        async with serving(service, page=WEB) as port:
            yield f"http://127.0.0.1:{port}/"

    with thread_of(serve) as url, opened(browser, url) as page:
        reach(page, "ready")
        assert page.is_disabled("#go") and "No voice yet" in page.inner_text("#voices")
        page.fill("#name", "Anna")
        page.set_input_files("#file", ROOT / "examples" / "reference.flac")
        page.wait_for_selector("text=Anna can speak now")
        assert store.names() == ["Anna"] and page.get_by_role("radio", name="Anna").is_checked()
        said, heard, rate = talk(page, tmp_path, 4.5)
        assert len(heard) == len(said) > 4 * rate and rate == RATE
        assert float(page.inner_text("#lag")) > 50
        voice = Voice.load(tmp_path / "voices" / "Anna.voice")
        offline = converted(backend, voice, said, rate)
        assert np.abs(heard - offline).max() <= 1, (
            "the page heard what the engine makes of the same input"
        )
        spoken, _ = soundfile.read(microphone)
        alike = likeness(said / 32_768, np.tile(spoken, 2)), likeness(heard / 32_768, said / 32_768)
        assert alike[0] > 0.95 and alike[1] < 0.8, (
            "real speech was sent, and another voice came back"
        )
        assert np.abs(heard).max() > 1000


def test_original_and_converted(browser: Any, server: tuple[Any, str], tmp_path: Path) -> None:
    """A/B: the dry path is as late as the wet one; switching while speaking takes effect."""
    _, url = server
    backend = TorchBackend(DelayConverter(), 600)
    with opened(browser, url) as page:
        reach(page, "ready")
        page.get_by_role("radio", name="half").check()
        page.get_by_role("radio", name="Converted").focus()
        page.keyboard.press("ArrowRight")
        assert (
            page.get_by_role("radio", name="Original").is_checked()
            and page.inner_text("#speaking") == ""
        )
        said, heard, rate = talk(page, tmp_path, 1.6)
        assert np.abs(heard - converted(backend, gain_voice(0.5), said, rate, wet=0.0)).max() <= 1
        said, heard, rate = talk(
            page,
            tmp_path,
            2.4,
            lambda: page.get_by_role("radio", name="Converted").check(force=True),
        )
        dry, wet = (
            converted(backend, gain_voice(0.5), said, rate, wet=share) for share in (0.0, 1.0)
        )
        quarter = len(said) // 4
        assert (
            np.abs(heard[:quarter] - dry[:quarter]).max() <= 1
            and np.abs(heard[-quarter:] - wet[-quarter:]).max() <= 1
        )


def test_a_broken_connection_is_taken_up_again(
    browser: Any, server: tuple[Any, str], tmp_path: Path
) -> None:
    _, url = server

    @asynccontextmanager
    async def way() -> Any:
        async with Route(url.replace("http", "ws", 1)) as route:
            yield route

    def impatient(request: Any) -> None:
        text = (WEB / "connection.js").read_text()
        hasty = text.replace("DEAF_MS = 5000", "DEAF_MS = 400").replace(
            "PING_MS = 2000", "PING_MS = 100"
        )
        assert hasty != text
        request.fulfill(body=hasty, content_type="text/javascript")

    with thread_of(way) as route, opened(browser, page_of(route.url)) as page:
        page.context.route("**/connection.js", impatient)
        page.reload()
        reach(page, "ready")
        page.get_by_role("radio", name="half").check()

        def lose() -> None:
            route.open = False
            route.loop.call_soon_threadsafe(route.cut)
            reach(page, "waiting")
            page.wait_for_timeout(500)
            route.open = True
            page.wait_for_selector("text=Live again")

        def stall() -> None:
            route.stalled = True  # nothing breaks: the page has to notice by itself
            reach(page, "waiting")
            route.stalled = False
            page.wait_for_selector("text=Live again")

        def hold() -> None:
            route.stalled = True

        def lose_the_end() -> None:
            page.wait_for_timeout(300)
            route.open = False
            route.loop.call_soon_threadsafe(route.cut)
            page.wait_for_timeout(300)
            route.stalled, route.open = False, True

        for troubles in ((lose,), (stall,), (hold, lose_the_end)):
            said, heard, rate = talk(page, tmp_path, 2.0, *troubles)
            assert len(said) > 1.5 * rate, "what was said meanwhile is not lost"
            wanted = converted(TorchBackend(DelayConverter(), 600), gain_voice(0.5), said, rate)
            assert np.abs(heard - wanted).max() <= 1 and page.inner_text("#trouble") == ""


def test_a_phones_recording_becomes_a_voice(browser: Any, server: tuple[Any, str]) -> None:
    pytest.importorskip("av", reason="PyAV is not installed: pip install 'rtvc-engine[formats]'")
    from containers import contained

    with opened(browser, server[1]) as page:
        reach(page, "ready")
        assert "video/webm" in (page.get_attribute("#file", "accept") or "")
        page.fill("#name", "phone")
        data = contained(".m4a", speech(2.0, 48_000), 48_000)
        page.set_input_files("#file", {"name": "me.m4a", "mimeType": "audio/mp4", "buffer": data})
        page.wait_for_selector("text=phone can speak now")


def test_recording_a_reference_and_mixing(browser: Any, server: tuple[Any, str]) -> None:
    service, url = server
    with opened(browser, url) as page:
        reach(page, "ready")
        page.fill("#name", "Über mich!")
        page.click("#record")
        page.wait_for_timeout(2600)
        page.click("text=Finish")
        page.wait_for_selector("text=Über-mich can speak now")
        page.click("#record")
        page.wait_for_timeout(300)
        page.click("text=Finish")
        page.wait_for_selector("text=That was too short")
        page.set_input_files(
            "#file", {"name": "broken.wav", "mimeType": "audio/wav", "buffer": b"no audio" * 100}
        )
        page.wait_for_selector("text=cannot be used")
        page.check("#mix")
        page.get_by_role("checkbox", name="half").check()
        share = page.get_by_role("slider", name="Share of half in percent")
        share.focus()
        for _ in range(10):
            page.keyboard.press("ArrowLeft")
        page.click("#go")
        reach(page, "live")
        (call,) = service.sessions.values()
        assert page.inner_text("#speaking") == "Über-mich + half"
        page.get_by_role("checkbox", name="one", exact=True).check()
        page.wait_for_timeout(600)
        assert sorted(call.voice.replace("+", " ").split()) and "one" in call.voice
        page.uncheck("#mix")
        page.wait_for_timeout(600)
        assert call.voice == "Über-mich"
        page.locator("#pitch").focus()
        page.keyboard.press("ArrowRight")
        page.wait_for_timeout(600)
        assert page.inner_text("#pitch-now") == "+1 semitone" and call.pooled.pitch == 1.0
        page.click("#go")
        reach(page, "ready")
        assert not service.sessions
