"""Every form of rows, on rows as their authors publish them."""

from __future__ import annotations

import json

import pytest

from loracle.data.conversation import ToolCall
from loracle.data.reading.dataset import read_dataset
from loracle.data.reading.options import ReadOptions
from loracle.errors import DataError
from tests.data.files import lines, read, read_rows, refused, row, turn, turns, written

WEATHER = {
    "name": "weather",
    "description": "Tells the weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}


def test_openai_messages_keep_tools_calls_and_reasoning() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    call["function"]["arguments"] = '{"city": "Oslo"}'  # OpenAI sends JSON in a text.
    dataset = read_rows(
        {
            "messages": [
                turn("developer", "Be brief."),
                turn(
                    "user",
                    [{"type": "text", "text": "Weather in "}, {"type": "text", "text": "Oslo?"}],
                ),
                turn("assistant", None, tool_calls=[call], reasoning_content="Ask the tool."),
                turn("tool", "rain", tool_call_id="c1", name="weather"),
                turn("assistant", "It rains."),
            ],
            "tools": [{"type": "function", "function": WEATHER}],
        }
    )

    assert dataset.format == "messages"
    assert turns(dataset) == [
        ("system", "Be brief."),
        ("user", "Weather in Oslo?"),
        ("assistant", ""),
        ("tool", "rain"),
        ("assistant", "It rains."),
    ]
    _, _, asking, answer, _ = dataset.examples[0].conversation.messages
    assert asking.tool_calls == (ToolCall("weather", {"city": "Oslo"}, "c1"),)
    assert asking.reasoning == "Ask the tool."
    assert (answer.tool_call_id, answer.name) == ("c1", "weather")
    assert dataset.examples[0].conversation.tools == ({"type": "function", "function": WEATHER},)


def test_openais_older_functions_are_the_same_tools() -> None:
    dataset = read_rows(
        {
            "messages": [
                turn("user", "Weather?"),
                turn("assistant", "", function_call={"name": "weather", "arguments": ""}),
                turn("function", "rain", name="weather"),
                turn("assistant", "It rains."),
            ],
            "functions": [WEATHER],
        }
    )

    conversation = dataset.examples[0].conversation
    assert [message.role for message in conversation.messages] == [
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
    assert conversation.messages[1].tool_calls == (ToolCall("weather", {}),)
    assert conversation.tools == ({"type": "function", "function": WEATHER},)


def test_sharegpt_calls_and_observations_become_tool_turns() -> None:
    dataset = read_rows(
        {
            "conversations": [
                {"from": "human", "value": "Weather in Oslo?"},
                {"from": "gpt", "value": "Let me see."},
                {
                    "from": "function_call",
                    "value": '{"name": "weather", "arguments": {"city": "Oslo"}}',
                },
                {"from": "observation", "value": "rain"},
                {"from": "gpt", "value": "It rains."},
            ],
            "system": "Be brief.",
            "tools": json.dumps([WEATHER]),
        }
    )

    assert dataset.format == "sharegpt"
    assert turns(dataset) == [
        ("system", "Be brief."),
        ("user", "Weather in Oslo?"),
        ("assistant", "Let me see."),
        ("tool", "rain"),
        ("assistant", "It rains."),
    ]
    conversation = dataset.examples[0].conversation
    assert conversation.messages[2].tool_calls == (ToolCall("weather", {"city": "Oslo"}),)
    assert conversation.tools == ({"type": "function", "function": WEATHER},)


def test_the_keys_of_the_turns_and_not_of_the_column_tell_sharegpt() -> None:
    assert read_rows({"conversations": row()["messages"]}).format == "messages"
    assert (
        read_rows(
            {"messages": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}
        ).format
        == "sharegpt"
    )


def test_alpaca_has_its_input_below_the_instruction_and_history_before() -> None:
    dataset = read_rows(
        {
            "instruction": "Translate.",
            "input": "Hund",
            "output": "dog",
            "system": "Be brief.",
            "history": [["Translate.\nKatze", "cat"]],
        },
        {"instruction": "识别两个科学理论。", "input": "", "output": "细胞理论"},
        {
            "instruction": "",
            "input": "Only the input.",
            "output": "fine",
            "system": "",
            "history": [],
        },
    )

    assert dataset.format == "alpaca"
    assert turns(dataset) == [
        ("system", "Be brief."),
        ("user", "Translate.\nKatze"),
        ("assistant", "cat"),
        ("user", "Translate.\nHund"),
        ("assistant", "dog"),
    ]
    assert turns(dataset, 1) == [("user", "识别两个科学理论。"), ("assistant", "细胞理论")]
    assert turns(dataset, 2) == [("user", "Only the input."), ("assistant", "fine")]


def test_prompt_and_completion_are_texts_or_lists_of_messages() -> None:
    dataset = read_rows(
        {"prompt": "Who won?", "completion": " The Broncos"},
        {"prompt": [turn("user", "Who won?")], "completion": [turn("assistant", "Denver")]},
    )

    assert dataset.format == "prompt_completion"
    assert turns(dataset) == [("user", "Who won?"), ("assistant", " The Broncos")]
    assert turns(dataset, 1) == [("user", "Who won?"), ("assistant", "Denver")]


def test_the_passage_stands_before_the_question_and_both_are_kept_apart() -> None:
    dataset = read_rows(
        {"question": "Who won?", "context": "The Broncos won.", "answer": "The Broncos", "group": 7}
    )

    (example,) = dataset.examples
    assert dataset.format == "question_answer"
    assert turns(dataset)[0] == ("user", "Context: The Broncos won.\nQuestion: Who won?")
    assert (example.context, example.question, example.group) == (
        "The Broncos won.",
        "Who won?",
        "7",
    )


def test_squads_flat_form_is_read_with_all_its_answers() -> None:
    # As the datasets library has it: https://huggingface.co/datasets/rajpurkar/squad_v2
    dataset = read_rows(
        {
            "id": "a",
            "title": "Super_Bowl_50",
            "context": "The Broncos won.",
            "question": "Who won?",
            "answers": {"text": ["Broncos", "The Broncos", "Broncos"], "answer_start": [4, 0, 4]},
        },
        {
            "id": "b",
            "title": "Super_Bowl_50",
            "context": "The Broncos won.",
            "question": "Who lost?",
            "answers": {"text": [], "answer_start": []},
        },
    )

    assert dataset.format == "question_answer"
    assert [value.references for value in dataset.examples] == [
        ("Broncos", "The Broncos"),
        ("unanswerable",),
    ]
    assert turns(dataset, 1)[-1] == ("assistant", "unanswerable")
    assert dataset.num_unanswerable == 1
    assert "1 unanswerable question kept, with the unanswerable reply" in dataset.description


def squad(*, qas_first: bool = False) -> dict[str, object]:
    """A file of SQuAD 2.0: two paragraphs, one question without an answer."""
    qas = [
        {
            "question": "Who won?",
            "id": "q1",
            "answers": [
                {"text": "The Broncos", "answer_start": 0},
                {"text": "Broncos", "answer_start": 4},
            ],
            "is_impossible": False,
        },
        {
            "plausible_answers": [{"text": "The Broncos", "answer_start": 0}],
            "question": "Who lost?",
            "id": "q2",
            "answers": [],
            "is_impossible": True,
        },
    ]
    second = [
        {"question": "In which year?", "id": "q3", "answers": [{"text": "2015", "answer_start": 8}]}
    ]
    first = (
        {"qas": qas, "context": "The Broncos won."}
        if qas_first
        else {"context": "The Broncos won.", "qas": qas}
    )
    paragraphs = [first, {"context": "It was a 2015 final.", "qas": second}]
    return {"version": "v2.0", "data": [{"title": "Super_Bowl_50", "paragraphs": paragraphs}]}


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("qas_first", [False, True])
def test_squads_nested_form_gives_a_row_a_question_with_its_line(
    indent: int | None, qas_first: bool
) -> None:
    text = json.dumps(squad(qas_first=qas_first), indent=indent)

    dataset = read(text, "squad.json")

    assert (dataset.format, dataset.num_rows) == ("squad", 3)
    assert [value.id for value in dataset.examples] == ["q1", "q2", "q3"]
    assert [value.references for value in dataset.examples] == [
        ("The Broncos", "Broncos"),
        ("unanswerable",),
        ("2015",),
    ]
    assert [value.context for value in dataset.examples] == [
        "The Broncos won.",
        "The Broncos won.",
        "It was a 2015 final.",
    ]
    # A question's object starts one line above its first key.
    keys = ("question", "plausible_answers", "question")
    at = [
        i
        for i, line in enumerate(text.split("\n"), 1)
        if line.strip().startswith(('"question"', '"plausible'))
    ]
    starts = [line - 1 for line in at if line - 1 and text.split("\n")[line - 2].strip() == "{"]
    assert len(keys) == 3
    assert [value.line for value in dataset.examples] == ([1, 1, 1] if indent is None else starts)


def test_articles_and_paragraphs_may_be_rows_of_their_own() -> None:
    (article,) = squad()["data"]  # type: ignore[misc]
    assert read_rows(article).num_rows == 3
    assert read_rows(*article["paragraphs"]).num_rows == 3


@pytest.mark.parametrize(("policy", "kept"), [("answer", 3), ("drop", 2)])
def test_unanswerable_questions_follow_the_policy(policy: str, kept: int) -> None:
    path = written(json.dumps(squad()), "squad.json")
    options = ReadOptions(unanswerable=policy, unanswerable_reply="没有答案")  # type: ignore[arg-type]

    dataset = read_dataset(path, options, strict=True)

    assert len(dataset.examples) == kept
    assert dataset.num_rows == 3
    assert dataset.num_dropped == ({} if policy == "answer" else {"unanswerable question": 1})
    if policy == "answer":
        assert dataset.examples[1].references == ("没有答案",)
    else:
        assert [drop.by_policy for drop in dataset.drops] == [True]


def test_unanswerable_questions_may_be_refused() -> None:
    (problem,) = refused(json.dumps(squad(), indent=1), "squad.json", unanswerable="error")
    assert problem.startswith("squad.json:")
    assert problem.endswith(
        "the question is marked as having no answer; leave it out, or set unanswerable to answer "
        "or drop"
    )


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"paragraphs": {}}, "paragraphs is an object; expected a list"),
        ({"paragraphs": ["x"]}, "paragraphs[0] is text; expected an object"),
        (
            {"paragraphs": [{"context": "x"}]},
            "paragraphs[0].qas is null; expected a list of questions",
        ),
        ({"paragraphs": [{"qas": [3]}]}, "paragraphs[0].qas[0] is 3; expected an object"),
        ({"qas": 3}, "qas is 3; expected a list of questions"),
    ],
)
def test_broken_nesting_is_named(change: object, problem: str) -> None:
    assert refused(json.dumps({"data": [change]}), "squad.json") == (f"squad.json:1: {problem}",)


