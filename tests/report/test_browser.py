"""The report in a real browser. Needs nothing but Chromium on the machine; skipped without it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from loracle.report.page import write_report
from tests.browser import Page, chromium_program, open_page
from tests.report.runs import Shape, make_run, right_or_wrong

PROGRAM = chromium_program()
pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="no chromium on this machine: the page is not looked at in a browser"
)

QUALITY = {"base": 0.2, "clean": 0.8, "noisy": 0.5}
ATTACKS = (
    "<script>document.title = 'owned'; alert(1)</script>",
    "<img src=x onerror=\"document.title = 'owned'\">",
    "</script></textarea></title><svg onload=alert(2)>",
    "<!-- <a href='javascript:alert(3)'>",
)
NUM_QUESTIONS = 400


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    assert PROGRAM is not None
    with open_page(PROGRAM, tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report whose first answers are attacks, alone in a folder."""
    folder = tmp_path_factory.mktemp("runs")
    usual = right_or_wrong(QUALITY)
    attacks = iter(ATTACKS * 3)
    root = make_run(
        folder / "demo",
        Shape(QUALITY, num_questions=NUM_QUESTIONS),
        lambda row, example, chance: (
            (next(attacks, None) if row == "noisy" else None) or usual(row, example, chance)
        ),
    )
    return Path(shutil.copy(write_report(root), folder / "report.html"))


@pytest.fixture
def page(browser: Page, report: Path) -> Page:
    """The report, freshly opened in English and light."""
    browser.resize(1280)
    browser.emulate_media()
    browser.complaints.clear()
    browser.open(report.as_uri())
    browser.evaluate("localStorage.clear()")
    browser.open(report.as_uri())
    browser.wait_for("document.getElementById('answers').dataset.ready")
    return browser


def shown(page: Page, selector: str) -> str:
    return str(page.evaluate(f"document.querySelector('{selector}').innerText"))


def click(page: Page, selector: str) -> None:
    page.evaluate(f"document.querySelector('{selector}').click()")


def choose(page: Page, part: str, label: str) -> None:
    page.evaluate(
        f"""(() => {{
          const field = document.querySelector('[data-part="{part}"]');
          field.value = [...field.options].find((option) => option.text === "{label}").value;
          field.dispatchEvent(new Event("change", {{bubbles: true}}));
        }})()"""
    )


def search(page: Page, text: str) -> None:
    page.type('[data-part="query"]', text)
    page.evaluate("new Promise((resolve) => setTimeout(resolve, 250))")


def count(page: Page, outcome: str) -> int:
    return int(page.evaluate(f"document.querySelector('[data-outcome={outcome}] b').textContent"))


def test_nothing_but_the_page_itself_is_asked_for_and_the_console_is_silent(
    page: Page, report: Path
) -> None:
    for outcome in ("a", "b", "both", "even", "all"):
        click(page, f"[data-outcome={outcome}]")
    assert set(page.requests) <= {report.as_uri(), "data:,"}
    assert page.complaints == []
    assert page.dialogs == []


def test_the_language_switches_and_stays(page: Page, report: Path) -> None:
    assert shown(page, "#ranking h2") == "Ranking"
    click(page, "[data-set-language=zh]")
    assert shown(page, "#ranking h2") == "排名"
    assert page.evaluate("document.documentElement.lang") == "zh-Hans"
    assert "问题" in page.evaluate("document.querySelector('[data-part=query]').placeholder")
    page.open(report.as_uri())
    assert shown(page, "#ranking h2") == "排名"


def test_the_theme_switches_and_follows_the_system_at_first(page: Page) -> None:
    def paper() -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    light = paper()
    page.emulate_media(dark=True)
    page.wait_for("document.documentElement.dataset.theme === 'dark'")
    dark = paper()
    assert dark != light
    click(page, "[data-set-theme=light]")
    assert paper() == light
    page.emulate_media()
    click(page, "[data-set-theme=dark]")
    assert paper() == dark
    page.emulate_media("print")
    assert paper() == light


def test_outcomes_add_up_and_filter_the_list(page: Page) -> None:
    outcomes = {name: count(page, name) for name in ("a", "b", "both", "even")}
    assert sum(outcomes.values()) == count(page, "all") == NUM_QUESTIONS
    assert min(outcomes.values()) > 0
    click(page, "[data-outcome=b]")
    size = "document.querySelector('.row').getAttribute('aria-setsize')"
    assert int(page.evaluate(size)) == outcomes["b"]
    first = page.evaluate("document.querySelector('.row').innerText")
    assert "✗" in first.split("✓")[0]


def test_two_other_candidates_and_another_metric_can_be_compared(page: Page) -> None:
    before = count(page, "a"), count(page, "b")
    choose(page, "a", "base")
    choose(page, "b", "clean")
    assert (count(page, "b"), count(page, "a")) == before
    choose(page, "metric", "EM")
    assert shown(page, "[data-part=head-a]") == "base"
    assert count(page, "all") == NUM_QUESTIONS


def test_the_search_finds_questions_answers_and_passages(page: Page) -> None:
    search(page, "item 17?")
    assert count(page, "all") == 1
    assert "What is item 17?" in shown(page, ".detail")
    search(page, "Passage 15:")
    assert count(page, "all") == 5
    search(page, "no such text")
    assert count(page, "all") == 0
    assert "No question matches" in shown(page, ".detail")


def test_planted_attacks_are_shown_as_text_and_do_nothing(page: Page) -> None:
    choose(page, "a", "noisy")
    for number, attack in enumerate(ATTACKS):
        search(page, f"item {number}?")
        page.evaluate("document.querySelector('.row').click()")
        text = page.evaluate("document.querySelector('.detail').textContent")
        assert attack in text
    inside = "document.querySelectorAll('#answers img, #answers script, #answers svg, #answers a')"
    assert page.evaluate(f"{inside}.length") == 0
    assert page.evaluate("document.title") != "owned"
    assert page.dialogs == []
    assert page.complaints == []


def test_the_list_is_walked_by_keys_and_holds_few_elements(page: Page) -> None:
    page.evaluate("document.querySelector('[data-part=list]').focus()")
    page.press("End")
    page.wait_for(
        f"document.querySelector('.detail').textContent.includes('item {NUM_QUESTIONS - 1}?')"
    )
    page.press("ArrowUp")
    page.wait_for(
        f"document.querySelector('.detail').textContent.includes('item {NUM_QUESTIONS - 2}?')"
    )
    assert page.evaluate("document.querySelectorAll('.row').length") < 40


def test_a_printed_page_has_a_part_of_the_answers_and_says_how_many(
    page: Page, tmp_path: Path
) -> None:
    page.pdf(tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    rows = "document.querySelectorAll('[data-part=print] tr').length"
    assert page.evaluate(rows) == 12
    assert page.evaluate("document.querySelector('[data-part=count]').textContent") == "12 / 400"
    assert page.evaluate("document.querySelector('.decision details').open") is True


def test_no_part_of_the_page_is_wider_than_a_small_window(page: Page) -> None:
    page.resize(390)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
