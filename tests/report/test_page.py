from __future__ import annotations

import base64
import dataclasses
import gzip
import hashlib
import html
import json
import random
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from loracle.errors import RunFolderError
from loracle.files import read_json, read_json_lines, write_json
from loracle.report import charts, drawing
from loracle.report.answers import pack_answers, split_prompt
from loracle.report.charts import LineRow, PointRow, Undrawn, estimates_chart, loss_chart, thinned
from loracle.report.page import build_page, with_code, write_report
from loracle.report.run_record import Turn, read_run
from loracle.report.sections import all_sections
from loracle.report.sections.lookup import Findings
from loracle.report.sections.words import quantile
from loracle.text import clock
from tests.report.runs import Shape, make_run

QUALITY = {"base": 0.2, "clean": 0.8, "noisy": 0.3}
ATTACK = '"><img src=x onerror=alert(1)></script><script>alert(2)</script>&lt;b&gt;'


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two candidates; tests do not change it."""
    return make_run(tmp_path_factory.mktemp("runs") / "demo", Shape(QUALITY))


@pytest.fixture
def own_run(tmp_path: Path) -> Path:
    """A run to change."""
    return make_run(tmp_path / "demo", Shape(QUALITY, num_questions=20))


class _Parsed(HTMLParser):
    """Tags, attributes and text of a page, as a browser would take them apart."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> Iterator[dict[str, str | None]]:
        return (attributes for name, attributes in self.tags if name == tag)


