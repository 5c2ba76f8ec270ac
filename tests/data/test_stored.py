"""Examples on disk are the examples that were stored."""

from __future__ import annotations

from loracle.data.conversation import Conversation, Example, Message, ToolCall
from loracle.data.stored import Measures, StoredExamples, measures_of, pack


def examples() -> list[Example]:
    turns = (
        Message("system", "Be brief."),
        Message("user", "Weather in Oslo? 天气"),
        Message(
            "assistant",
            "",
            (ToolCall("weather", {"city": "Oslo", "days": [1, 2.5, None, True, 2**70]}, "c1"),),
            reasoning="I ask.",
            weight=0.0,
        ),
        Message("tool", "rain", tool_call_id="c1", name="weather"),
        Message("assistant", "It rains.", weight=0.5),
    )
    tools = ({"type": "function", "function": {"name": "weather"}},)
    full = Example(
        "a", Conversation(turns, tools), ("rain", "It rains"), "b.jsonl", 7, "c", "q", "g"
    )
    plain = Conversation((Message("user", "Who?"), Message("assistant", "Denver")))
    return [full, *(Example(f"r-{n}", plain, (), "a.jsonl", n) for n in range(1, 2500))]


def test_every_part_of_an_example_comes_back() -> None:
    stored = StoredExamples.of(examples())
    assert list(stored) == examples()
    assert len(stored) == 2500


def test_rows_are_found_by_their_place() -> None:
    stored, expected = StoredExamples.of(examples()), examples()
    assert [stored[n] for n in (0, 1023, 1024, 2499, -1)] == [
        expected[n] for n in (0, 1023, 1024, 2499, -1)
    ]
    assert stored[::700] == expected[::700]
    assert stored[2000:] == expected[2000:]


def test_rows_without_an_id_are_called_by_their_number() -> None:
    nameless = [Example("", one.conversation, (), "a.jsonl", one.line) for one in examples()[1:4]]
    stored = StoredExamples("train")
    stored.add(pack(nameless, [1, 2, 5]), 0)
    stored.add(pack(nameless[:1], [2]), 6)
    assert [one.id for one in stored] == ["train-1", "train-2", "train-5", "train-8"]


def test_what_is_counted_of_rows_is_that_of_the_rows_themselves() -> None:
    stored = StoredExamples.of(examples())
    for counted, expected in zip(measures_of(stored), Measures.of(examples()), strict=True):
        assert counted.tolist() == expected.tolist()
    assert measures_of(StoredExamples("x")).characters.tolist() == []