def test_columns_give_a_forms_fields_to_other_names() -> None:
    dataset = read_rows(
        {"query": "Who won?", "response": "Denver", "question": "ignored", "type": "x"},
        columns={"question": "query", "answer": "response"},
    )

    assert dataset.format == "question_answer"
    assert turns(dataset) == [("user", "Who won?"), ("assistant", "Denver")]


def test_a_named_form_overrides_what_the_keys_say() -> None:
    both = {**row(), "prompt": "a", "completion": "b"}

    assert refused(lines(both)) == (
        "rows.jsonl:1: the row has the keys of messages and prompt_completion; name the one "
        "to use, format: messages",
    )
    assert turns(read_rows(both, format="prompt_completion")) == [("user", "a"), ("assistant", "b")]
    assert turns(read_rows(both, format="messages"))[0] == ("user", "Who won?")


def test_a_mix_of_forms_names_both_and_never_chooses() -> None:
    text = lines(row(), {}, {"question": "a", "answer": "b"})

    assert refused(text) == (
        "rows.jsonl:2: no messages (keys found: none); name their column, columns: {messages: ...}",
        "rows.jsonl:3: found a question_answer row, but the rows from rows.jsonl:1 on are "
        "messages; put each form into a separate file, or name the form to use, format: messages",
    )
    with pytest.raises(DataError, match="found a question_answer row"):
        read(text)