def files_of(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def unpacked(packed: str) -> dict[str, Any]:
    return dict(json.loads(gzip.decompress(base64.b64decode(packed))))


# The page as a file


def test_making_a_report_again_gives_the_same_bytes_and_touches_nothing_else(own_run: Path) -> None:
    before = files_of(own_run)
    path = write_report(own_run)
    first = path.read_bytes()
    write_report(own_run)
    assert path.read_bytes() == first
    after = files_of(own_run)
    assert after.pop(str(path))
    assert after == before


def test_the_decision_is_the_first_heading_in_both_languages(run: Path) -> None:
    page = build_page(read_run(run)).text
    sentence = read_json(run / "results.json")["decisions"][0]["sentence"]
    heading = re.search(r"<h1.*?</h1>", page, re.DOTALL)
    assert heading is not None
    assert [sentence["en"], sentence["zh"]] == re.findall(r"<span[^>]*>(.*?)</span>", heading[0])


def test_every_text_is_there_in_both_languages(run: Path) -> None:
    spans = list(_Parsed(build_page(read_run(run)).text).all("span"))
    english = sum(span.get("lang") == "en" for span in spans)
    chinese = sum(span.get("lang") == "zh-Hans" for span in spans)
    assert english == chinese > 100


def test_the_policy_allows_exactly_the_scripts_and_the_style_of_the_page(run: Path) -> None:
    page = build_page(read_run(run)).text
    policy = next(
        str(meta["content"])
        for meta in _Parsed(page).all("meta")
        if meta.get("http-equiv") == "Content-Security-Policy"
    )
    hashes = [
        "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"
        for text in re.findall(r"<(?:script|style)>(.*?)</(?:script|style)>", page, re.DOTALL)
    ]
    assert len(hashes) == 4
    assert all(found in policy for found in hashes)
    assert policy.count("sha256-") == len(hashes)
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none'")


def test_the_page_names_no_address_to_load_from(run: Path) -> None:
    parsed = _Parsed(build_page(read_run(run)).text)
    for tag, attributes in parsed.tags:
        for name in ("src", "href", "action", "data", "srcset", "style"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:,")), (tag, name, value)


def test_text_from_names_reasons_and_answers_never_becomes_a_tag(tmp_path: Path) -> None:
    root = make_run(
        tmp_path / "demo", Shape(QUALITY, num_questions=10), lambda row, example, chance: ATTACK
    )
    results = read_json(root / "results.json")
    results["ranking"][0]["reason"] = ATTACK
    results["decisions"][0]["sentence"] = {"en": ATTACK, "zh": ATTACK}
    write_json(root / "results.json", results)
    parsed = _Parsed(build_page(read_run(root)).text)
    assert list(parsed.all("img")) == []
    assert len(list(parsed.all("script"))) == 4
    assert "<img src=x onerror=alert(1)>" in parsed.text


def test_half_a_surrogate_pair_does_not_stop_the_report(own_run: Path) -> None:
    results = read_json(own_run / "results.json")
    results["decisions"][0]["sentence"]["en"] = "Use \ud83d"
    write_json(own_run / "results.json", results)
    assert "Use &#55357;" in write_report(own_run).read_text(encoding="utf-8")


def test_results_of_version_1_open_and_say_what_they_lack(own_run: Path) -> None:
    results = read_json(own_run / "results.json")
    for key in ("rule", "precision", "estimates", "comparisons", "decisions"):
        del results[key]
    write_json(own_run / "results.json", {**results, "version": 1})
    text = _Parsed(build_page(read_run(own_run)).text).text
    assert "No decision: these results have no intervals" in text
    assert "These results hold no comparisons" in text
    assert "Wins and losses" in text


def test_an_unfinished_run_is_refused_with_what_to_do(own_run: Path) -> None:
    (own_run / "results.json").unlink()
    with pytest.raises(
        RunFolderError, match=r"no results\.json: .*not finished; run `loracle resume"
    ):
        write_report(own_run)
    assert read_run(own_run, unfinished=True).results is None


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="not a run folder: it has no plan"):
        write_report(tmp_path)


def test_a_failed_candidate_stands_in_the_ranking_with_its_reason(tmp_path: Path) -> None:
    root = make_run(tmp_path / "demo", Shape(QUALITY, num_questions=20, failed=("noisy",)))
    text = _Parsed(build_page(read_run(root)).text).text
    assert "failed: step 3: the loss is nan" in text


def test_several_sets_and_seeds_have_a_decision_and_a_plot_each(tmp_path: Path) -> None:
    shape = Shape(QUALITY, num_questions=30, evaluations=("one", "two"), seeds=(0, 1))
    page = build_page(read_run(make_run(tmp_path / "demo", shape))).text
    # All sets, each of the two, the training curves; each for a screen and for a phone.
    assert page.count("<svg") == 8
    for words in ("All sets", "The decision on each set", "clean · seed 1"):
        assert words in page


# Answers


def test_packed_answers_are_the_run_s_predictions_and_scores(run: Path) -> None:
    packed = pack_answers(read_run(run))
    content = unpacked(packed.base64)
    (table,) = content["evaluations"]
    assert content["trials"] == ["base", "clean", "noisy"]
    rows = read_json_lines(run / "trials/noisy--s0/predictions/test.jsonl").rows
    scores = read_json_lines(run / "trials/noisy--s0/scores/test.jsonl").rows
    assert table["answers"][2]["texts"] == [row["prediction"] for row in rows]
    assert table["answers"][2]["scores"]["em"] == [row["em"] for row in scores]
    assert table["references"] == [row["answers"] for row in rows]
    first = table["passages"][table["passage"][0]]
    assert table["questions"][0].endswith("What is item 0?")
    assert "Passage 0: word" in first


def test_each_passage_is_packed_once() -> None:
    shared = Turn("user", "Context: A long passage.\nQuestion: Who?")
    other = Turn("user", "Context: A long passage.\nQuestion: When?")
    assert split_prompt([shared]) == ("Context: A long passage.", "Question: Who?")
    assert split_prompt([other])[0] == split_prompt([shared])[0]


def test_earlier_turns_stand_before_the_question_with_their_roles() -> None:
    turns = [Turn("system", "Be short."), Turn("user", "Text.\nWho?")]
    assert split_prompt(turns) == ("[system] Be short.\n\n[user] Text.", "Who?")


def test_what_does_not_fit_is_counted_and_said(run: Path) -> None:
    record = read_run(run)
    whole = pack_answers(record)
    part = pack_answers(record, max_bytes=len(whole.base64) // 2)
    assert len(part.base64) <= len(whole.base64) // 2
    assert 0 < part.num_shown < part.num_questions == whole.num_shown == 60
    (table,) = unpacked(part.base64)["evaluations"]
    assert len(table["ids"]) == part.num_shown == len(table["answers"][0]["texts"])
    assert max(table["passage"]) == len(table["passages"]) - 1


def test_questions_are_read_from_the_data_file_where_an_older_run_kept_none(own_run: Path) -> None:
    kept = read_run(own_run).questions("test")
    (own_run / "questions" / "test.jsonl").unlink()
    assert read_run(own_run).questions("test") == kept


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda path: path.write_text("{}\n"), "has changed since the run"),
        (lambda path: path.unlink(), "is no longer at the plan's path"),
    ],
)
def test_without_the_questions_the_page_says_why(own_run: Path, change: Any, reason: str) -> None:
    (own_run / "questions" / "test.jsonl").unlink()
    change(Path(read_run(own_run).plan["evaluation"][0]["path"]))
    assert reason in html.unescape(build_page(read_run(own_run)).text)


