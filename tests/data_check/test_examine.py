"""The check: counts that equal training's, gates, hints, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loracle.data.accounting import RowNote
from loracle.data.conversation import Conversation, Example, Message
from loracle.data.reading.dataset import read_examples
from loracle.data.rendering.renderer import Renderer
from loracle.data_check.datasets import check_files, load_renderer
from loracle.data_check.examine import check
from loracle.data_check.result import Check, Intake
from loracle.forest.trie import Sequences, build_forest
from loracle.model.base import end_token_ids, load_tokenizer, wrap_base
from loracle.plan import ModelPlan, TrainingPlan
from tests import tiny
from tests.data.audit.test_leakage import SHARED, needs_shared, unlike


def renderer(**changes) -> Renderer:
    return Renderer(tiny.tokenizer(), frozenset([tiny.tokenizer().eos_token_id]), **changes)


def rows(number: int, *, passage: bool = True, name: str = "a") -> list[Example]:
    """Rows whose answers stand in their passage, two to a passage."""
    examples = []
    for n in range(number):
        text = unlike(f"{name}{n // 2}")
        asked = f"Context: {text}\nQuestion: what of {n}?" if passage else f"What of {name} {n}?"
        messages = (Message("user", asked), Message("assistant", text.split()[n % 5]))
        examples.append(Example(f"{name}-{n}", Conversation(messages), (), f"{name}.jsonl", n + 1))
    return examples


def only(subject: Check):
    [report] = subject.reports
    return report


def messages(subject: Check, severity: str) -> list[str]:
    return [p.message for r in subject.reports for p in r.problems if p.severity == severity]


def test_every_row_read_is_kept_or_dropped_and_named():
    dropped = [RowNote(None, "a.jsonl", 99, "empty text", "answer is empty; fill it")]
    subject = check([Intake("a", "a.jsonl", "candidate", rows(6), dropped=dropped)], renderer())
    accounting = only(subject).accounting
    assert (accounting.num_read, accounting.num_kept) == (7, 6)
    assert accounting.dropped_by_reason == {"empty text": 1}
    assert "1 of 7 rows dropped (14.3%: empty text 1) (a.jsonl:99)" in messages(subject, "warning")
    [problem] = [p for p in only(subject).problems if "dropped" in p.message]
    assert problem.fix == "fix the rows: a.jsonl:99: answer is empty; fill it"


def test_of_each_kind_of_fault_the_first_row_is_told_in_words():
    faults = ("not JSON", "not JSON", "empty text", "key given twice", "id given twice")
    notes = [RowNote(None, "a.jsonl", n, reason, f"fault {n}") for n, reason in enumerate(faults)]
    subject = check([Intake("a", "a.jsonl", "candidate", rows(4), dropped=notes)])
    [problem] = [p for p in only(subject).problems if "dropped" in p.message]
    assert problem.fix == (
        "fix the rows: a.jsonl:0: fault 0 · a.jsonl:2: fault 2 · a.jsonl:3: fault 3"
        " · 1 more kinds of fault"
    )


def test_lengths_and_supervised_tokens_are_the_rendered_rows_own():
    examples = rows(8)
    accounting = only(check([Intake("a", "", "candidate", examples)], renderer())).accounting
    rendered = renderer().training_rows(examples)
    lengths = sorted(len(row.token_ids) for row in rendered)
    assert accounting.lengths.unit == "tokens"
    assert accounting.lengths.total == sum(lengths)
    assert accounting.lengths.longest == lengths[-1]
    # The nearest-rank definition: the smallest length that half of the rows do not exceed.
    assert accounting.lengths.p50 == lengths[3]
    assert accounting.supervised == sum(len(e.conversation.reply) + 1 for e in examples), (
        "one token a character, and the end token"
    )


def test_without_a_tokenizer_lengths_are_in_characters():
    examples = rows(4)
    accounting = only(check([Intake("a", "", "candidate", examples)])).accounting
    assert accounting.lengths.unit == "characters"
    assert accounting.supervised == sum(len(e.conversation.reply) for e in examples)


def test_a_candidate_that_loses_more_than_max_dropped_is_refused_alone():
    notes = [RowNote(None, "a.jsonl", n, "not JSON", "bad JSON") for n in range(3)]
    few = Intake("few", "a.jsonl", "candidate", rows(97), dropped=notes, max_dropped=0.05)
    many = Intake("many", "a.jsonl", "candidate", rows(7), dropped=notes, max_dropped=0.05)
    subject = check([few, many], renderer())
    assert list(subject.refusals) == ["many"]
    assert "3 of 10 rows dropped (30.0%: not JSON 3)" in subject.refusals["many"]
    assert "more than max_dropped 0.05" in subject.refusals["many"]
    assert subject.exit_code == 1


def test_rows_dropped_by_policy_are_counted_but_do_not_fail_a_candidate():
    notes = [RowNote(None, "a", n, "unanswerable", "none", by_policy=True) for n in range(9)]
    subject = check([Intake("a", "a", "candidate", rows(9), dropped=notes, max_dropped=0.05)])
    assert subject.refusals == {}
    assert only(subject).accounting.num_read == 18


def test_an_evaluation_set_that_loses_too_much_is_an_error():
    notes = [RowNote(None, "e", n, "not JSON", "bad JSON") for n in range(3)]
    subject = check([Intake("e", "e", "evaluation", rows(3), dropped=notes, max_dropped=0.05)])
    assert subject.exit_code == 2


def test_rows_too_long_count_as_lost():
    long = [tiny.example("x" * 300, "y", id=f"long{n}") for n in range(2)]
    subject = check(
        [Intake("a", "a", "candidate", [*rows(8), *long], max_dropped=0.05)],
        renderer(max_length=320, overlong="drop"),
    )
    assert "too long 2" in subject.refusals["a"]


def test_a_candidate_without_a_row_left_is_refused_and_an_evaluation_set_is_an_error():
    long = [tiny.example("x" * 300, "y")]
    limits = {"max_length": 100, "overlong": "drop"}
    candidate = check([Intake("a", "a", "candidate", long)], renderer(**limits))
    assert (list(candidate.refusals), candidate.exit_code) == (["a"], 1)
    evaluation = check([Intake("a", "a", "evaluation", long)], renderer(**limits), 4)
    assert (evaluation.errors, evaluation.exit_code) == (["a: no row is left to use"], 2)


def test_what_cannot_be_read_or_rendered_is_an_error_of_that_dataset():
    unreadable = Intake("a", "a.jsonl", "candidate", error=["there is no file a.jsonl"])
    broken = renderer(template_kwargs={})
    broken.tokenizer = type(
        "T",
        (),
        {
            "bos_token_id": None,
            "apply_chat_template": lambda self, *a, **k: "".join(m["content"] for m in a[0]),
            "__call__": lambda self, text, **k: tiny.tokenizer()(text, **k),
        },
    )()
    subject = check([unreadable, Intake("b", "b", "candidate", rows(2))], broken)
    assert subject.errors[0] == "there is no file a.jsonl"
    assert (
        "does not close the assistant turn with any of the model's end tokens" in subject.errors[1]
    )
    assert subject.exit_code == 2


def test_leakage_is_gated():
    examples = rows(4)
    clean = [Intake("e", "e", "evaluation", rows(4, name="other"))]
    known = [Intake("e", "e", "evaluation", examples)]
    assert check([Intake("a", "a", "candidate", examples), *clean]).exit_code == 0
    subject = check([Intake("a", "a", "candidate", examples), *known])
    assert subject.exit_code == 1
    assert subject.leakages[0].clean_ids == ()


def test_the_sharing_ratio_is_the_forests():
    examples = rows(12)
    sharing = only(check([Intake("a", "", "candidate", examples)], renderer())).sharing
    rendered = renderer().training_rows(examples)
    sequences = Sequences.of([r.token_ids for r in rendered], [r.weights for r in rendered])
    # What no target needs is left out of both, the last token of a row that is.
    assert sharing.num_separate == sum(len(r.token_ids) - 1 for r in rendered)
    assert sharing.num_forest == build_forest(sequences, max_row_tokens=1024).num_nodes
    assert sharing.ratio == pytest.approx(sharing.num_separate / sharing.num_forest)
    assert sharing.num_passage_first is None


@pytest.mark.parametrize("tokens", [True, False])
def test_a_question_before_its_passage_is_told_what_the_passage_first_would_save(tokens: bool):
    def turned(example: Example) -> Example:
        passage, question = example.conversation.messages[0].content.split("\n")
        text = Message("user", f"{question}\n{passage}")
        turns = (text, example.conversation.messages[1])
        return Example(example.id, Conversation(turns), (), example.file, example.line)

    examples = [
        Example(
            f"{n}", Conversation((Message("user", f"{unlike(str(n // 6))}\nQuestion: of {n}?"),
            Message("assistant", "x"))), (), "a", n + 1,
        )
        for n in range(24)
    ]  # fmt: skip
    first = only(check([Intake("a", "", "candidate", examples)], renderer() if tokens else None))
    subject = check(
        [Intake("a", "", "candidate", [turned(e) for e in examples])],
        renderer() if tokens else None,
    )
    sharing = only(subject).sharing
    assert sharing.num_passage_first == pytest.approx(first.sharing.num_forest, rel=0.03)
    assert first.sharing.num_passage_first is None
    [hint] = [p for p in only(subject).problems if p.severity == "note"]
    assert hint.fix == f"put the passage first: {sharing.possible_gain:.1f} times fewer tokens"
    assert sharing.possible_gain > 2


def test_answers_unlike_the_evaluations_are_named():
    wrong = rows(20)
    for n, example in enumerate(wrong):
        turns = (example.conversation.messages[0], Message("assistant", f"nowhere{n}"))
        wrong[n] = Example(example.id, Conversation(turns), (), "a", n)
    evaluation = Intake("e", "e", "evaluation", rows(20, name="other"))
    subject = check([Intake("a", "a", "candidate", wrong), evaluation])
    assert any("where 100% of e's do" in text for text in messages(subject, "warning"))
    long = [
        Example(e.id, Conversation((e.conversation.messages[0], Message("assistant", text))), (),
                "a", n)
        for n, e in enumerate(rows(20))
        for text in [" ".join(e.conversation.messages[0].content.split()[2:14])]
    ]  # fmt: skip
    subject = check([Intake("a", "a", "candidate", long), evaluation])
    assert any("times longer than e's" in text for text in messages(subject, "note"))


def test_the_check_is_plain_json_data():
    subject = check(
        [Intake("a", "a", "candidate", rows(4)), Intake("e", "e", "evaluation", rows(4))],
        renderer(),
        4,
    )
    found = json.loads(json.dumps(subject.to_dict()))
    assert found["version"] == 1
    assert found["datasets"][0]["accounting"]["num_kept"] == 4
    assert found["leakage"][0]["leaked_share"] == 1.0


def test_the_tokenizer_alone_says_what_the_loaded_model_says(tmp_path):
    folder = tiny.save_model(tmp_path)
    plan = ModelPlan(name=str(folder))
    subject = load_renderer(plan, TrainingPlan())
    tokenizer = load_tokenizer(str(folder), None, False)
    base = wrap_base("m", tiny.model(), tokenizer)
    assert subject.end_token_ids == end_token_ids(base.model, tokenizer)
    assert subject.max_length == base.max_length_tokens == 2048


@needs_shared
def test_of_xquads_candidates_the_check_names_the_noisy_the_shuffled_and_the_verbose():
    folder = Path(SHARED) / "xquad-en"
    names = ("clean", "half", "noisy", "shuffled", "verbose")
    paths = [str(folder / f"candidates/{name}.json") for name in names]
    subject = check_files(paths, [str(folder / "eval.json")])
    told = {
        report.name: [p.message for p in report.problems if "eval's" in p.message]
        for report in subject.reports[:-1]
    }
    assert told["clean"] == told["half"] == []
    assert "437 of 889 answers appear in their passage (49%)" in told["noisy"][0]
    assert "10 of 889 answers" in told["shuffled"][0]
    assert "times longer" in told["verbose"][0]
    assert subject.exit_code == 0
    counts = {r.name: r.accounting.num_kept for r in subject.reports}
    assert counts == {
        **{name: len(read_examples(path)) for name, path in zip(names, paths, strict=True)},
        "eval": 301,
    }


def asked(*answers: str, metrics: tuple[str, ...]) -> Intake:
    """An evaluation set with these answers."""
    examples = [
        Example(
            f"q{n}",
            Conversation((Message("user", f"What of {n}?"), Message("assistant", answer))),
            (answer,),
            "test.jsonl",
            n,
        )
        for n, answer in enumerate(answers, start=1)
    ]
    return Intake("test", "test.jsonl", "evaluation", examples, metrics=metrics)


def test_references_that_a_metric_cannot_read_are_an_error_with_counts_and_lines():
    subject = check([asked("5", "Denver", "6", "none", metrics=("em", "numeric"))])
    assert subject.exit_code == 2
    [message] = subject.errors
    assert message == (
        "test.jsonl: numeric reads no number in the references of 2 of 4 rows (test.jsonl:2, "
        "test.jsonl:4), as in 'Denver', so every answer to them would score 0; use another metric "
        "for them, or fix or remove these rows"
    )


def test_the_metric_that_reads_the_references_is_named_in_the_error():
    [message] = check([asked("A", "B", "C", metrics=("numeric",))]).errors
    assert "use choice, which reads them" in message


@pytest.mark.parametrize(
    ("answers", "kind", "advised"),
    [
        (("A", "B", "(D)"), "letters", "choice"),
        (
            ("6 * 7 = 42 #### 42", "#### 3"),
            "worked answers that end in #### and a number",
            "numeric",
        ),
    ],
)
def test_comparing_texts_is_warned_of_where_answers_are_letters_or_worked(answers, kind, advised):
    subject = check([asked(*answers, metrics=("em", "f1"))])
    assert subject.exit_code == 0
    [problem] = [p for p in only(subject).problems if "compare whole texts" in p.message]
    assert problem.severity == "warning"
    assert problem.message.startswith(f"em, f1 compare whole texts, but the references are {kind}")
    assert problem.fix == f"use {advised}: metrics: [{advised}], and decision.metric: {advised}"


@pytest.mark.parametrize("metrics", [("choice",), ("em", "choice")])
def test_nothing_is_said_where_the_metric_for_letters_is_computed(metrics):
    subject = check([asked("A", "B", metrics=metrics)])
    assert not messages(subject, "error")
    assert not [m for m in messages(subject, "warning") if "compare" in m]


def test_references_longer_than_an_answer_may_be_are_counted():
    subject = check([asked("abc", "abcdef", "abcdefgh", metrics=("em",))], renderer(), 5)
    [problem] = [p for p in only(subject).problems if "max_new_tokens" in p.message]
    assert problem.severity == "warning"
    assert problem.message == (
        "the references of 2 of 3 rows are longer than generation.max_new_tokens 5 "
        "(test.jsonl:2, test.jsonl:3): such answers would be cut"
    )
    assert problem.fix == ("raise generation.max_new_tokens; the longest reference has 8 tokens")
