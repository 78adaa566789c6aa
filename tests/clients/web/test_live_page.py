"""The page of `rtvc live` in real Chromium, against a real sound server: everything that it offers
is done with it while somebody speaks, and looked up where it matters."""

import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from browser import chromium, contrast

from rtvc.benchmarks.live.pulse import recorded, room
from tests.support import page as page_support
from tests.support.live_page import LIVE, Running

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("pulseaudio") is None,
        reason="PulseAudio is not installed: apt-get install pulseaudio",
    ),
]
pytest.importorskip("sounddevice", exc_type=(ImportError, OSError))
pytest.importorskip("aiohttp")
ROOT = Path(__file__).parents[3]
PICTURE = ROOT / "docs" / "live.png"
WAIT = 60_000  # milliseconds

SECOND = (
    "module-remap-source source_name=second master=room.monitor channels=1 channel_map=mono"
    " master_channel_map=front-left remix=no source_properties=device.description=Second"
)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("page")
    wave, rate = soundfile.read(ROOT / "examples" / "source.flac", dtype="float32")
    said = np.tile(soxr.resample(wave, rate, 48_000), 240)  # twenty minutes on a busy machine
    with room() as server:
        server.command("pactl", "load-module", *SECOND.split())
        code = LIVE.format(tests=str(ROOT / "tests" / "support"), takes=str(folder / "takes"))
        environment = {**os.environ, **server.environment, "XDG_RUNTIME_DIR": str(folder)}
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # where ALSA says what happens on a busy machine
            text=True,
        )
        player = server.say((0.4 * said / np.abs(said).max()).astype(np.float32))
        try:
            assert process.stdout is not None
            yield Running(server, process.stdout.readline().strip(), folder / "takes", environment)
        finally:
            for one in (process, player):
                one.terminate()
                one.wait(120)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@contextmanager
def opened(browser: Any, url: str, **settings: Any) -> Iterator[Any]:
    """The page, once it shows the conversion."""
    with page_support.opened(browser, url, wait=WAIT, console=False, **settings) as page:
        page_support.reach(page, "live")
        yield page


def shows(page: Any, expression: str) -> None:
    """Waits until it is true on the page, whose policy lets nothing be evaluated by itself."""
    for _ in range(300):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(100)
    raise AssertionError(expression)


def holds(running: Running, page: Any, **wanted: Any) -> None:
    """Waits until the conversion says so."""
    found: dict[str, Any] = {}
    for _ in range(300):
        found = running.status()
        if all(found[name] == value for name, value in wanted.items()):
            return
        page.wait_for_timeout(100)
    raise AssertionError({name: found[name] for name in wanted} | {"wanted": wanted})


def loudness(running: Running, page: Any, path: Path) -> float:
    """What is heard against what is said, over a second."""
    with running.server.recording(path):
        page.wait_for_timeout(2_500)
    said, heard = recorded(path)
    return float(np.sqrt(np.mean(np.square(heard)) / np.mean(np.square(said))))


def sounds(running: Running, page: Any, path: Path, wanted: float, *, within: float) -> None:
    """Waits until what is heard is as loud as it must become: on a busy machine some of it is lost
    and all of it late."""
    measured = [loudness(running, page, path)]
    while abs(measured[-1] - wanted) > within:
        assert len(measured) < 20, f"expected {wanted}, heard {measured}"
        measured.append(loudness(running, page, path))


