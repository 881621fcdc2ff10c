"""The pages in a real browser: nothing said, nothing asked for, nothing cut off, words for every picture, no barrier."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.report import write
from tests.report import sample
from tests.report.browser import Browser, axe, chromium

MAKERS = {
    "released": sample.released,
    "rejected": sample.rejected,
    "inconclusive": sample.inconclusive,
    "waived": sample.waived,
    "bare": sample.bare,
}
SERIOUS = ("serious", "critical")
FIRST_SCREEN = 900


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    return {name: write(make(), folder / name) for name, make in MAKERS.items()}


def unfolded(browser: Browser) -> None:
    browser.run("document.querySelectorAll('details').forEach(one => one.open = true)")


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_said_asked_for_or_cut_off(browser, pages, name, width):
    browser.show(pages[name], width)
    unfolded(browser)
    assert browser.said == []
    assert browser.asked == [pages[name].as_uri()]
    assert browser.run("document.documentElement.scrollWidth") <= width


def test_a_page_that_does_all_of_it_is_caught(browser, tmp_path):
    path = tmp_path / "bad.html"
    path.write_text("<p style='width:2000px'>wide</p><img src='missing.png'><script>console.error('said')</script>")
    browser.show(path, 390)
    assert browser.said
    assert len(browser.asked) == 2
    assert browser.run("document.documentElement.scrollWidth") > 390


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_barrier(browser, pages, name, scheme):
    """Contrast of at least 4.5, headings in order, text alternatives, tables and landmarks: axe-core's rules."""
    source = axe()
    browser.show(pages[name], scheme=scheme)
    unfolded(browser)
    browser.run(source)
    assert serious(browser) == []
    order = browser.run("axe.run({runOnly: ['heading-order', 'color-contrast', 'svg-img-alt', 'page-has-heading-one']})")
    assert order["violations"] == []


def serious(browser: Browser) -> list[Any]:
    found = browser.run("axe.run()")["violations"]
    return [(one["id"], one["nodes"][0]["html"][:120]) for one in found if one["impact"] in SERIOUS]


def test_axe_finds_a_barrier_where_there_is_one(browser, pages, tmp_path):
    path = tmp_path / "grey.html"
    path.write_text(pages["released"].read_text().replace("--ink: #1d1c1a", "--ink: #cccccc"))
    browser.show(path)
    browser.run(axe())
    assert "color-contrast" in {rule for rule, _ in serious(browser)}


@pytest.mark.parametrize("name", ["released", "rejected", "inconclusive", "waived"])
def test_the_first_screen_holds_what_decides(browser, pages, name):
    browser.show(pages[name], height=FIRST_SCREEN)
    bottom = "element => element.getBoundingClientRect().bottom"
    assert browser.run(f"[...document.querySelectorAll('.brief, .gates')].map({bottom})").pop() < FIRST_SCREEN
    heights = browser.run("[...document.querySelectorAll('.gates tbody tr')].map(row => row.getBoundingClientRect().height)")
    assert max(heights) < 40, "a gate has one line"
    if name == "rejected":
        assert browser.run(f"({bottom})(document.querySelector('.mend'))") < FIRST_SCREEN / 2


def test_print_shows_what_is_folded(browser, pages):
    browser.show(pages["released"], 1000, media="print")
    assert browser.run("document.querySelector('.matrix').getBoundingClientRect().height") > 100
