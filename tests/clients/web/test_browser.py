"""The browser page in real headless Chromium, against a live server: what a person does with it,
and what comes out."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from background import Route, background, thread_of
from browser import WEB, chromium, contrast
from converters import DelayConverter
from pydantic import SecretStr
from serving import gain_voice
from standins import speech

from rtvc.engine.admission.access import Access
from rtvc.engine.backends.eager import TorchBackend
from rtvc.engine.server.app import secure
from rtvc.engine.streams.session import Session
from rtvc.voices.voice import Voice

ROOT = Path(__file__).parents[3]
WAIT = 20_000  # milliseconds
RATE = 44_100
"""Of the browser's stand-in for a sound card, in Hz."""


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


def page_of(url: str) -> str:
    """The page of the server with this websocket."""
    return url.replace("ws", "http", 1).removesuffix("v1")


@contextmanager
def opened(browser: Any, url: str, **settings: Any) -> Iterator[Any]:
    """The page at `url`; nothing it does may end in an error in the console."""
    context = browser.new_context(**settings)
    page, problems = context.new_page(), list[str]()
    page.set_default_timeout(WAIT)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "console",
        lambda message: problems.append(message.text) if message.type == "error" else None,
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


def test_a_resting_page_connects_again_and_a_full_server_says_so(
    browser: Any, tmp_path: Path
) -> None:
    server = background(tmp_path, page=WEB, idle_s=0.8, rows=1)
    with (
        server as (service, url),
        opened(browser, page_of(url)) as first,
        opened(browser, page_of(url)) as second,
    ):
        for page in (first, second):
            page.wait_for_selector("text=Resting")
            assert page.inner_text("#trouble") == "" and page.is_enabled("#go")
        first.click("#go")
        reach(first, "live")
        second.click("#go")
        second.wait_for_selector("#trouble:has-text('try again later')")
        assert second.inner_text("#go-text") == "Start" and len(service.sessions) == 1
        first.click("#go")
        first.wait_for_selector("#go[aria-pressed=false]")
        second.click("#go")
        reach(second, "live")
        assert second.inner_text("#trouble") == ""
        second.click("#go")
        second.wait_for_selector("#go[aria-pressed=false]")


def test_a_token_is_asked_for_and_stays_out_of_the_address(browser: Any, tmp_path: Path) -> None:
    token = "correct-horse-battery"
    with (
        background(tmp_path, page=WEB, access=Access(SecretStr(token))) as (_, url),
        opened(browser, page_of(url)) as page,
    ):
        page.wait_for_selector("#door:visible")
        assert page.locator("#token").evaluate(
            "(field) => field === document.activeElement && field.type === 'password'"
        )
        page.keyboard.type("wrong-horse-battery")
        page.keyboard.press("Enter")
        page.wait_for_selector("#trouble:has-text('token')")
        page.fill("#token", token)
        page.keyboard.press("Enter")
        reach(page, "ready")
        assert (
            page.is_hidden("#door")
            and page.input_value("#token") == ""
            and page.inner_text("#trouble") == ""
        )
        assert page.url == page_of(url) and token not in page.content()
        page.reload()
        reach(page, "ready")


def test_it_works_behind_tls(browser: Any, tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the certificate, is not installed")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    made = [
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "1",
        "-keyout",
        key,
        "-out",
        certificate,
        "-subj",
        "/CN=localhost",
    ]
    subprocess.run(["openssl", *map(str, made)], check=True, capture_output=True)
    with background(tmp_path / "voices", page=WEB, tls=secure(certificate, key)) as (_, url):
        assert url.startswith("wss://")
        with opened(browser, page_of(url), ignore_https_errors=True) as page:
            reach(page, "ready")


def test_the_microphone_may_be_refused(browser: Any, server: tuple[Any, str]) -> None:
    with opened(browser, server[1]) as page:
        reach(page, "ready")
        page.add_init_script(
            "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('no',"
            " 'NotAllowedError'); };"
        )
        page.reload()
        reach(page, "ready")
        page.click("#go")
        page.wait_for_selector("text=The microphone was not allowed")
        assert (
            page.get_by_role("alert").inner_text()
            and page.is_enabled("#go")
            and page.inner_text("#go-text") == "Start"
        )


def test_everything_is_reached_by_keyboard_and_has_a_name(
    browser: Any, server: tuple[Any, str]
) -> None:
    with opened(browser, server[1]) as page:
        reach(page, "ready")
        seen = list[str]()
        for _ in range(40):
            page.keyboard.press("Tab")
            focused = page.locator(":focus")
            if not focused.count():
                break
            outline = focused.evaluate(
                "(e) => { const s = (x) => getComputedStyle(x); const of = e.closest('.either') ?"
                " e.nextElementSibling : e; return parseFloat(s(of).outlineWidth) *"
                " (s(of).outlineStyle !== 'none'); }"
            )
            assert outline >= 2, "the focus is visible"
            seen.append(focused.evaluate("(e) => e.id || e.value || e.className"))
        assert seen == [*dict.fromkeys(seen)], "no trap"
        order = [
            "skip",
            "go",
            "wet",
            "volume",
            "mix",
            "half",
            "pitch",
            "prosody",
            "name",
            "record",
            "choose",
            "source",
            "slow",
        ]
        assert [name for name in seen if name in order] == order and seen[-1] == "headphones", seen
        for control in page.locator("button, input:not(#file), select, canvas, progress").all():
            labels = "[...(e.labels ?? [])].map((label) => label.innerText).join()"
            name = control.evaluate(
                f"(e) => e.getAttribute('aria-label') || {labels} || e.innerText"
            )
            assert name.strip(), control.evaluate("(e) => e.outerHTML")
        page.locator("#go").focus()
        page.keyboard.press("Enter")
        reach(page, "live")
        assert page.get_attribute("#go", "aria-pressed") == "true"
        page.keyboard.press("Space")
        reach(page, "ready")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_reads_well(browser: Any, server: tuple[Any, str], scheme: str) -> None:
    # Without motion: a button that has just been enabled is measured in its own colours, not half
    # way between two.
    phone = {
        "viewport": {"width": 360, "height": 740},
        "color_scheme": scheme,
        "reduced_motion": "reduce",
    }
    with opened(browser, server[1], **phone) as page:
        reach(page, "ready")
        assert page.locator("html").evaluate("(e) => e.scrollWidth") <= 360, "nothing sticks out"
        for selector in (
            "#status",
            ".hint",
            "#go",
            "dt",
            ".either input:checked + span",
            ".lane-name",
        ):
            assert contrast(page, selector) >= 4.5, selector