def test_voices_sliders_and_switches_change_what_is_heard(
    running: Running, browser: Any, tmp_path: Path
) -> None:
    with opened(browser, running.url) as page:
        assert "token" not in page.url, "the key leaves the address at once"
        shows(page, "Number(document.getElementById('lag').textContent) > 40")
        shows(page, "document.getElementById('level-in').value > -50")
        sounds(running, page, tmp_path / "a", 1.0, within=0.25)
        page.get_by_role("radio", name="Ben").check()
        holds(running, page, voice="Ben")
        sounds(running, page, tmp_path / "b", 0.5, within=0.15)
        page.get_by_role("radio", name="Converted").focus()
        page.keyboard.press("ArrowRight")
        holds(running, page, bypass=True)
        page.keyboard.press("ArrowLeft")
        holds(running, page, bypass=False)
        page.locator("#pitch").focus()
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowLeft")
        holds(running, page, pitch=-2.0)
        assert page.inner_text("#pitch-now") == "-2 semitones"
        page.locator("#prosody").focus()
        page.keyboard.press("Home")
        holds(running, page, prosody=0.0)
        page.check("#mix")
        page.get_by_role("checkbox", name="Cleo").check()
        holds(running, page, voice={"Ben": 100, "Cleo": 100})
        page.uncheck("#mix")
        holds(running, page, voice="Ben")
        page.click("#mute")
        holds(running, page, muted=True)
        shows(page, "document.getElementById('mute').getAttribute('aria-pressed') === 'true'")
        page.click("#mute")
        for name in ("gate", "agc"):
            page.check(f"#{name}")
            holds(running, page, **{name: True})
            page.uncheck(f"#{name}")
            holds(running, page, **{name: False})
        assert page.is_disabled("#lookahead") and "one setting" in page.inner_text("body")


def test_noise_suppression_is_switched(running: Running, browser: Any) -> None:
    from rtvc.clients.input.suppressor import suppressor
    from rtvc.errors import DependencyError

    try:
        suppressor(48_000)
    except DependencyError as missing:
        pytest.skip(str(missing))
    with opened(browser, running.url) as page:
        before = running.status()["expected_ms"]
        page.check("#denoise")
        holds(running, page, denoise=True)
        assert running.status()["expected_ms"] > before
        page.uncheck("#denoise")
        holds(running, page, denoise=False, expected_ms=before)


def test_what_is_changed_elsewhere_is_shown(running: Running, browser: Any) -> None:
    """`rtvc control` finds the same conversion."""

    def control(*words: str) -> None:
        command = [sys.executable, "-c", "from rtvc.cli import main; raise SystemExit(main())"]
        subprocess.run([*command, "control", *words], env=running.environment, check=True)

    with opened(browser, running.url) as page:
        control("voice", "Cleo")
        shows(page, "document.querySelector('[name=voice]:checked').value === 'Cleo'")
        control("pitch", "-2")
        shows(page, "document.getElementById('pitch').value === '-2'")
        control("mix", "Anna:0.7", "Ben:0.3")
        shows(page, "document.getElementById('mix').checked")
        shows(page, "document.querySelectorAll('[name=voice]:checked').length === 2")
        control("voice", "Anna")
        shows(page, "!document.getElementById('mix').checked")


def test_devices_are_changed_while_somebody_speaks(
    running: Running, browser: Any, tmp_path: Path
) -> None:
    with opened(browser, running.url) as page:
        page.wait_for_selector("#input option[value='pulse:second']", state="attached")
        page.select_option("#input", "pulse:second")
        holds(running, page, input="pulse:second", state="running")
        sources = running.pactl("list", "short", "sources").splitlines()
        second = next(row.split("\t")[0] for row in sources if "\tsecond\t" in row)
        streams = running.pactl("list", "short", "source-outputs").splitlines()
        assert any(row.split("\t")[1] == second for row in streams), (sources, streams)
        page.select_option("#output", "pulse:speaker")
        holds(running, page, output="pulse:speaker", state="running")
        sounds(running, page, tmp_path / "a", 1.0, within=0.4)
        page.select_option("#monitor", "pulse:speaker")
        holds(running, page, monitor="pulse:speaker", state="running")
        page.wait_for_timeout(500)
        players = running.pactl("list", "sink-inputs").count('application.name = "rtvc"')
        assert players >= 2, "the loudspeaker and the monitor"
        page.select_option("#monitor", "off")
        holds(running, page, monitor=None, state="running")
        page.check("#virtual_mic")
        holds(running, page, virtual_mic=True, state="running")
        assert "rtvc_microphone" in running.pactl("list", "short", "sources")
        page.uncheck("#virtual_mic")
        holds(running, page, virtual_mic=False, state="running", output="pulse:speaker")
        assert "rtvc_microphone" not in running.pactl("list", "short", "sources")
        page.select_option("#input", "")
        page.select_option("#output", "")
        holds(running, page, input="", output="", state="running")


