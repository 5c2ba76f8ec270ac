"""Leakage: what is named, and above all what is not."""

from __future__ import annotations

import copy
import dataclasses
import json
import random
from pathlib import Path

import pytest

from loracle.data.audit import Leakage, audited, leakage
from loracle.data.conversation import Conversation, Example, Message
from loracle.data.reading.dataset import read_examples

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"
if not SHARED.exists():
    SHARED = Path(__file__).resolve().parents[5] / "shared" / "data"
needs_shared = pytest.mark.skipif(
    not SHARED.exists(), reason="the shared data is not beside this checkout"
)

PASSAGES = [
    "The harbour of Selm was built in 1871 by engineers from the north, who cut the basin out of "
    "the rock and lined it with granite from a quarry near the village of Ostrow.",
    "Grey herons nest in colonies near rivers and lakes; a pair raises three to five chicks a "
    "year, and both parents bring fish, frogs and large insects to the nest until July.",
    "Copper was smelted on the island as early as the second millennium, long before iron came "
    "into use, and its bars were traded for grain and cloth along the whole of the coast.",
]


def example(prompt: str, answer: str, number: int, file: str = "train.jsonl") -> Example:
    messages = (Message("user", prompt), Message("assistant", answer))
    return Example(f"{Path(file).stem}-{number}", Conversation(messages), (), file, number)


def examples(rows: list[tuple[str, str]], file: str = "train.jsonl") -> list[Example]:
    return [example(prompt, answer, n, file) for n, (prompt, answer) in enumerate(rows, 1)]


def between(train: list[tuple[str, str]], evaluation: list[tuple[str, str]]) -> Leakage:
    sets = audited([("a", examples(train)), ("e", examples(evaluation, "test.jsonl"))])
    return leakage(*sets)


def asked(passage: str, question: str) -> str:
    return f"Context: {passage}\nQuestion: {question}"


def kinds(found: Leakage) -> list[str]:
    return [leak.kind for leak in found.leaks]


def test_a_row_that_stands_in_both_is_named_with_its_place_on_both_sides():
    rows = [(asked(PASSAGES[0], "Who built the harbour?"), "engineers from the north")]
    found = between([("Something else?", "No"), *rows], rows)
    assert kinds(found) == ["same_row", "passage"]
    leak = found.leaks[0]
    assert [(r.id, r.where) for r in leak.train] == [("train-2", "train.jsonl:2")]
    assert [(r.id, r.where) for r in leak.evaluation] == [("test-1", "test.jsonl:1")]
    assert (found.leaked_ids, found.clean_ids) == (("test-1",), ())


def test_case_width_spaces_and_punctuation_do_not_hide_a_row():
    found = between(
        [("WHO  built the harbour of Selm, and when", "ENGINEERS.")],
        [("Who built the harbour of Selm，and when？", "engineers")],
    )
    assert kinds(found) == ["same_row"]


def test_the_same_prompt_with_another_answer_is_named_as_that():
    found = between(
        [("Who built the harbour of Selm?", "The king")],
        [("Who built the harbour of Selm?", "Engineers")],
    )
    assert kinds(found) == ["same_prompt"]


def test_a_shared_passage_is_one_leak_with_all_rows_of_both_sides():
    found = between(
        [(asked(PASSAGES[0], q), "x") for q in ("When was it?", "Who did it?")],
        [(asked(PASSAGES[0], q), "y") for q in ("From where was the granite?", "How?")]
        + [(asked(PASSAGES[1], "What do they eat?"), "fish")],
    )
    [leak] = found.leaks
    assert leak.kind == "passage"
    assert (len(leak.train), len(leak.evaluation)) == (2, 2)
    assert found.clean_ids == ("test-3",)


def test_one_shared_paragraph_of_several_is_found():
    found = between(
        [(f"{PASSAGES[0]}\n{PASSAGES[1]}\nQuestion: When was it?", "1871")],
        [(f"{PASSAGES[1]}\n{PASSAGES[2]}\nQuestion: What was traded?", "copper")],
    )
    assert kinds(found) == ["passage"]


