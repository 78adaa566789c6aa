"""The documentation as a site: it builds with strict links, needs no network, and its pages read
well on a desk and on a phone."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import chromium

ROOT = Path(__file__).parent.parent
PAGES = ("index.html", "recipes/one_voice.html", "samples/index.html")
"""Those that are looked at: a first page, one with a wide table, and one with players."""
PICTURES = ROOT / "site" / "pictures"

pytestmark = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("mkdocs", "material", "mkdocstrings")),
    reason="the site's tools are not installed: pip install 'rtvc-engine[docs]', or make docs",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` does."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(folder)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


def test_every_page_of_the_documentation_is_in_the_site(site: Path) -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        place = site / page.relative_to(ROOT / "docs").with_suffix(".html")
        assert place.is_file(), f"{page.name} is not in the navigation's site"
        wanted = place.relative_to(site).as_posix()
        assert f'href="{wanted}"' in (site / "index.html").read_text(), f"nothing leads to {wanted}"


def test_the_search_works_from_a_folder(site: Path, browser: Any) -> None:
    """As after `make docs`, without a server."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    try:
        sheet = context.new_page()
        sheet.goto((site / "index.html").as_uri())
        sheet.locator("input.md-search__input").click()
        sheet.locator("input.md-search__input").press_sequentially("codebook")
        found = sheet.locator(".md-search-result__link").first
        found.wait_for(timeout=20_000)
        place = (found.get_attribute("href") or "").removeprefix("file://").partition("?")[0]
        assert "codebook" in Path(place.partition("#")[0]).read_text()
    finally:
        context.close()


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_pages_read_well_and_ask_no_network(
    site: Path, browser: Any, page: str, width: int, scheme: str, tmp_path: Path
) -> None:
    """Nothing sticks out sideways, tables and code scroll in themselves, every picture is there.
    With RTVC_PICTURES set their pictures are kept in site/pictures."""
    asked: list[str] = []
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    try:
        sheet = context.new_page()
        sheet.on("request", lambda request: asked.append(request.url))
        sheet.goto((site / page).as_uri())
        sheet.wait_for_load_state("networkidle")
        assert sheet.locator("h1").inner_text().strip("¶ \n")
        assert sheet.evaluate("document.documentElement.scrollWidth") <= width, "it sticks out"
        for selector in ("article .md-typeset__scrollwrap", "article pre"):
            for part in sheet.locator(selector).all():
                box = part.bounding_box()
                assert box is None or box["x"] + box["width"] <= width + 1, selector
        broken = "[...document.images].filter((i) => !i.naturalWidth).map((i) => i.src)"
        assert sheet.evaluate(broken) == []
        assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
        folder = PICTURES if os.environ.get("RTVC_PICTURES") else tmp_path
        folder.mkdir(parents=True, exist_ok=True)
        picture = folder / f"{Path(page).stem}-{width}-{scheme}.png"
        sheet.screenshot(path=picture)
        assert picture.stat().st_size > 10_000
    finally:
        context.close()
