"""Bad input: one message with file and line, what was found and what to do; the other rows stay."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest

from loracle.data.reading.dataset import Reading, read_dataset
from loracle.data.reading.options import ReadOptions
from loracle.data.reading.rows import MAX_ROW_BYTES
from loracle.errors import DataError
from tests.data.files import lines, read, read_rows, refused, row, turn, written

GOOD = json.dumps(row())


def messages(*roles_and_texts: tuple[str, str]) -> dict[str, object]:
    return {"messages": [turn(role, text) for role, text in roles_and_texts]}


USER, REPLY, SYSTEM = ("user", "a?"), ("assistant", "b"), ("system", "c")

ORDER = "roles in the wrong order"
BAD_ROWS = [
    (
        "NUL byte in the line",
        '{"a"\0: 1}',
        "not JSON",
        "found a NUL byte at column 5; the file is damaged, or UTF-16",
    ),
    (
        "NUL character in a text",
        json.dumps(row("a\0b")),
        "NUL or half of a surrogate pair",
        "messages[0].content has a NUL character (\\u0000); remove it",
    ),
    (
        "half of a surrogate pair",
        '{"messages": [{"role": "user", "content": "\\ud83d"}]}',
        "NUL or half of a surrogate pair",
        "messages[0].content has half of a surrogate pair",
    ),
    (
        "Latin-1",
        b'{"a": "caf\xe9"}',
        "not in the file's encoding",
        "byte 11 of the line, 0xe9, is not UTF-8; save the file as UTF-8",
    ),
    (
        "GBK",
        '{"a": "谁赢了这场比赛"}'.encode("gbk"),
        "not in the file's encoding",
        "is not UTF-8; it could be GBK: save the file as UTF-8, or name its encoding (encoding: "
        "gb18030)",
    ),
    (
        "deep nesting",
        '{"a": ' + "[" * 200_000,
        "not JSON",
        "bad JSON (nested too deeply); a line must be one whole JSON object",
    ),
    (
        "deep nesting that parses",
        json.dumps(row(tools=[{"name": "f", "x": json.loads("[" * 80 + "]" * 80)}])),
        "field of the wrong kind",
        "is nested more than 64 deep; flatten it",
    ),
    (
        "NaN in a field that is used",
        '{"messages": [{"role": "user", "content": NaN}]}',
        "field of the wrong kind",
        "messages[0].content is NaN; expected text",
    ),
    (
        "Infinity in a field that is used",
        '{"messages": -Infinity}',
        "field of the wrong kind",
        "messages is -Infinity; expected a list of turns",
    ),
    (
        "key given twice",
        '{"messages": [], "messages": []}',
        "key given twice",
        "the key 'messages' appears twice in one object; keep one",
    ),
    (
        "key given twice in a turn",
        '{"messages": [{"role": "user", "role": "user"}]}',
        "key given twice",
        "the key 'role' appears twice",
    ),
    (
        "object where a list is due",
        '{"messages": {"role": "user"}}',
        "field of the wrong kind",
        "messages is an object; expected a list of turns",
    ),
    (
        "list where an object is due",
        "[]",
        "field of the wrong kind",
        "found a list; expected a row like ",
    ),
    (
        "no assistant turn",
        json.dumps(messages(USER)),
        "no assistant turn",
        "no assistant turn; the last message must be the assistant's reply",
    ),
    ("system only", json.dumps(messages(SYSTEM)), "no assistant turn", "no assistant turn; "),
    ("no turn at all", '{"messages": []}', "no assistant turn", "no assistant turn; "),
    (
        "ends with the user",
        json.dumps(messages(USER, REPLY, USER)),
        ORDER,
        "the last turn is 'user'; end the row with the assistant's reply",
    ),
    (
        "assistant first",
        json.dumps(messages(REPLY, USER, REPLY)),
        ORDER,
        "turn 1 of 3 is 'assistant' before any user turn; a user turn must come first",
    ),
    (
        "assistant after system",
        json.dumps(messages(SYSTEM, REPLY, USER, REPLY)),
        ORDER,
        "turn 2 of 4 is 'assistant' before any user turn",
    ),
    (
        "two user turns",
        json.dumps(messages(USER, USER, REPLY)),
        ORDER,
        "turn 2 of 3 is 'user' as is the turn before it; join the two, or leave the row out",
    ),
    (
        "two replies",
        json.dumps(messages(USER, REPLY, REPLY)),
        ORDER,
        "turn 3 of 3 is 'assistant' as is the turn before it",
    ),
    (
        "system in the middle",
        json.dumps(messages(USER, SYSTEM, REPLY)),
        ORDER,
        "turn 2 of 3 is 'system' after 'user'; the system turn must come first",
    ),
    (
        "tool after user",
        json.dumps(messages(USER, ("tool", "x"), REPLY)),
        ORDER,
        "turn 2 of 3 is 'tool' after 'user'; a tool answers the assistant's call",
    ),
    (
        "empty user turn",
        json.dumps(messages(("user", ""), REPLY)),
        "empty text",
        "messages[0] is an empty user turn; fill it or leave the row out",
    ),
    (
        "white space for a reply",
        json.dumps(messages(USER, ("assistant", " \n\t\u3000"))),
        "empty text",
        "messages[1] is an empty assistant reply",
    ),
]


@pytest.mark.parametrize(
    ("line", "reason", "message"),
    [pytest.param(*case, id=name) for name, *case in BAD_ROWS],
)
def test_a_bad_row_is_dropped_with_its_reason_and_the_others_stay(
    line: str | bytes, reason: str, message: str
) -> None:
    raw = line.encode() if isinstance(line, str) else line
    content = b"\n".join([GOOD.encode(), raw, GOOD.encode()])

    dataset = read(content)

    assert [value.line for value in dataset.examples] == [1, 3]
    assert dataset.num_dropped == {reason: 1}
    (drop,) = dataset.drops
    (problem,) = drop.problems
    assert problem.startswith("rows.jsonl:2: ")
    assert message in problem
    assert refused(content) == (problem,)


def test_a_truncated_last_line_is_called_that() -> None:
    cut = GOOD[: len(GOOD) // 2]
    (problem,) = refused(f"{GOOD}\n{cut}")
    assert problem.startswith("rows.jsonl:2: the file ends inside this row (bad JSON at column ")
    assert problem.endswith("; copy the whole file again")
    # With a line below it, the row is broken and the file is not.
    assert "the file ends" not in refused(f"{GOOD}\n{cut}\n{GOOD}\n")[0]


def test_a_line_of_50_mb_is_skipped_and_not_held() -> None:
    with Path("rows.jsonl").open("w") as file:
        file.write(f'{GOOD}\n{{"messages": "')
        for _ in range(50):
            file.write("x" * 10**6)
        file.write(f'"}}\n{GOOD}\n')

    tracemalloc.start()
    dataset = read_dataset("rows.jsonl")
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert [value.line for value in dataset.examples] == [1, 3]
    assert dataset.drops[0].problems == [
        "rows.jsonl:2: the row has 48 MiB, the limit is 16 MiB; split it into rows, or leave it out"
    ]
    assert peak_bytes < 3 * MAX_ROW_BYTES


def test_a_row_of_50_mb_in_an_array_ends_the_reading_in_words() -> None:
    text = f'[{GOOD},\n{{"messages": "{"x" * (50 * 10**6)}"}}]'
    (problem,) = refused(text, "rows.json")
    assert problem == (
        "rows.json:2: bad JSON: one value has more than 16 MiB; split it into rows, in the row "
        "that starts at line 2"
    )


def test_the_memory_of_a_pass_does_not_grow_with_the_file() -> None:
    def peak_bytes(num_rows: int) -> int:
        with Path("rows.jsonl").open("w") as file:
            for i in range(num_rows):
                file.write(json.dumps(row("x" * 1000, "y")) + "\n" if i else f"{GOOD}\n")
        tracemalloc.start()
        assert sum(1 for _ in Reading("rows.jsonl")) == num_rows
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak

    few, many = peak_bytes(1_000), peak_bytes(6_000)
    # An id's two numbers, at most half of a table's places, and the table before it was doubled.
    assert many - few < 6_000 * 160


def test_utf16_without_a_mark_says_how_to_read_it() -> None:
    raw = f"{GOOD}\n{GOOD}\n".encode("utf-16-le")
    problems = refused(raw)
    assert problems[0].startswith("rows.jsonl:1: found a NUL byte at column 2; the file is ")
    assert "name its encoding (encoding: utf-16)" in problems[0]
    assert len(read(raw, encoding="utf-16-le").examples) == 2


def test_a_wrong_encoding_is_shown_by_a_few_rows_and_the_others_are_counted() -> None:
    raw = (json.dumps(row("谁赢了？", "野马队"), ensure_ascii=False) + "\n").encode("gbk")
    problems = refused(raw * 10)
    assert [problem.split(":")[1] for problem in problems[:3]] == ["1", "2", "3"]
    assert problems[3:] == ("rows.jsonl: and 7 more rows not in the file's encoding",)


def test_gbk_is_read_where_it_is_named() -> None:
    raw = json.dumps(row("谁赢了？", "野马队"), ensure_ascii=False).encode("gbk")
    dataset = read(raw, encoding="gb18030")
    assert dataset.examples[0].conversation.reply == "野马队"
    assert dataset.encoding == "gb18030"


def test_ids_given_twice_are_replaced_and_counted_with_the_first_of_them() -> None:
    dataset = read_rows(row(id="x"), row(id=7), row(id="x"), row(id="7"), row())
    assert not dataset.drops
    assert [value.id for value in dataset.examples] == ["x", "7", "rows-3", "rows-4", "rows-5"]
    assert [str(note) for note in dataset.notes] == [
        "2 ids that repeat or cannot be used (rows.jsonl:3: id 'x' is also row 1); such rows "
        "are named STEM-N instead"
    ]


def test_many_ids_are_told_apart() -> None:
    rows = [{**row(), "id": f"row {i}"} for i in range(5000)]
    dataset = read_rows(*rows, *rows[:3])
    assert len({value.id for value in dataset.examples}) == len(dataset.examples) == 5003
    assert dataset.examples[5000].id == "rows-5001"


def test_a_drop_keeps_all_faults_and_counts_by_the_first() -> None:
    dataset = read_rows(row(), {"messages": [turn("usr", 3)], "answers": []})
    (drop,) = dataset.drops
    assert len(drop.problems) == 3
    assert dataset.num_dropped == {"field of the wrong kind": 1}
    assert dataset.num_rows == len(dataset.examples) + len(dataset.drops)
    assert dataset.description == (
        "2 rows of messages, JSONL; 1 dropped (1 field of the wrong kind)"
    )


@pytest.mark.parametrize(
    ("group", "read_as"), [("", None), (3.5, "3.5"), (2.0, "2"), (True, "true"), ([1], None)]
)
def test_a_group_is_text_and_one_that_is_not_loses_no_row(
    group: object, read_as: str | None
) -> None:
    dataset = read_rows({**row(), "group": group})
    assert [value.group for value in dataset.examples] == [read_as]
    # A blank one is none, and nothing to tell.
    assert len(dataset.notes) == isinstance(group, list)


def test_a_policy_that_leaves_nothing_says_so() -> None:
    from loracle.data.reading.dataset import read_examples

    flat = {"question": "a", "answers": {"text": []}}
    path = written(lines(flat))
    with pytest.raises(DataError, match="unanswerable: drop left out every row"):
        read_examples(path, options=ReadOptions(unanswerable="drop"))