@pytest.mark.long
def test_twenty_thousand_predictions_stay_under_15_megabytes(tmp_path: Path) -> None:
    # Random letters are harder to compress than any text, and every question has its own passage.
    def answer(row: str, example: Any, chance: random.Random) -> str:
        return "".join(chance.choices("abcdefghijklmnopqrstuvwxyz ", k=80))

    shape = Shape(
        {"base": 0, "a": 0, "b": 0, "c": 0},
        num_questions=5000,
        questions_per_passage=1,
        passage_words=120,
        num_steps=20_000,
    )
    path = write_report(make_run(tmp_path / "demo", shape, answer))
    assert path.stat().st_size < 15_000_000
    (table,) = unpacked(pack_answers(read_run(path.parent)).base64)["evaluations"]
    assert sum(len(answers["texts"]) for answers in table["answers"]) == 20_000


# Charts


def test_these_tests_hold_every_part_of_a_chart_against_its_schema(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import altair as alt

    @charts._checked_or_not
    def wrong() -> alt.Axis:
        return alt.Axis(labelAngle="steep")

    with pytest.raises(alt.utils.schemapi.SchemaValidationError, match="labelAngle"):
        wrong()
    monkeypatch.setattr(charts, "CHECKED", False)
    assert wrong()


def test_charts_are_well_formed_and_hold_names_as_text_alone() -> None:
    drawn = [
        estimates_chart([PointRow("<script>&\"'", 0, "50.0", 50, 40, 60)]),
        estimates_chart([PointRow("base", None, "1.0", 1, None, None)]),
        loss_chart([LineRow("a", 0, [1, 2], [2.0, 1.0]), LineRow("b", 9, [1], [3.0])]),
    ]
    for chart in drawn:
        tags = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(chart).iter()}
        assert tags <= {"svg", "g", "path", "line", "text"}
    assert "&lt;script&gt;" in drawn[0]


@pytest.mark.parametrize("num_steps", [1, 3, 8, 50])
def test_the_axis_of_steps_has_whole_numbers(num_steps: int) -> None:
    steps = range(1, num_steps + 1)
    chart = loss_chart([LineRow("a", 0, steps, [1.0 / step for step in steps])])
    below = re.findall(r'text-anchor="middle"[^>]*>([^<]+)<', chart)
    assert below
    assert all(label.isdigit() for label in below)
    assert len(set(below)) == len(below)


