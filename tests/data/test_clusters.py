"""Which evaluation questions belong together."""

from __future__ import annotations

from loracle.data.clusters import kinds_of, question_clusters
from loracle.data.conversation import Conversation, Example, Message

SYSTEM = "You answer questions about a passage with a few words of it, and with nothing else. "


def example(prompt: str, **changes) -> Example:
    turns = (
        Message("system", SYSTEM),
        Message("user", prompt),
        Message("assistant", "yes"),
    )
    return Example("q", Conversation(turns), ("yes",), "test.jsonl", 1, **changes)


def about(passage: str, question: str, **changes) -> Example:
    return example(f"Context: {passage}\nQuestion: {question}", **changes)


RIVER = "The river rises in the hills, crosses three countries and ends in a wide delta. " * 3
TOWER = "A tower of iron was built for the fair and was to be taken down afterwards. " * 3


def test_questions_about_one_passage_are_one_cluster():
    questions = [about(RIVER, "Where?"), about(TOWER, "Of what?"), about(RIVER, "Through what?")]
    assert question_clusters(questions) == ["passage:0", "row:1", "passage:0"]


def test_what_all_prompts_share_makes_no_cluster():
    questions = [example("Is 7 prime?"), example("Name a colour."), example("Spell onomatopoeia.")]
    assert question_clusters(questions) == ["row:0", "row:1", "row:2"]


def test_a_rows_own_group_comes_first():
    questions = [
        about(RIVER, "Where?", group="geo"),
        about(TOWER, "Of what?", group="geo"),
        about(RIVER, "Through what?"),
    ]
    assert question_clusters(questions) == ["group:geo", "group:geo", "row:2"]


def test_a_passage_behind_its_question_is_found_by_the_context_field():
    questions = [
        example(f"Where? {RIVER}", context=RIVER),
        example(f"Through what? {RIVER}", context=RIVER),
        example(f"Of what? {TOWER}", context=TOWER),
    ]
    assert question_clusters(questions) == ["passage:0", "passage:0", "row:2"]
    without = [example(f"Where? {RIVER}"), example(f"Through what? {RIVER}")]
    assert question_clusters(without) == ["row:0", "row:1"]


def test_the_one_text_that_all_questions_are_about_makes_no_cluster():
    questions = ["Where does it end?", "Through how many countries?", "What is wide?"]
    in_front = [about(RIVER, question) for question in questions]
    in_its_field = [example(question, context=RIVER) for question in questions]
    for examples in (in_front, in_its_field):
        assert question_clusters(examples) == ["row:0", "row:1", "row:2"]


def test_a_group_named_like_a_row_is_no_row():
    questions = [example("a", group="1"), example("b")]
    assert question_clusters(questions) == ["group:1", "row:1"]


def test_half_of_a_surrogate_pair_is_a_character_like_any_other():
    questions = [
        about(f"\ud83d{RIVER}", "Where?"),
        about(f"\ud83d{RIVER}", "How long?"),
        about(TOWER, "Of what?"),
    ]
    assert question_clusters(questions) == ["passage:0", "passage:0", "row:2"]


def test_no_questions_have_no_clusters():
    assert question_clusters([]) == []


def test_questions_are_counted_by_what_grouped_them():
    labels = ["passage:0", "passage:0", "row:2", "group:a:b"]
    assert kinds_of(labels) == {"group": 1, "passage": 2, "row": 1}
