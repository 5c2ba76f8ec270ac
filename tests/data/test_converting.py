"""`loracle convert`: any dataset as messages JSONL, and nothing left out silently."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from loracle.cli import app, main
from loracle.data.reading.dataset import read_dataset
from tests.data.files import lines, row, written

RUNNER = CliRunner()


def test_what_is_written_reads_back_as_the_same_examples() -> None:
    rows = [
        {
            "context": "Denver won.",
            "question": "谁赢了？",
            "answers": ["Denver", "丹佛"],
            "group": "g",
        },
        {"question": "Who?", "answer": "A"},
    ]
    before = read_dataset(written(lines(*rows), "a.jsonl")).examples

    result = RUNNER.invoke(app, ["convert", "a.jsonl", "--out", "b.jsonl"])

    assert result.exit_code == 0, result.output
    assert "a.jsonl: 2 rows of question_answer, JSONL" in result.output
    assert "2 rows written to b.jsonl" in result.output
    after = read_dataset("b.jsonl", strict=True)
    assert after.format == "messages"
    for old, new in zip(before, after.examples, strict=True):
        assert (new.id, new.conversation, new.references) == (
            old.id,
            old.conversation,
            old.references,
        )
        assert (new.group, new.context) == (old.group, old.context)
        assert new.question == old.question


def test_tools_and_calls_survive_the_conversion() -> None:
    chat = {
        "conversations": [
            {"from": "human", "value": "Weather?"},
            {
                "from": "function_call",
                "value": '{"name": "weather", "arguments": {"city": "Oslo"}}',
            },
            {"from": "observation", "value": "rain"},
            {"from": "gpt", "value": "It rains."},
        ],
        "tools": '[{"name": "weather"}]',
    }
    before = read_dataset(written(json.dumps([chat]), "a.json")).examples

    assert RUNNER.invoke(app, ["convert", "a.json", "--out", "b.jsonl"]).exit_code == 0

    assert [e.conversation for e in read_dataset("b.jsonl", strict=True).examples] == [
        e.conversation for e in before
    ]


def test_rows_left_out_are_listed_and_the_exit_code_says_so() -> None:
    written(lines(row(), {"messages": []}), "a.jsonl")

    result = RUNNER.invoke(app, ["convert", "a.jsonl", "--out", "b.jsonl"])

    assert result.exit_code == 1
    assert "left out: a.jsonl:2: no assistant turn" in result.output
    assert len(Path("b.jsonl").read_text().splitlines()) == 1


def run_main(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str]:
    monkeypatch.setattr("sys.argv", ["loracle", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    assert isinstance(caught.value.code, int)
    return caught.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.jsonl", "--out", "a.jsonl"], "error: a.jsonl is an input file; name another file"),
        (["bad.jsonl", "--out", "b.jsonl"], "error: bad.jsonl:1: no known format"),
        (["none.jsonl", "--out", "b.jsonl"], "error: there is no file none.jsonl"),
        (["a.jsonl", "--out", "no/b.jsonl"], "error: no/b.jsonl cannot be written: No such file"),
        (["a.jsonl", "--out", "b.jsonl", "--format", "chatml"], 'error: format: found "chatml"'),
        (["a.jsonl", "--out", "b.jsonl", "--column", "question"], "error: --column question: "),
        (["a.jsonl", "--out", "b.jsonl", "--column", "qestion=q"], "error: columns"),
        (["a.jsonl", "--out", "b.jsonl", "--encoding", "klingon"], "error: encoding: found"),
        (["a.jsonl", "--out", "b.jsonl", "--encoding", "hex"], "error: encoding: found"),
        (["a.jsonl", "--out", "b.jsonl", "--limit", "0"], "error: limit: found 0; expected"),
    ],
)
def test_what_cannot_be_converted_is_refused_and_leaves_no_file(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    written(lines(row()), "a.jsonl")
    written(lines({"x": 1}), "bad.jsonl")

    code, text = run_main(monkeypatch, capsys, "convert", *arguments)

    assert code == 2
    assert message in text
    assert sorted(path.name for path in Path().iterdir()) == ["a.jsonl", "bad.jsonl"]


def test_flags_say_how_a_dataset_is_read() -> None:
    written("query;response\n谁赢了？;丹佛\nx;y\n".encode("gb18030"), "a.csv")
    flags = ["--column", "question=query", "--column", "answer=response", "--encoding", "gb18030"]

    result = RUNNER.invoke(app, ["convert", "a.csv", "--out", "b.jsonl", "--limit", "1", *flags])

    assert result.exit_code == 0, result.output
    assert "1 row of question_answer, CSV with semicolons, gb18030" in result.output
    (line,) = Path("b.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["messages"][1]["content"] == "丹佛"
