"""Fuzzing of the readers: damaged files of every container give examples or a DataError.

    python -m tests.data.reading.fuzzing --seconds 600 --seed 1

A case is made of its number and the seed alone, so a failing one can be run again: --first N.
"""

from __future__ import annotations

import argparse
import faulthandler
import gzip
import io
import json
import random
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from loracle.data.converting import row_of
from loracle.data.reading.dataset import read_dataset
from loracle.data.reading.fields import columns_line
from loracle.data.reading.options import ReadOptions
from loracle.errors import DataError
from loracle.metrics.score_file import format_scores, score_file
from tests.data.files import lines, row, turn

QUESTIONS = [
    {"id": "a", "context": "Denver won.", "question": "Who won?", "answer": "Denver"},
    {"id": 7, "context": None, "question": "谁赢了？", "answer": "丹佛 \U0001f600"},
]
CHATS = [
    row(),
    {
        "messages": [
            turn("system", "Be brief."),
            turn("user", [{"type": "text", "text": "Weather?"}]),
            turn("assistant", None, tool_calls=[{"function": {"name": "f", "arguments": "{}"}}]),
            turn("tool", "rain"),
            turn("assistant", "It rains."),
        ],
        "tools": '[{"name": "f"}]',
    },
]
SHAREGPT = [
    {
        "conversations": [
            {"from": "human", "value": "Weather?"},
            {"from": "function_call", "value": '{"name": "f", "arguments": {"a": [1, 2.5]}}'},
            {"from": "observation", "value": ""},
            {"from": "gpt", "value": "Rain."},
        ],
        "system": "",
        "tools": "",
    }
]
ALPACA = [{"instruction": "a", "input": "", "output": "b", "history": [["c", "d"]]}]
CHOICES = [
    {"question": "Q?", "A": "x", "B": 2, "C": "", "answer": "B", "subject": "s"},
    {"article": "P.", "question": "Q?", "options": ["x", "y"], "answer": 1},
    {"question": "Q?", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "2"},
    {"question": "Q?", "options": {"A": "x", "B": "y"}, "answer": "y", "answer_idx": "B"},
    {"question": "Q?", "options": [{"key": "A", "text": "x", "correct": True}, "y"], "gold": "A"},
    {"question": "Q?", "choices.text": ["x", "y"], "choices.label": ["A", "B"], "label": 1},
    {"question": "Q?", "options": {"choices": ["x", "y"], "labels": [1, 0]}, "answer": "A|B"},
]
RACE = [{"article": "P.", "questions": ["Q?"], "options": [["x", "y"]], "answers": ["B"], "id": 1}]
MARKED = [
    {**row("a", "b"), "loss_mask": [0, 1], "label": True, "images": []},
    {
        "messages": [
            turn("user", "a", loss=False),
            turn("assistant", "b", weight=0),
            turn("user", [{"type": "text", "value": "c"}]),
            turn("assistant", 5, loss_weight=0.5),
        ],
        "system": "",
    },
]
CALLS = [
    {
        "messages": [
            turn("user", "<image>a"),
            turn("tool_call", '{"name": "f", "arguments": {}}', no_loss=True),
            turn("tool_response", "r"),
            turn("assistant", "<think>x", reasoning="r", ignore=False),
        ]
    }
]
TURNS_AND_TEXT = [{"prompt": [turn("user", "a")], "completion": "b", "label": 0}]
ALIASES = [
    {
        "question": "q",
        "answer": {"value": "x", "aliases": ["y", 5]},
        "context": [["a", 1], ["b", 2]],
    }
]
SHAPES = [
    {"question": ["q"], "answer": ["a"]},
    {"train": [{"question": "q"}]},
    row()["messages"][0],
]
PAIRS = [{"system": "S", "conversation": [{"human": "a", "assistant": "b"}] * 2}]
PREFERENCES = [{"prompt": "p", "chosen": "c", "rejected": "r"}, {"query": "p", "response": 1.5}]
PASSAGES = [
    {
        "question": "Q?",
        "documents": [{"title": "T", "paragraphs": ["p"]}],
        "answers": [True, 3],
        "passage": "T",
    },
    {"question": "Q?", "context": {"title": ["T"], "sentences": [["s"]]}, "answer": 7},
]
SQUAD = {
    "version": "v2.0",
    "data": [
        {
            "title": "t",
            "paragraphs": [
                {
                    "qas": [
                        {"id": "q", "question": "Who?", "answers": [{"text": "A"}]},
                        {"id": "r", "question": "Why?", "answers": [], "is_impossible": True},
                    ],
                    "context": "A won.",
                }
            ],
        }
    ],
}
CHOICE_CSV = 'question,options,answer,\nQ?,"[""x"", ""y""]",B,\n,,,\nQ?,"A. x\nB. y",A,\n'
CSV = 'id,question,answer\na,"Who, then?",A\nb,"two\nlines","say ""no"""\n'