def test_a_long_name_is_shortened_in_the_middle_of_a_chart() -> None:
    chart = estimates_chart([PointRow("first-" + "x" * 60 + "-last", 0, "1.0", 1, None, None)])
    assert re.search(r">first-x+…x+-last<", chart)


def test_thinned_points_are_means_of_neighbours() -> None:
    steps, values = thinned(range(1, 8), [1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 20.0], max_points=4)
    assert steps == [1.5, 3.5, 5.5, 7.0]
    assert values == [2.0, 6.0, 10.0, 20.0]
    assert thinned([1, 2], [4.0, 5.0]) == ([1, 2], [4.0, 5.0])


@pytest.fixture
def own_renderer() -> Iterator[None]:
    """The charts of this test are drawn by no process that other tests use."""
    token = drawing._child.set(None)
    yield
    drawing._child.reset(token)


@pytest.mark.usefixtures("own_renderer")
def test_a_renderer_that_dies_leaves_a_sentence_and_the_rest_of_the_report(
    run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # As under `ulimit -v`: the renderer aborts its process.
    dying = tmp_path / "dying.py"
    dying.write_text("import os, sys\nsys.stdin.readline()\nos.abort()\n")
    monkeypatch.setattr(drawing, "__file__", str(dying))
    page = build_page(read_run(run)).text
    assert "This chart could not be drawn" in page
    assert "it was killed by signal 6" in page
    assert "<figure" not in page
    assert 'id="cost"' in page


@pytest.mark.usefixtures("own_renderer")
def test_a_renderer_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hanging = tmp_path / "hanging.py"
    hanging.write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setattr(drawing, "__file__", str(hanging))
    monkeypatch.setattr(drawing, "_TIMEOUT_SECONDS", 0.2)
    found = loss_chart([LineRow("a", 0, [1, 2], [2.0, 1.0])])
    assert isinstance(found, Undrawn)
    assert "signal 9" in found.reason


@pytest.mark.usefixtures("own_renderer")
def test_all_charts_of_a_page_are_drawn_by_one_process(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    start = drawing._started
    monkeypatch.setattr(drawing, "_started", lambda: started.append(start()) or started[-1])
    assert build_page(read_run(run)).text.count("<figure") >= 2
    (process,) = started
    assert process.returncode == 0


@pytest.mark.usefixtures("own_renderer")
def test_pages_built_inside_one_drawing_share_its_process(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    start = drawing._started
    monkeypatch.setattr(drawing, "_started", lambda: started.append(start()) or started[-1])
    with drawing.drawing():
        pages = [build_page(read_run(run)).text for _ in range(2)]
        assert [process.returncode for process in started] == [None]
    assert [process.returncode for process in started] == [0]
    assert pages[0] == pages[1]


# Figures


def test_a_comparison_asked_for_the_other_way_is_turned_round(run: Path) -> None:
    findings = Findings(read_json(run / "results.json"))
    stored = findings.comparison("clean", "base", "f1", "test")
    turned = findings.comparison("base", "clean", "f1", "test")
    assert stored is not None
    assert turned is not None
    assert turned["difference"] == -stored["difference"]
    assert (turned["low"], turned["high"]) == (-stored["high"], -stored["low"])
    assert turned["num_a_better"] == stored["num_b_better"]
    assert turned["better"] == stored["better"] == "clean"


def test_quantiles_are_by_nearest_rank() -> None:
    assert quantile([5, 1, 3, 2, 4], 0.5) == 3
    assert quantile([1, 2], 0.5) == 1
    assert quantile(range(1, 11), 0.9) == 9
    assert quantile([], 0.5) is None


@pytest.mark.parametrize(
    ("seconds", "shown"), [(None, "–"), (0, "0:00"), (59.6, "1:00"), (3725, "1:02:05")]
)
def test_durations_are_shown_as_on_a_clock(seconds: float | None, shown: str) -> None:
    assert clock(seconds) == shown


# The data check

CHECK = {
    "datasets": [
        {
            "name": "clean",
            "kind": "candidate",
            "description": "JSONL, messages",
            "accounting": {
                "num_read": 1203,
                "num_kept": 1200,
                "shortened": [{}],
                "dropped_by_reason": {"no <answer>": 3},
                "languages": {"en": 0.9, "zh": 0.1},
            },
            "findings": [
                {
                    "kind": "duplicates",
                    "num_rows": 7,
                    "groups": [[{"id": "a", "file": "/data/clean.jsonl", "line": 4}]],
                }
            ],
            "problems": [
                {"severity": "warning", "message": "few rows", "fix": ""},
                {"severity": "gated", "message": "too many lost", "fix": "", "finding": ""},
                {"severity": "warning", "message": "rows: 7", "fix": "", "finding": "duplicates"},
            ],
        }
    ],
    "leakage": [
        {
            "candidate": "clean",
            "evaluation": "test",
            "leaks": [{"kind": "passage"}, {"kind": "passage"}],
            "leaked_ids": ["test-0", "test-1"],
            "clean_ids": [f"test-{number}" for number in range(2, 60)],
            "num_untried_pairs": 0,
        }
    ],
}


def test_the_data_check_is_shown_with_the_score_on_the_clean_questions(tmp_path: Path) -> None:
    # The two leaked questions are the only right ones.
    root = make_run(
        tmp_path / "demo",
        Shape({"base": 0, "clean": 0}),
        lambda row, example, chance: (
            example.references[0]
            if row == "clean" and example.id in ("test-0", "test-1")
            else "wrong"
        ),
    )
    assert "This run holds no data check" in build_page(read_run(root)).text
    write_json(root / "check.json", CHECK)
    record = read_run(root)
    found = all_sections(record)["data"]["audit"]["leakage"][0]
    assert (found["num_leaked"], found["share"]) == ("2", "3%")
    assert (found["full"], found["clean"]) == ("3.3", "0.0")
    text = _Parsed(build_page(record).text).text
    for words in ("1,203", "3 × no <answer>", "few rows", "clean.jsonl:4", "the same passage"):
        assert words in text
    # A finding stands in its own table alone, and red is what fails a candidate.
    assert "rows: 7" not in text
    page = build_page(record).text
    assert '<span class="reason">few rows</span>' in page
    assert '<span class="reason bad">too many lost</span>' in page


def test_a_recommended_candidate_that_knows_questions_is_warned_of_beside_the_decision(
    run: Path,
) -> None:
    record = dataclasses.replace(read_run(run), check=CHECK)
    page = build_page(record).text
    assert "clean shares text with 2 of 60 questions of test" in page.partition("<nav")[0]


def test_the_cost_shows_the_peak_memory_of_every_candidate(run: Path) -> None:
    record = read_run(run)
    found = all_sections(record)["cost"]
    assert {row["name"]: row["peak_memory"] for row in found["rows"]} == dict.fromkeys(
        QUALITY, "3.0 GB"
    )
    assert '<td class="n">3.0 GB</td>' in build_page(record).text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lower `training.batch_size`, run", "lower <code>training.batch_size</code>, run"),
        ("`a` and `b<i>`", "<code>a</code> and <code>b&lt;i&gt;</code>"),
        ("one ` alone, <b>", "one ` alone, &lt;b&gt;"),
        ("`split\nup`", "`split\nup`"),
    ],
)
def test_what_stands_between_backticks_is_shown_as_code(text: str, expected: str) -> None:
    assert with_code(text) == expected


def test_no_sentence_of_the_page_shows_a_backtick(own_run: Path) -> None:
    results = read_json(own_run / "results.json")
    assert "`" in json.dumps(results["read_first"])
    shown = re.sub(
        r"<script.*?</script>|<style.*?</style>",
        "",
        build_page(read_run(own_run)).text,
        flags=re.DOTALL,
    )
    assert "<code>" in shown
    assert "`" not in shown