def test_messages_may_bring_question_and_passage_where_they_are_in_the_text() -> None:
    apart = {"context": "The Broncos won.", "question": "Who won?", "answers": ["A"]}
    rows = [{**row("The Broncos won. Who won?"), **apart}, {**row(), "context": "math"}]

    dataset = read_rows(*rows)

    assert dataset.format == "messages"
    assert [(e.context, e.question) for e in dataset.examples] == [
        ("The Broncos won.", "Who won?"),
        (None, None),
    ]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            {"tools": "weather"},
            "tools is text and not JSON at column 1 (Expecting value); expected a list of ",
        ),
        ({"tools": {}}, "tools is an object; expected a list of "),
        ({"tools": ["x"]}, "tools[0] is text; expected "),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0] has no name; expected "),
        (
            {"tools": [{"name": "f", "x": float("nan")}]},
            "tools[0].x is NaN, which JSON does not have; ",
        ),
    ],
)
def test_tools_that_cannot_be_passed_on_are_named(change: dict[str, object], problem: str) -> None:
    (found,) = refused(lines({**row(), **change}))
    assert found.startswith(f"rows.jsonl:1: {problem}")


@pytest.mark.parametrize(
    ("calls", "problem"),
    [
        ("x", "tool_calls is not JSON at column 1 (Expecting value); expected "),
        ([3], "tool_calls[0] is 3; expected "),
        ([{"function": {"arguments": {}}}], "tool_calls[0] has no name; expected "),
        ([{"name": "f", "arguments": "{"}], "tool_calls[0].arguments is not JSON at column 2"),
        (
            [{"name": "f", "arguments": [1]}],
            "tool_calls[0].arguments is a list; expected an object",
        ),
        ([{"name": "f", "id": 3}], "tool_calls[0].id is 3; expected text"),
    ],
)
def test_calls_that_cannot_be_passed_on_are_named(calls: object, problem: str) -> None:
    (found,) = refused(
        lines({"messages": [turn("user", "x"), turn("assistant", None, tool_calls=calls)]})
    )
    assert found.startswith(f"rows.jsonl:1: messages[1].{problem}")


