"""Scoring a file of predictions: means, rows with their scores, and every message of a bad file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loracle.errors import DataError, PlanError
from loracle.metrics import score_file as scoring
from loracle.metrics.score_file import FileScores, format_scores, score_file, to_json

ROWS = [
    {"id": "q1", "prediction": "Denver Broncos won", "answers": ["Denver Broncos", "Broncos"]},
    {"id": "q2", "prediction": "北京。", "answers": "北京"},
    {"id": "q3", "prediction": "", "answers": ["York"]},
]


def written(path: Path, *lines: object) -> Path:
    """`path` with one line for each text as it stands, and for each other value its JSON."""
    texts = (
        line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines
    )
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return written(tmp_path / "predictions.jsonl", *ROWS)


def problems_of(path: Path) -> tuple[str, ...]:
    with pytest.raises(DataError) as caught:
        score_file(path, ["em"])
    return caught.value.problems


def test_a_file_gets_the_means_of_its_rows(file: Path) -> None:
    scores = score_file(file, ["em", "f1"])
    assert scores.num_rows == 3
    assert scores.means == pytest.approx({"em": 1 / 3, "f1": (0.8 + 1 + 0) / 3})
    # One reference is Chinese, so the whole file is scored by characters.
    assert scores.scripts == {"spaced": 0, "characters": 3}


def test_each_row_is_written_with_its_scores(file: Path, tmp_path: Path) -> None:
    output = tmp_path / "rows" / "scored.jsonl"
    score_file(file, ["em", "squad_f1"], per_row=output)
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").split("\n")[:-1]]
    assert [row.pop("scores") for row in rows] == [
        {"em": 0.0, "squad_f1": pytest.approx(0.8)},
        {"em": 1.0, "squad_f1": 0.0},
        {"em": 0.0, "squad_f1": 0.0},
    ]
    assert rows == ROWS
    assert "北京" in output.read_text(encoding="utf-8")


def test_scores_of_an_earlier_scoring_are_replaced(file: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    score_file(file, ["em"], per_row=first)
    score_file(first, ["f1"], per_row=second)
    row = json.loads(second.read_text(encoding="utf-8").split("\n")[1])
    assert row["scores"] == {"f1": 1.0}


def test_half_a_surrogate_pair_survives_in_the_rows(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", r'{"prediction": "x\ud800", "answers": ["x"]}')
    score_file(path, ["em"], per_row=tmp_path / "b.jsonl")
    assert json.loads((tmp_path / "b.jsonl").read_bytes())["prediction"] == "x\ud800"


def test_a_line_separator_inside_a_text_does_not_end_the_row(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", {"prediction": "x\u2028y", "answers": ["x y"]})
    assert score_file(path, ["em"]).means == {"em": 1.0}


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"prediction": "x", "answers": ["x"]}\r\n\r\n')
    scores = score_file(path, ["em"])
    assert (scores.num_rows, scores.num_blank_lines) == (1, 1)


def test_blank_lines_are_counted_and_shown(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", "", ROWS[0], "  ", ROWS[1])
    scores = score_file(path, ["em"])
    assert (scores.num_rows, scores.num_blank_lines) == (2, 2)
    assert "over 2 rows" in format_scores(scores)
    assert "2 blank lines skipped" in format_scores(scores)


def test_a_missing_file_is_named_with_its_path_and_the_nearest_name(file: Path) -> None:
    missing = file.with_name("prediction.jsonl")
    (problem,) = problems_of(missing)
    assert problem == f"there is no file {missing}; did you mean {file}?"


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_a_file_without_rows_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(content)
    (problem,) = problems_of(path)
    assert problem.startswith(f"{path} has no rows; write one JSON object per line")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"prediction": "x", ', "bad JSON at column "),
        ("[" * 100_000, "bad JSON (maximum recursion"),
        ("9" * 5_000, "bad JSON (Exceeds the limit"),
        ("[1]", "found a list; expected an object with prediction and answers"),
        ({"answers": ["x"], "text": "x"}, "has no prediction (its keys: answers, text)"),
        ({"prediction": "x"}, "has no answers (its keys: prediction)"),
        ({}, "has no prediction (its keys: none); has no answers (its keys: none)"),
        ({"prediction": None, "answers": ["x"]}, "prediction must be text; found null"),
        ({"prediction": "x", "answers": 5}, "answers must be a list of texts or one text; found 5"),
        ({"prediction": "x", "answers": None}, "answers must be a list of texts or one text; foun"),
        ({"prediction": "x", "answers": {}}, "answers must be a list of texts or one text; found "),
        ({"prediction": "x", "answers": []}, "answers is empty; give at least one reference"),
        ({"prediction": "x", "answers": ["x", 7]}, "answers[1] must be text; found 7"),
    ],
)
def test_a_bad_row_is_named_with_file_and_line(tmp_path: Path, line: object, reason: str) -> None:
    path = written(tmp_path / "a.jsonl", ROWS[0], "", line, ROWS[1])
    (problem,) = problems_of(path)
    assert problem.startswith(f"{path}:3: {reason}")


def test_bytes_that_are_no_utf8_are_named_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"prediction": "x", "answers": ["x"]}\n{"prediction": "\xff"}\n')
    assert problems_of(path) == (f"{path}:2: byte 0xff is not UTF-8; save the file as UTF-8",)


def test_all_bad_rows_come_together_the_first_twenty_in_words(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", ROWS[0], *["{"] * 23)
    problems = problems_of(path)
    assert [problem.split(":")[1] for problem in problems[:20]] == [str(n) for n in range(2, 22)]
    assert problems[20:] == (f"{path}: and 3 more bad rows",)


def test_a_bad_row_leaves_an_earlier_output_as_it_was(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", ROWS[0], "{")
    output = written(tmp_path / "out.jsonl", "earlier")
    with pytest.raises(DataError):
        score_file(path, ["em"], per_row=output)
    assert output.read_text() == "earlier\n"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.jsonl", "out.jsonl"]


def test_a_failed_write_leaves_an_earlier_output_as_it_was(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = written(tmp_path / "out.jsonl", "earlier")

    def full_disk(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scoring, "write_atomically", full_disk)
    with pytest.raises(DataError, match=r"out\.jsonl cannot be written: No space left on device"):
        score_file(file, ["em"], per_row=output)
    assert output.read_text() == "earlier\n"


def test_the_scored_file_is_never_written_over(file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(DataError, match="is the file being scored; name another"):
        score_file(file, ["em"], per_row=file.parent / "." / file.name)
    assert file.read_bytes() == before


def test_a_folder_in_place_of_an_output_is_refused(file: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder; name a file for the rows"):
        score_file(file, ["em"], per_row=tmp_path)


def test_an_unreadable_file_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert problems_of(file) == (f"{file} cannot be read: Permission denied",)


def test_all_wrong_metrics_are_named_before_the_file_is_read(tmp_path: Path) -> None:
    with pytest.raises(PlanError) as caught:
        score_file(tmp_path / "missing.jsonl", ["squadf1", "answer_nll", "em", "em"])
    unknown, needs_model, twice = caught.value.problems
    assert unknown.startswith("there is no metric 'squadf1'; did you mean squad_f1?")
    assert needs_model.startswith("answer_nll needs the model's probabilities")
    assert twice == "metric em is named twice; name it once"


def test_no_metric_at_all_is_refused(file: Path) -> None:
    with pytest.raises(PlanError, match="no metric is named"):
        score_file(file, [])


SCORES = FileScores(
    "p.jsonl", 1301, 0, {"em": 0.5, "squad_f1": 2 / 3}, {"spaced": 1300, "characters": 1}
)


def test_the_terminal_shows_percent_rows_and_the_tokens_used() -> None:
    assert format_scores(SCORES).splitlines() == [
        "em         50.00",
        "squad_f1   66.67",
        "",
        "mean in percent over 1,301 rows of p.jsonl",
        "tokens of em: words on 1,300 rows, characters on 1 row",
    ]


def test_metrics_with_tokens_of_their_own_say_nothing_of_scripts() -> None:
    scores = FileScores("p.jsonl", 1, 0, {"squad_f1": 1.0}, {"spaced": 1, "characters": 0})
    assert format_scores(scores).splitlines() == [
        "squad_f1  100.00",
        "",
        "mean in percent over 1 row of p.jsonl",
    ]


def test_json_holds_the_means_in_full_precision() -> None:
    assert json.loads(to_json(SCORES)) == {
        "file": "p.jsonl",
        "num_rows": 1301,
        "num_blank_lines": 0,
        "means": {"em": 0.5, "squad_f1": 2 / 3},
        "scripts": {"spaced": 1300, "characters": 1},
        "unreadable": {},
        "num_unfinished": 0,
    }


def test_the_tokens_are_those_of_the_whole_file(tmp_path: Path) -> None:
    rows = ({"prediction": "1998年", "answers": ["1998"]}, {"prediction": "北", "answers": ["京"]})
    assert score_file(written(tmp_path / "a.jsonl", rows[0]), ["f1"]).means == {"f1": 0}
    assert score_file(written(tmp_path / "b.jsonl", *rows), ["f1"]).means == {"f1": 1 / 3}


def test_predictions_that_a_metric_cannot_read_are_counted(tmp_path: Path) -> None:
    rows = [{"prediction": text, "answers": ["B"]} for text in ("B", "no idea", "<think>Is it B")]
    path = written(tmp_path / "a.jsonl", *rows)
    scores = score_file(path, ["choice", "em"])
    assert scores.means == {"choice": 1 / 3, "em": 1 / 3}
    assert (scores.unreadable, scores.num_unfinished) == ({"choice": 1}, 1)
    text = format_scores(scores)
    assert "choice reads no letter in 1 prediction, scored 0" in text
    assert "1 prediction cut while the model was still reasoning: no answer, scored 0" in text


def test_references_that_a_metric_cannot_read_are_refused_with_their_lines(tmp_path: Path) -> None:
    rows = [{"prediction": "5", "answers": answers} for answers in (["5"], ["Denver"], ["x", "5"])]
    path = written(tmp_path / "a.jsonl", *rows)
    with pytest.raises(DataError) as caught:
        score_file(path, ["numeric"])
    assert caught.value.problems == (
        f"{path}:2: numeric reads no number in the answer 'Denver'; use another metric, or fix it",
    )


def test_reasoning_is_kept_in_the_rows_and_not_scored(tmp_path: Path) -> None:
    row = {"prediction": "<think>Lyon?</think>Paris", "answers": ["Paris"]}
    output = tmp_path / "scored.jsonl"
    metrics = ["em", "squad_em", "cmrc_f1"]
    means = score_file(written(tmp_path / "a.jsonl", row), metrics, per_row=output).means
    assert means == dict.fromkeys(metrics, 1)
    assert json.loads(output.read_bytes())["prediction"] == row["prediction"]