def test_a_passage_paraphrased_by_a_few_words_is_named_with_its_similarity():
    other = PASSAGES[0].replace("built", "dug out").replace("near the village", "by the town")
    found = between(
        [(asked(PASSAGES[0], "When was it built?"), "1871")],
        [(asked(other, "Who lined it?"), "engineers")],
    )
    [leak] = found.leaks
    assert leak.kind == "near_passage"
    assert 0.5 <= leak.similarity < 1


def test_a_chinese_passage_paraphrased_by_a_few_characters_is_named():
    passage = (
        "基于跑跑卡丁车与泡泡堂上所开发的游戏由韩国公司开发与发行中国大陆由盛大游戏运营这是时隔六年再次授予其"
        "游戏运营权台湾由游戏橘子运营玩家以水枪小枪锤子或是水炸弹泡封敌人"
    )
    other = passage.replace("开发与发行", "制作并发行").replace("玩家以", "玩家用")
    found = between(
        [(f"文章：{passage}\n问题：谁开发了游戏？", "韩国公司")],
        [(f"文章：{other}\n问题：台湾由谁运营？", "游戏橘子")],
    )
    assert kinds(found) == ["near_passage"]


def test_a_long_question_without_a_passage_that_is_nearly_the_same_is_named():
    question = (
        "Natalia sold clips to forty eight of her friends in April, and then she sold half as many "
        "clips in May. How many clips did Natalia sell altogether in April and May?"
    )
    found = between([(question, "72")], [(question.replace("Natalia", "Natalie"), "72")])
    assert kinds(found) == ["near_row"]


def test_the_same_question_and_answer_beside_another_passage_is_named():
    question = "In which year was the granite basin of the old harbour opened to ships?"
    found = between(
        [(asked(PASSAGES[0], question), "in 1871")], [(asked(PASSAGES[2], question), "In 1871")]
    )
    assert kinds(found) == ["same_question"]


def test_a_long_evaluation_answer_in_a_training_question_is_named():
    answer = "engineers from the far north of the country"
    found = between(
        [(f"Did the {answer} build it?", "Yes")], [("Who built the harbour of Selm?", answer)]
    )
    [leak] = found.leaks
    assert (leak.kind, leak.train[0].id, leak.evaluation[0].id) == ("answer", "train-1", "test-1")


def test_short_common_answers_are_no_leakage():
    train = [(f"Is Paris the capital of country {n}, or is it 2?", "Paris") for n in range(5)]
    assert (
        between(train, [("What is the capital of France?", "Paris"), ("1 + 1?", "2")]).leaks == ()
    )


def test_a_label_that_many_evaluation_rows_have_is_no_leakage():
    label = "not enough information to answer the question"
    train = [(f"Say {label} where statement {n} is unclear.", "yes") for n in range(3)]
    evaluation = [(f"Is claim number {n} about herons true?", label) for n in range(20)]
    assert between(train, evaluation).leaks == ()


def unlike(seed: str) -> str:
    """A text of thirty made-up words, of its own for each seed."""
    generator = random.Random(seed)
    letters = "abcdefghijklmnopqrstuvwxyz"
    return " ".join("".join(generator.choices(letters, k=6)) for _ in range(30))


INSTRUCTION = (
    "You are a careful assistant. Read the passage below and answer the question with the shortest "
    "span of the passage that answers it. Do not explain your answer and add no other words to it."
)


@pytest.mark.parametrize("form", ["line", "inline", "system"])
def test_an_instruction_that_every_row_has_is_no_leakage(form: str):
    def row(n: int, side: str) -> tuple[Message, ...]:
        words = unlike(f"{side} {n}")
        question = f"What of {side} {n * 7}?"
        system = (Message("system", INSTRUCTION),) if form == "system" else ()
        text = {
            "line": f"{INSTRUCTION}\nContext: {words}\nQuestion: {question}",
            "inline": f"{INSTRUCTION} Context: {words} Question: {question}",
            "system": f"Context: {words}\nQuestion: {question}",
        }[form]
        return (*system, Message("user", text), Message("assistant", f"w{n}"))

    sets = [
        (side, [Example(f"{side}{n}", Conversation(row(n, side)), (), side, n) for n in range(60)])
        for side in ("train", "test")
    ]
    assert leakage(*audited(sets)).leaks == ()