def test_only_the_assistant_calls_tools() -> None:
    (found,) = refused(
        lines({"messages": [turn("user", "x", tool_calls=[{"name": "f"}]), turn("assistant", "y")]})
    )
    assert found == "rows.jsonl:1: messages[0] is 'user' and calls a tool; only the assistant can"


def test_parts_that_are_no_text_are_refused() -> None:
    image = [{"type": "image_url", "image_url": {"url": "x"}}]
    (found,) = refused(lines({"messages": [turn("user", image), turn("assistant", "y")]}))
    assert found.endswith("content[0] is 'image_url'; only parts of type 'text' can be read")


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (
            {"conversations": [{"from": "humn", "value": "x"}]},
            "conversations[0].from is 'humn'; did you mean 'human'?",
        ),
        (
            {"conversations": [{"from": "human", "value": " "}, {"from": "gpt", "value": "x"}]},
            "conversations[0] is an empty user turn; fill it or leave the row out",
        ),
        ({"instruction": "x", "output": " "}, "output is empty; fill it or leave the row out"),
        (
            {"instruction": "", "output": "x"},
            "no instruction or input (keys found: 'instruction', 'output'); fill one of the two",
        ),
        (
            {"instruction": "x", "output": "y", "history": [["a"]]},
            "history[0] is a list; expected a list of [question, answer]",
        ),
        (
            {"instruction": "x", "output": "y", "history": [["a", ""]]},
            "history[0][1] is empty; fill it or leave the row out",
        ),
        ({"prompt": "x", "completion": {}}, "completion is an object; expected text"),
        (
            {"prompt": "x", "completion": "y", "answers": [[]]},
            "answers[0] is a list; expected text",
        ),
    ],
)
def test_rows_of_other_forms_say_what_is_wrong(value: object, problem: str) -> None:
    assert refused(lines(value)) == (f"rows.jsonl:1: {problem}",)