def test_recordings_and_voices_are_made(running: Running, browser: Any) -> None:
    def hasty(route: Any) -> None:
        response = route.fetch()
        text = response.text()
        assert "LISTEN_S = 10" in text
        route.fulfill(response=response, body=text.replace("LISTEN_S = 10", "LISTEN_S = 2"))

    with opened(browser, running.url) as page:
        page.click("#record")
        shows(page, "document.getElementById('recorded').textContent.includes('2 s')")
        page.click("#record")
        page.wait_for_selector("#record[aria-pressed=false]")
        conversion, source = sorted(running.takes.iterdir())
        lengths = [soundfile.info(path).frames for path in (conversion, source)]
        assert lengths[0] == lengths[1] > 2 * 48_000
        page.fill("#name", "Dora")
        page.set_input_files("#file", ROOT / "examples" / "reference.flac")
        shows(page, "document.querySelector('[name=voice]:checked')?.value === 'Dora'")
        page.context.route("**/desk.js", hasty)
        page.reload()
        page.wait_for_selector("#status[data-state=live]")
        page.fill("#name", "Emil")
        page.click("#listen")
        shows(page, "document.querySelector('[name=voice]:checked')?.value === 'Emil'")
        page.fill("#name", "Anna")
        page.set_input_files("#file", ROOT / "examples" / "reference.flac")
        shows(page, "document.getElementById('trouble').textContent.includes('take')")
        page.get_by_role("radio", name="Anna").check()
        holds(running, page, voice="Anna")


def test_without_the_key_nothing_is_shown(running: Running, browser: Any) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(running.base)
    page.wait_for_selector("text=it holds the key")
    assert page.get_attribute("#status", "data-state") == "away"
    context.close()
    request = urllib.request.Request(f"{running.base}/v1/status")
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(request, timeout=60)


def test_everything_is_reached_by_keyboard_and_has_a_name(running: Running, browser: Any) -> None:
    with opened(browser, running.url) as page:
        seen = list[str]()
        for _ in range(40):
            page.keyboard.press("Tab")
            focused = page.locator(":focus")
            if not focused.count():
                break
            seen.append(focused.evaluate("(e) => e.id || e.value || e.className"))
        order = ["skip", "wet", "mute", "record", "mix", "Anna", "pitch", "prosody", "name"]
        order += ["listen", "choose", "input", "output", "monitor", "virtual_mic", "gate"]
        order += ["denoise", "agc"]
        assert [name for name in seen if name in order] == order, seen
        for control in page.locator("button, input:not(#file), select, canvas, meter").all():
            labels = "[...(e.labels ?? [])].map((label) => label.innerText).join()"
            name = control.evaluate(
                f"(e) => e.getAttribute('aria-label') || {labels} || e.innerText"
            )
            assert name.strip(), control.evaluate("(e) => e.outerHTML")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_reads_well(running: Running, browser: Any, scheme: str) -> None:
    phone = {
        "viewport": {"width": 360, "height": 740},
        "color_scheme": scheme,
        "reduced_motion": "reduce",
    }
    with opened(browser, running.url, **phone) as page:
        assert page.locator("html").evaluate("(e) => e.scrollWidth") <= 360, "nothing sticks out"
        for selector in ("#status", ".hint", "#mute", "dt", ".either input:checked + span", "dd"):
            assert contrast(page, selector) >= 4.5, selector


def test_the_picture_of_the_docs(running: Running, browser: Any, tmp_path: Path) -> None:
    """With RTVC_PICTURES set the picture in the docs is made anew; it must show a conversion that
    runs."""
    path = PICTURE if os.environ.get("RTVC_PICTURES") else tmp_path / PICTURE.name
    wide = {"viewport": {"width": 1080, "height": 900}, "color_scheme": "light"}
    with opened(browser, running.url, **wide) as page:
        page.wait_for_timeout(25_000 if path == PICTURE else 1_000)  # a graph that is full
        shows(page, "document.getElementById('level-in').value > -35")
        shows(page, "document.getElementById('level-out').value > -35")
        page.screenshot(path=path, full_page=True)
    assert path.stat().st_size > 20_000
