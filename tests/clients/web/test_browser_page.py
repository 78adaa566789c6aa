"""The page as a thing: who may open it and where, by keyboard, on a phone, and when it rests."""

import os
from pathlib import Path
from typing import Any

import pytest
from background import background
from browser import WEB, contrast
from certificates import certificate_in
from pydantic import SecretStr

from rtvc.engine.admission.access import Access
from rtvc.engine.server.app import secure
from tests.support.page import opened, page_of, reach

PICTURE = Path(__file__).parents[3] / "docs" / "browser.png"


def test_the_picture_of_the_docs(browser: Any, server: tuple[Any, str], tmp_path: Path) -> None:
    """With RTVC_PICTURES set the picture in the docs is made anew; it must show somebody who
    speaks."""
    path = PICTURE if os.environ.get("RTVC_PICTURES") else tmp_path / PICTURE.name
    wide = {"viewport": {"width": 1080, "height": 900}, "color_scheme": "light"}
    with opened(browser, server[1], reduced_motion="reduce", **wide) as page:
        reach(page, "ready")
        page.click("#go")
        reach(page, "live")
        page.wait_for_timeout(5_000 if path == PICTURE else 500)
        page.screenshot(path=path, full_page=True, timeout=90_000)
        page.click("#go")
    assert path.stat().st_size > 20_000


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
    certificate, key = certificate_in(tmp_path)
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