# What breaks JSON, CSV and encodings; spliced into files at random.
_PIECES = (
    *(b"\0", b"\xff", b"\n", b"\r", b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":"),
    *(b"\xef\xbb\xbf", b"\xff\xfe", b"\xb0\xa1", b"\\ud83d", b"\\u0000"),
    *(b"NaN", b"-Infinity", b"1e999", b"null", b"true", b'""', b"[]", b"{}"),
    *(b"//", b"#", b"'", b"None", b'"weight":0,', b'"loss":false,', b'"label":false,'),
    *(b'"options":', b'"choices":', b'"A":', b'"answer":', b'"images":', b'"passage":', b'"id":'),
    *(b'"messages":', b'"question":', b'"role":"user"', b"9" * 5000, b"[" * 2000),
)


def _arrow(rows: list[dict[str, object]]) -> bytes:
    table, sink = pa.Table.from_pylist(rows), io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _arrow_file(rows: list[dict[str, object]]) -> bytes:
    table, sink = pa.Table.from_pylist(rows), io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _parquet(rows: list[dict[str, object]]) -> bytes:
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def _narrow_parquet() -> bytes:
    """A table with numbers of few bits, a dictionary, and a column of maps."""
    sink = io.BytesIO()
    columns = {
        "question": pa.array(["q", "r", None]).dictionary_encode(),
        "answer": pa.array([0.1, None, 3], pa.float32()),
        "meta": pa.array([[("k", "v")], None, []], pa.map_(pa.string(), pa.string())),
    }
    pyarrow.parquet.write_table(pa.table(columns), sink)
    return sink.getvalue()


# Files of predictions, as programs of evaluation write them.
PREDICTED = "predictions"
PREDICTIONS = (
    lines({"prediction": "B", "answers": ["B", "C"], "finish_reason": "length"}, {"prediction": 5}),
    lines({"prompt": "p", "predict": "<think>x</think>B", "label": "B"}),
    lines({"response": "B", "labels": "B", "messages": [turn("user", "a")]}),
    lines({"doc": {"a": 1}, "target": 5, "filtered_resps": ["B"]}, {"filtered_resps": [[0.5]]}),
    json.dumps({"0": {"origin_prompt": [{}], "prediction": "B", "gold": "B"}}, indent=1),
    json.dumps([{"prediction": ["B"], "references": ["B", 2.5]}]),
)


def good_files() -> list[tuple[str, bytes]]:
    """A file of every form and container, to be damaged."""
    chats = [row(), row("a", "b")]
    forms = (QUESTIONS, CHATS, SHAREGPT, ALPACA, CHOICES, RACE, MARKED, PAIRS, PREFERENCES)
    more = (PASSAGES, CALLS, TURNS_AND_TEXT, ALIASES)
    texts = [lines(*values).encode() for values in (*forms, *more)]
    squads = [json.dumps(SQUAD, indent=indent).encode() for indent in (None, 1)]
    arrays = [json.dumps(values, indent=1).encode() for values in (CHATS, SHAREGPT)]
    questions = [{**value, "id": str(value["id"])} for value in QUESTIONS]
    return [
        *(("a.jsonl", text) for text in texts),
        *(("a.json", text) for text in (*squads, *arrays)),
        ("a.jsonl", lines(*QUESTIONS).encode("utf-16")),
        ("a.jsonl.gz", gzip.compress(texts[0], mtime=0)),
        ("a.jsonl.zst", bytes(pa.Codec("zstd").compress(texts[1], asbytes=True))),
        ("a.csv", CSV.encode()),
        ("a.csv", CHOICE_CSV.encode()),
        ("a.tsv", CSV.replace(",", "\t").encode()),
        ("a.parquet", _parquet(questions)),
        ("a.parquet", _parquet(chats)),
        ("a.parquet", _narrow_parquet()),
        ("a.csv.gz", gzip.compress(CSV.encode(), mtime=0)),
        ("a.csv", CSV.encode("utf-16")),
        ("a.arrow", _arrow(questions)),
        ("a.arrow", _arrow_file(chats)),
    ]


def files_of_all_kinds() -> list[tuple[str, bytes]]:
    """Those, and files that are refused whole as they are."""
    shapes = (("a.jsonl", lines(shape).encode()) for shape in SHAPES)
    return [*good_files(), *shapes, ("a.xlsx", b"PK\x03\x04" + CSV.encode())]