def test_an_instruction_is_none_where_several_of_them_take_turns():
    instructions = [f"{INSTRUCTION} Variant {k} of the instruction." for k in range(4)]

    def rows(side: str) -> list[tuple[str, str]]:
        return [
            (
                f"{instructions[n % 4]}\nContext: {unlike(f'{side} {n}')}\nQuestion: what of {n}?",
                f"w{n}",
            )
            for n in range(100)
        ]

    assert between(rows("train"), rows("test")).leaks == ()


def test_short_questions_that_differ_by_a_word_are_two_questions():
    found = between(
        [("When did the movement that became the church begin?", "in 1738")],
        [("Where did the movement that became the church begin?", "in Oxford")],
    )
    assert found.leaks == ()


def test_nothing_is_altered():
    train, evaluation = examples([("a?", "b")]), examples([("a?", "b")], "test.jsonl")
    before = copy.deepcopy((train, evaluation))
    leakage(*audited([("a", train), ("e", evaluation)]))
    assert (train, evaluation) == before


def test_leakage_is_plain_json_data():
    found = between([("Who built it all then?", "A")], [("Who built it all then?", "A")])
    row = json.loads(json.dumps(found.to_dict()))
    assert row["leaks"][0]["train"] == [{"id": "train-1", "file": "train.jsonl", "line": 1}]
    assert (row["leaked_share"], row["clean_ids"]) == (1.0, [])


@needs_shared
@pytest.mark.parametrize("name", ["clean", "half", "noisy", "shuffled", "verbose"])
def test_xquad_candidates_and_their_evaluation_set_share_nothing(name: str):
    train = read_examples(SHARED / f"xquad-en/candidates/{name}.json")
    evaluation = read_examples(SHARED / "xquad-en/eval.json")
    found = leakage(*audited([(name, train), ("eval", evaluation)]))
    assert found.leaks == ()
    assert len(found.clean_ids) == len(evaluation)


@needs_shared
@pytest.mark.parametrize(("copied", "changed"), [(10, 20), (0, 1), (50, 3), (100, 170), (179, 60)])
def test_of_xquad_a_copied_and_a_paraphrased_passage_are_named_and_nothing_else(copied, changed):
    train = read_examples(SHARED / "xquad-en/candidates/clean.json")
    passages = list(dict.fromkeys(passage_of(row) for row in train))
    copies = [row for row in train if passage_of(row) == passages[copied]]
    paraphrased = [
        with_passage(row, reworded(passages[changed]))
        for row in train
        if passage_of(row) == passages[changed]
    ]
    added = [
        dataclasses.replace(row, id=f"added-{n}") for n, row in enumerate([*copies, *paraphrased])
    ]
    evaluation = [*read_examples(SHARED / "xquad-en/eval.json"), *added]
    found = leakage(*audited([("clean", train), ("eval", evaluation)]))
    assert set(found.leaked_ids) == {row.id for row in added}
    by_kind = {leak.kind: leak for leak in found.leaks}
    ids = {kind: {row.id for row in leak.evaluation} for kind, leak in by_kind.items()}
    assert ids["passage"] == {row.id for row in added[: len(copies)]}
    assert ids["near_passage"] == {row.id for row in added[len(copies) :]}
    assert {row.id for row in by_kind["passage"].train} == {row.id for row in copies}


def passage_of(row: Example) -> str:
    return row.conversation.messages[0].content.split("\nQuestion:")[0]


def with_passage(row: Example, passage: str) -> Example:
    question = row.conversation.messages[0].content.split("\nQuestion:")[1]
    messages = (Message("user", f"{passage}\nQuestion:{question}"), *row.conversation.messages[1:])
    return dataclasses.replace(row, conversation=Conversation(messages))


def reworded(passage: str) -> str:
    """Another word in four places."""
    words = passage.split(" ")
    for position in (3, len(words) // 4, len(words) // 2, len(words) - 4):
        words[position] = "however"
    return " ".join(words)
