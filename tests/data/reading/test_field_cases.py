"""The small inputs of tests/data/field_cases: each reads right, or is refused with the way out."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from loracle.data.reading.dataset import Dataset, read_dataset
from loracle.data.reading.options import ReadOptions
from loracle.errors import DataError
from tests.data.files import turns

CASES = Path(__file__).parents[1] / "field_cases"


def case(name: str, **options: Any) -> Dataset:
    """A case read as a user has it: in the current folder."""
    copy = shutil.copytree if (CASES / name).is_dir() else shutil.copy
    if not Path(name).exists():
        copy(CASES / name, name)
    return read_dataset(name, ReadOptions(**options))


def problems(name: str, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        case(name, **options)
    return "\n".join(caught.value.problems)


def used(dataset: Dataset) -> dict[str, str]:
    return {use.column: use.used_as for use in dataset.fields}


def test_dolly_keeps_its_context() -> None:
    dataset = case("advice_loses_context.jsonl")
    assert turns(dataset) == [
        ("user", "Which city?\nOslo is the capital of Norway."),
        ("assistant", "Oslo"),
    ]
    assert used(dataset) == {
        "instruction": "asked",
        "context": "asked",
        "response": "reply",
        "category": "",
    }


def test_choices_in_columns_are_asked() -> None:
    dataset = case("choices_columns_lost.csv")
    assert dataset.format == "choice"
    question = "下列哪一项是质数？\nA. 4\nB. 9\nC. 11\nD. 15"
    assert turns(dataset) == [("user", f"{question}\n答案："), ("assistant", "C")]
    assert dataset.examples[0].question == question
    assert dataset.fields[-1] == ("explanation", "", 1)


def test_options_in_an_object_are_asked_and_the_letter_is_the_reference() -> None:
    dataset = case("options_lost.jsonl")
    assert turns(dataset)[0][1] == (
        "Which vitamin prevents scurvy?\nA. Vitamin A\nB. Vitamin C\nAnswer:"
    )
    assert [value.references for value in dataset.examples] == [("B",), ("A",)]


def test_a_passage_that_is_not_used_is_an_error_that_says_how_to_use_it() -> None:
    assert problems("column_typo.jsonl") == (
        "column_typo.jsonl:1: column passage is not used in 1 row; its name suggests that it "
        "holds something that the question is about. To use it: --column context=passage (in a "
        "plan: columns: {context: passage}). To leave it out: --ignore-column passage (in a plan: "
        "ignore_columns: [passage])"
    )
    named = case("column_typo.jsonl", columns={"context": "passage"})
    assert named.examples[0].context == "Denver won."
    ignored = case("column_typo.jsonl", ignore_columns=("passage",))
    assert turns(ignored)[0] == ("user", "Who won?")
    assert ignored.fields[-1] == ("passage", "ignored", 1)


def test_a_column_that_is_not_there_is_refused_with_the_nearest() -> None:
    found = problems("column_typo.jsonl", columns={"context": "pasage"})
    assert found.startswith(
        "column_typo.jsonl: no row has a column 'pasage', which was named for context; did "
        "you mean passage?"
    )


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("comments.json", "1: bad JSON: found '/' where a list starts; expected [: a comment"),
        ("trailing_comma.json", "in the row that starts at line 4: a comma after the last item"),
        ("tar_gz_merged.tar.gz", "tar_gz_merged.tar.gz is a tar archive; unpack it"),
    ],
)
def test_the_cause_is_named(name: str, cause: str) -> None:
    assert cause in problems(name)


@pytest.mark.parametrize(
    ("name", "ids"),
    [
        ("empty_id.jsonl", ["empty_id-1", "empty_id-2"]),
        ("float_id.jsonl", ["1", "2"]),
        (
            "shards_restart_ids",
            [*"012345", *(f"shards_restart_ids-{n}" for n in range(7, 13))],
        ),
    ],
)
def test_no_row_is_lost_for_its_id(name: str, ids: list[str]) -> None:
    dataset = case(name)
    assert not dataset.drops
    assert [value.id for value in dataset.examples] == ids


def test_a_group_that_is_no_text_is_named_and_the_row_stays() -> None:
    dataset = case("group_not_text.jsonl")
    assert [value.group for value in dataset.examples] == ["1.5", None, None]
    (note,) = dataset.notes
    assert note.message == "1 group that cannot be used (group_not_text.jsonl:2: group is a list)"


def test_an_empty_system_turn_is_none() -> None:
    assert turns(case("empty_system.jsonl"))[0] == ("user", "q")


def test_the_empty_columns_of_a_spreadsheet_are_none() -> None:
    dataset = case("excel_empty_columns.csv")
    assert [turns(dataset, row) for row in (0, 1)] == [
        [("user", "q"), ("assistant", "a")],
        [("user", "q2"), ("assistant", "a2")],
    ]


def test_lists_in_cells_are_answers() -> None:
    dataset = case("csv_answers_json_list.csv")
    assert [value.references for value in dataset.examples] == [
        ("Denver", "The Broncos"),
        ("Carolina",),
    ]


def test_words_for_nothing_are_read_as_text_and_flagged() -> None:
    dataset = case("na_answers.csv")
    assert [value.conversation.reply for value in dataset.examples] == ["NA", "nan", "None", "null"]
    (note,) = dataset.notes
    assert note.is_warning
    assert note.message.startswith("4 cells hold only NA, nan, None or null")


def test_numbers_are_answers() -> None:
    dataset = case("number_answer.jsonl")
    assert [value.references for value in dataset.examples] == [("5",), ("5",)]


def test_parts_may_hold_their_text_under_value() -> None:
    assert turns(case("parts_value_key.jsonl")) == [("user", "q"), ("assistant", "a")]


def test_query_response_and_history_are_read() -> None:
    assert turns(case("query_response_history.jsonl")) == [
        ("system", "S"),
        ("user", "hi"),
        ("assistant", "a"),
        ("user", "and now?"),
        ("assistant", "c"),
    ]


def test_a_row_with_an_image_is_refused_by_name() -> None:
    dataset = case("image_lost.jsonl")
    (drop,) = dataset.drops
    assert drop.reason == "images, sound or video"
    assert "--ignore-column images" in drop.problems[0]
    assert len(case("image_lost.jsonl", ignore_columns=("images",)).examples) == 1


def test_ktos_mark_is_refused() -> None:
    dataset = case("kto_label_false_learned.jsonl")
    assert [value.conversation.reply for value in dataset.examples] == ["blue"]
    (drop,) = dataset.drops
    assert drop.line == 2
    assert not drop.by_policy, "a set of such rows is not what can be learned"
    assert used(dataset)["label"] == "mark"


@pytest.mark.parametrize(
    "name", ["turn_loss_false_learned.jsonl", "sharegpt_weight_0_learned.jsonl"]
)
def test_a_turn_that_must_not_be_learned_has_no_weight(name: str) -> None:
    (example,) = case(name).examples
    assert [(m.content, m.weight) for m in example.conversation.messages] == [
        ("a", 1.0),
        ("wrong", 0.0),
        ("b", 1.0),
        ("right", 1.0),
    ]


def test_an_unused_value_that_cannot_be_decoded_ends_no_file() -> None:
    dataset = case("unused_timestamp_far.parquet")
    assert turns(dataset, 1) == [("user", "who lost"), ("assistant", "Carolina")]
    assert used(dataset)["t"] == ""