def damaged(data: bytes, chance: random.Random) -> bytes:
    """The bytes with a few random changes: cut, doubled, replaced, spliced."""
    content = bytearray(data)
    for _ in range(chance.choice((0, 1, 1, 2, 3, 8))):
        at = chance.randrange(len(content) + 1)
        end = min(len(content), at + chance.choice((1, 1, 2, 8, 64)))
        action = chance.randrange(6)
        if action == 0:
            del content[at:]
        elif action == 1:
            del content[at:end]
        elif action == 2:
            content[at:at] = content[at:end]
        elif action == 3:
            content[at:end] = bytes(chance.randrange(256) for _ in range(end - at))
        elif action == 4:
            content[at:at] = chance.choice(_PIECES)
        elif at < len(content):
            content[at] ^= 1 << chance.randrange(8)
    return bytes(content)


_PLAIN = ReadOptions()
_CHOICE = ReadOptions(format="choice", columns={"answer": "completion", "context": "x"})
_NAMED = ReadOptions(
    columns={"answer": "answers", "context": "passage"}, ignore_columns=("images", "options")
)


def check(name: str, content: bytes, folder: Path, options: ReadOptions = _PLAIN) -> int:
    """Read a file; how many examples it gave. Raises AssertionError, or what the reader must not
    raise, where the promise is broken."""
    path = folder / name
    path.write_bytes(content)
    try:
        dataset = read_dataset(path, options)
    except DataError as error:
        _check_messages(error.problems, path)
        return 0
    assert dataset.num_rows == len(dataset.examples) + len(dataset.drops)
    for example in dataset.examples:
        assert example.conversation.messages[-1].role == "assistant"
        assert example.references
        # What is read can be written, and passed to any chat template.
        json.dumps(row_of(example), allow_nan=False, ensure_ascii=False).encode()
    for drop in dataset.drops:
        assert drop.problems
    assert len({example.id for example in dataset.examples}) == len(dataset.examples)
    assert columns_line(dataset.fields).encode() or not dataset.examples
    for note in dataset.notes:
        assert str(path) in str(note)
    return len(dataset.examples)


def check_predictions(content: bytes, folder: Path) -> int:
    """Score a file of predictions; how many rows it has. Raises as `check` does."""
    path = folder / "predictions.jsonl"
    path.write_bytes(content)
    try:
        scores = score_file(path, ["em", "f1", "choice", "numeric"], folder / "rows.jsonl")
    except DataError as error:
        _check_messages(error.problems, path)
        return 0
    assert all(0 <= mean <= 1 for mean in scores.means.values())
    assert format_scores(scores).encode()
    return scores.num_rows


def _check_messages(problems: tuple[str, ...], path: Path) -> None:
    assert all(str(path) in problem for problem in problems), problems
    assert all(len(problem) < 2000 for problem in problems), "a message of a page"
    assert "".join(problems).encode(), "a message that cannot be printed"


def case(files: list[tuple[str, bytes]], seed: int, number: int) -> tuple[str, bytes]:
    """The name and content of a case."""
    chance = random.Random(f"{seed}-{number}")
    if number % 7 == 6:
        return PREDICTED, damaged(chance.choice(PREDICTIONS).encode(), chance)
    name, data = chance.choice(files)
    return name, damaged(data, chance)


def run_case(name: str, content: bytes, folder: Path, number: int) -> int:
    """How many rows a case gave. Raises where the promise is broken."""
    if name == PREDICTED:
        return check_predictions(content, folder)
    options = {4: _NAMED, 9: _CHOICE}.get(number % 10, _PLAIN)
    return check(name, content, folder, options)


def main() -> None:
    """Run cases until the time is over, and say how many gave what."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    arguments = parser.parse_args()
    faulthandler.enable()
    files, number, num_read, slowest = files_of_all_kinds(), arguments.first, 0, (0.0, 0)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        while time.perf_counter() - started < arguments.seconds:
            name, content = case(files, arguments.seed, number)
            before = time.process_time()
            try:
                num_read += run_case(name, content, Path(folder), number) > 0
            except Exception:
                sys.stderr.write(f"case {number} of seed {arguments.seed}: {name}, {content!r}\n")
                raise
            slowest = max(slowest, (time.process_time() - before, number))
            number += 1
    sys.stdout.write(
        f"{number - arguments.first} cases in {time.perf_counter() - started:.0f} s, seed "
        f"{arguments.seed}: {num_read} gave examples, the others a DataError or none; the slowest "
        f"took {slowest[0]:.2f} s of processor time (case {slowest[1]})\n"
    )


if __name__ == "__main__":
    main()
