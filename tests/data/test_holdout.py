"""An evaluation set out of the candidates: no passage of it is left in any of them."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from loracle.data.audit import audited, leakage
from loracle.data.conversation import Conversation, Example, Message, ToolCall
from loracle.data.holdout import Holdout, hold_out
from loracle.data.reading.dataset import read_examples
from loracle.errors import DataError
from tests import tiny
from tests.data.audit.test_leakage import SHARED, needs_shared, unlike


def rows(passages: range, name: str, answer: str = "x", per_passage: int = 2) -> list[Example]:
    return [
        replace(
            tiny.example(
                f"Context: {unlike(str(p))}\nQuestion: what of {p} in {q}?",
                f"{answer}{p}",
                id=f"{p}-{q}",
            ),
            file=f"{name}.jsonl",
            line=1 + per_passage * (p - passages.start) + q,
        )
        for p in passages
        for q in range(per_passage)
    ]


def passages_of(examples: list[Example]) -> set[str]:
    return {example.conversation.messages[0].content.split("\nQuestion")[0] for example in examples}


def asked(found: Holdout) -> list[Example]:
    return [question.example for question in found.questions]


def test_a_held_out_passage_leaves_every_candidate() -> None:
    candidates = {"a": rows(range(20), "a"), "b": rows(range(10, 40), "b")}
    found = hold_out(candidates, 0.2, 0)
    held = passages_of(asked(found))
    for name, examples in candidates.items():
        left = found.kept[name]
        assert passages_of(left) == passages_of(examples) - held
        assert len(left) + found.num_held_out[name] == len(examples)
        assert found.num_held_out[name] == pytest.approx(0.2 * len(examples), abs=2)


def test_a_nearly_equal_passage_leaves_too() -> None:
    passage = unlike("0")
    changed = passage.replace(passage.split()[3], "quite another word")
    near = tiny.example(f"Context: {changed}\nQuestion: where is it now?", "y", id="near")
    candidates = {"a": rows(range(4), "a"), "b": [near, *rows(range(10, 14), "b")]}
    both = set()
    for seed in range(12):
        found = hold_out(candidates, 0.25, seed)
        sides = {
            any(passage in e.conversation.messages[0].content for e in found.kept["a"]),
            near in found.kept["b"],
        }
        assert len(sides) == 1, "on one side as a whole"
        both |= sides
    assert both == {True, False}


def test_the_row_numbers_of_all_held_out_rows_are_recorded() -> None:
    candidates = {"a": rows(range(10), "a"), "b": rows(range(10), "b", "y")}
    record = hold_out(candidates, 0.2, 0).to_dict()
    places = [
        (row["file"], row["line"])
        for question in record["questions"]
        for rows_of_one in question["rows"].values()
        for row in rows_of_one
    ]
    assert len(places) == len(set(places)) == sum(record["num_held_out"].values()) == 8
    assert json.loads(json.dumps(record)) == record


def test_one_prompt_is_one_question_and_the_answers_of_all_candidates_count() -> None:
    candidates = {"a": rows(range(10), "a"), "b": rows(range(10), "b", "y")}
    found = hold_out(candidates, 0.2, 0)
    assert len(found.questions) == 4
    for question in found.questions:
        number = question.example.id.split(":")[1].split("-")[0]
        assert question.example.id.startswith("a:")
        assert question.example.references == (f"x{number}", f"y{number}")
        assert question.is_contested
    agreed = hold_out({"a": rows(range(10), "a"), "b": rows(range(10), "b")}, 0.2, 0)
    assert agreed.num_contested == 0
    assert "4 questions in 2 of 10 groups" in agreed.description
    assert "held out of a (4 rows), b (4 rows)" in agreed.description


def test_questions_of_one_group_are_one_cluster() -> None:
    found = hold_out({"a": rows(range(10), "a", per_passage=3)}, 0.3, 0)
    groups = [example.group for example in asked(found)]
    assert len(groups) == 9
    assert len(set(groups)) == 3


def test_the_file_reads_back_as_what_is_asked(tmp_path: Path) -> None:
    found = hold_out({"a": rows(range(10), "a"), "b": rows(range(10), "b", "y")}, 0.2, 0)
    path = tmp_path / found.file.path
    path.write_bytes(found.content)
    again = read_examples(path)
    assert [(e.id, e.conversation, e.references, e.group) for e in again] == [
        (e.id, e.conversation, e.references, e.group) for e in asked(found)
    ]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == found.file.sha256
    assert path.stat().st_size == found.file.size_bytes


_PROGRAM = """
from loracle.data.holdout import hold_out
from loracle.data.reading.dataset import read_examples
print(hold_out({name: read_examples(f"{name}.jsonl") for name in "ab"}, 0.2, 3).file.sha256)
"""


def test_another_process_holds_the_same_out(tmp_path: Path) -> None:
    """Whatever Python's own hashes of texts are in it."""
    for name, passages in (("a", range(30)), ("b", range(9, 50))):
        lines = []
        for example in rows(passages, name):
            question, answer = (turn.content for turn in example.conversation.messages)
            lines.append(json.dumps({"prompt": question, "completion": answer}))
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    found = {
        subprocess.run(
            [sys.executable, "-c", _PROGRAM],
            cwd=tmp_path,
            env={
                **os.environ,
                "PYTHONPATH": str(Path(__file__).parents[2]),
                "PYTHONHASHSEED": seed,
            },
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


def test_another_seed_holds_others_out() -> None:
    candidates = {"a": rows(range(30), "a")}
    found = [passages_of(asked(hold_out(candidates, 0.2, seed))) for seed in (0, 1)]
    assert found[0] != found[1]


def test_a_candidate_of_one_passage_is_left_whole() -> None:
    found = hold_out({"a": rows(range(20), "a"), "b": rows(range(50, 51), "b")}, 0.2, 0)
    assert found.num_held_out == {"a": 8, "b": 0}


def test_what_cannot_be_split_says_so() -> None:
    with pytest.raises(DataError, match=r"found 1 group .* largest of 6 rows; choose another"):
        hold_out({"a": rows(range(1), "a", per_passage=6)}, 0.2, 0)
    with pytest.raises(DataError, match="no row of b would be left for training"):
        hold_out(
            {"a": rows(range(2), "a"), **{n: rows(range(1), n, per_passage=1) for n in "bcd"}},
            0.9,
            0,
        )


def test_rows_that_end_on_a_tool_call_leave_with_their_group_and_are_not_asked() -> None:
    calls = [
        replace(
            example,
            conversation=Conversation(
                (
                    example.conversation.messages[0],
                    Message("assistant", "", (ToolCall("look_up", {"n": n}),)),
                )
            ),
        )
        for n, example in enumerate(rows(range(10), "a"))
    ]
    texts = rows(range(10), "a", per_passage=3)[2::3]
    found = hold_out({"a": [*calls, *texts]}, 0.2, 0)
    assert found.num_held_out == {"a": 6}
    assert (len(found.questions), len(found.unasked)) == (2, 4)
    with pytest.raises(DataError, match="ends with a tool call without text"):
        hold_out({"a": calls}, 0.2, 0)


@needs_shared
def test_no_candidate_of_xquad_knows_what_is_held_out() -> None:
    folder = Path(SHARED) / "xquad-en/candidates"
    names = ("clean", "half", "noisy", "shuffled", "verbose")
    found = hold_out({name: read_examples(folder / f"{name}.json") for name in names}, 0.1, 0)
    sets = audited([*found.kept.items(), ("holdout", asked(found))])
    for candidate in sets[:-1]:
        assert leakage(candidate, sets[-1]).leaks == ()
    assert found.num_held_out == {**dict.fromkeys(names, 89), "half": 47}
