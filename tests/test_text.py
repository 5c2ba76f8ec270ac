"""How numbers are written for people."""

from __future__ import annotations

import pytest

from loracle.metrics import METRICS
from loracle.text import (
    NOTHING,
    clock,
    count,
    counted,
    first_few,
    metric_name,
    metric_unit,
    on_scale,
    p_text,
    percent,
    shown_difference,
    shown_difference_zh,
    shown_interval,
    shown_score,
    size,
    without_repeats,
    wrapped,
)


@pytest.mark.parametrize(
    ("p", "text"), [(0.0004, "p < 0.001"), (0.0316, "p 0.032"), (0.5, "p 0.50"), (1.0, "p 1.00")]
)
def test_p_values_are_written_as_people_do(p: float, text: str) -> None:
    assert p_text(p) == text


def test_nats_are_no_points() -> None:
    assert shown_score("answer_nll", 2.5) == "2.500"
    assert shown_difference("answer_nll", -0.25) == "-0.250"
    assert shown_difference_zh("answer_nll", -0.25) == "-0.250"
    assert on_scale("answer_nll", 2.5) == 2.5
    assert [metric for metric in METRICS if metric_unit(metric) == "nats"] == ["answer_nll"]


def test_shares_are_written_in_points() -> None:
    assert shown_score("f1", 0.7812) == "78.1"
    assert shown_score("f1", 0.02, signed=True) == "+2.0"
    assert shown_difference("f1", -0.1) == "-10.0 points"
    assert shown_difference_zh("f1", 0.1) == "+10.0 分"
    assert shown_interval("f1", 0.704, 0.859) == "[70.4, 85.9]"
    assert shown_interval("f1", None, 0.859) == "[?, ?]"


def test_only_em_and_f1_are_written_in_capitals() -> None:
    assert [metric_name(name) for name in ("em", "f1", "rouge_l")] == ["EM", "F1", "rouge_l"]


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (10_234, "10.2 kB"),
        (5_400_000, "5.4 MB"),
        (1_234e9, "1,234.0 GB"),
        (None, NOTHING),
    ],
)
def test_sizes_are_written_with_their_unit(num_bytes: float | None, text: str) -> None:
    assert size(num_bytes) == text


def test_counts_and_shares_are_written_with_thousands_apart_and_a_dash_for_nothing() -> None:
    assert (count(12_345.4), count(None)) == ("12,345", NOTHING)
    assert (counted(1, "row"), counted(1200, "row")) == ("1 row", "1,200 rows")
    assert (percent(1, 8), percent(0, 0)) == ("12%", NOTHING)


def test_a_time_in_a_table_is_written_as_on_a_clock() -> None:
    assert [clock(seconds) for seconds in (5, 65.4, 3723, None)] == [
        "0:05",
        "1:05",
        "1:02:03",
        NOTHING,
    ]


@pytest.mark.parametrize(
    ("num", "expected"),
    [(0, ""), (1, "n0"), (3, "n0, n1, n2"), (4, "n0, n1, n2 and 1 more")],
)
def test_many_names_are_the_first_ones_and_a_count(num: int, expected: str) -> None:
    assert first_few([f"n{i}" for i in range(num)], 3) == expected
    assert first_few(["a"] * 2000, 1) == "a and 1,999 more"


def test_what_many_rows_share_is_said_once() -> None:
    shared = [f"a.csv:{line}: no answer: add one" for line in range(2, 9)]
    own = ["a.csv:9: bad", "a.csv: and 3 more", "a.csv:10: bad"]
    assert without_repeats([*shared, *own]) == [
        "a.csv:2: no answer: add one",
        "a.csv:3, a.csv:4, a.csv:5 and 3 more: the same",
        "a.csv:9: bad",
        "a.csv:10: bad",
        "a.csv: and 3 more",
    ]
    assert without_repeats(own[:1]) == own[:1]


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("one two three four", ["one two", "three four"]),
        ("- one two three", ["- one two", "  three"]),
        ("  one two three", ["  one two", "  three"]),
        ("a /a/long/path/stays b", ["a", "/a/long/path/stays", "b"]),
        ("共有十道题，其余一题相同。", ["共有十道", "题，其余", "一题相", "同。"]),
        ("", [""]),
    ],
)
def test_lines_break_between_words_and_between_chinese_characters(
    line: str, parts: list[str]
) -> None:
    width = 10 if line.isascii() else 8
    assert wrapped(line, width).split("\n") == parts
    assert wrapped(line, 1000) == line
