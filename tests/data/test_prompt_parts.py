"""Where the question and the passage stand."""

from __future__ import annotations

import pytest

from loracle.data.conversation import Conversation, Example, Message
from loracle.data.prompt_parts import parts_of, passage_spans, question_spans

LONG = "Herons nest near rivers. " * 20


def example(*turns: tuple[str, str], question: str | None = None) -> Example:
    messages = tuple(Message(role, text) for role, text in turns)  # type: ignore[arg-type]
    return Example("q", Conversation(messages), (), "data.jsonl", 1, question=question)


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("Context: The Broncos won.\nQuestion: Who won?", "Question: Who won?"),
        ("Question: Who won?\nContext: The Broncos won.", "Question: Who won?\n"),
        ("文章：丹佛野马队赢了。\n问题：谁赢了？", "问题：谁赢了？"),
        ("The Broncos won.\nThey had lost before.\nWho won?", "Who won?"),
        ("Who won?\nThe Broncos won.\nThey had lost before.", "Who won?"),
        ("Translate this into French.\nThe Broncos won the final of the season.", "Translate this"),
        ("Who won?", "Who won?"),
        ("Two plus two is what", "Two plus two is what"),
        (f"Question: Who nests?\n{LONG}", "Question: Who nests?"),
        ("Question: Who won?\nA) Denver\nB) Carolina", "Question: Who won?\nA) Denver\nB) Car"),
        (f"{LONG}\nQ: Who nests?\nAnswer:", "Q: Who nests?\n"),
    ],
)
def test_the_question_is_found(text: str, question: str) -> None:
    [span] = question_spans(text)
    assert text[span.start : span.stop].startswith(question)
    rest = [text[s.start : s.stop] for s in passage_spans(text)]
    assert all(part not in text[span.start : span.stop] for part in rest)


def test_a_question_that_the_format_names_is_found_where_it_stands() -> None:
    text = "Who won?\nContext: x\nQuestion: no"
    [span] = question_spans(text, "Context: x")
    assert text[span.start : span.stop] == "Context: x"


def test_of_a_long_line_all_that_may_be_the_question_is_kept() -> None:
    text = f"Read this. {LONG}Who nests there? {LONG}Answer in a word."
    asked = [text[s.start : s.stop].strip() for s in question_spans(text)]
    assert asked == ["Read this.", "Who nests there?", "Answer in a word."]
    assert all("Who nests" not in text[s.start : s.stop] for s in passage_spans(text))


def test_an_example_is_taken_apart_with_the_passage_of_earlier_turns() -> None:
    parts = parts_of(
        example(
            ("system", "Be brief."),
            ("user", "Context: The Broncos won.\nQuestion: Who won?"),
            ("assistant", "The Broncos"),
            ("user", "And when?"),
            ("assistant", "In 2016"),
        )
    )
    assert parts.question == "And when?"
    assert parts.passages == ("Be brief.", "Context: The Broncos won.")
    assert not parts.question_first


def test_a_question_before_its_passage_is_seen() -> None:
    assert parts_of(example(("user", "Who?\nA long text."), ("assistant", "x"))).question_first
    assert not parts_of(example(("user", "A long text.\nWho?"), ("assistant", "x"))).question_first
