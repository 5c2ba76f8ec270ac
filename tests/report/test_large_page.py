"""The report of a large run, measured in a real browser; skipped without Chromium."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from loracle.report.page import write_report
from tests.browser import Page, chromium_program, open_page
from tests.report.large import CANDIDATES, make_large_run

PROGRAM = chromium_program()
pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="no chromium on this machine: the page is not looked at in a browser"
)

# What stands out on the right of the window. The inside of a box that scrolls by itself does not
# count.
WIDER_THAN_THE_PAGE = """
[...document.querySelectorAll("body *")].filter((element) => {
  if (element.closest(".scroll *, nav *, svg *, select *")) return false;
  return element.getBoundingClientRect().right > document.documentElement.clientWidth + 1;
}).map((element) => `${element.tagName} ${element.className}`)
"""
# Texts that their own box cuts: its letters are wider than it is.
CUT_TEXTS = """
[...document.querySelectorAll(".list-head span, h1, h2, h3, .read-first li, .tag, button")]
  .filter((element) => element.scrollWidth > element.clientWidth + 1 && element.clientWidth)
  .map((element) => element.textContent)
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    assert PROGRAM is not None
    folder = tmp_path_factory.mktemp("large")
    report = write_report(make_large_run(folder / "run"))
    with open_page(PROGRAM, folder / "profile") as page:
        page.open(report.as_uri())
        page.wait_for("document.getElementById('answers').dataset.ready")
        yield page


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("width", [390, 768, 1400])
def test_nothing_is_wider_than_the_page_or_cut(page: Page, width: int, language: str) -> None:
    page.resize(width)
    page.evaluate(f"document.querySelector('[data-set-language={language}]').click()")
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(WIDER_THAN_THE_PAGE) == []
    assert page.evaluate(CUT_TEXTS) == []


def test_on_a_screen_all_sections_are_in_sight_above_them(page: Page) -> None:
    page.resize(1400)
    page.evaluate("document.querySelector('[data-set-language=en]').click()")
    assert page.evaluate(
        "(() => { const nav = document.querySelector('nav'); "
        "return nav.scrollWidth <= nav.clientWidth; })()"
    )
    # A section without content has no entry.
    assert page.evaluate("document.querySelector('#foreseen, nav a[href=\"#foreseen\"]')") is None


def test_long_names_lose_their_middle_and_are_whole_in_the_ranking(page: Page) -> None:
    ranked = page.evaluate("document.querySelector('#ranking').textContent")
    assert all(name in ranked for name in CANDIDATES)
    head = page.evaluate("document.querySelector('[data-part=head-a]').textContent")
    assert head == "客服对话数据-2…洗去重-第二版 · seed 0"
    named = page.evaluate(
        "[...document.querySelectorAll('#cost tbody .name > :last-child')]"
        ".map((one) => [one.textContent, one.title])"
    )
    assert ["客服对话数据-2…洗去重-第二版", CANDIDATES[0]] in named
    assert ["base", ""] in named


def test_no_line_of_a_table_breaks_after_every_character(page: Page) -> None:
    page.resize(390)
    page.evaluate("document.querySelector('[data-set-language=zh]').click()")
    narrowest = page.evaluate(
        "Math.min(...[...document.querySelectorAll('.scroll thead th')]"
        ".map((one) => one.getBoundingClientRect().width).filter(Boolean))"
    )
    assert narrowest >= 36
