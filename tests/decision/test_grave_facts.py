"""What could overturn a decision, found in the run's files and said in both languages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from loracle.decision.evidence import (
    Endings,
    Evidence,
    Learning,
    LostRows,
    SetEvidence,
    read_evidence,
)
from loracle.decision.grave_facts import GraveFact
from loracle.decision.judge import judge, judgement_record
from loracle.files import json_lines_bytes, write_atomically, write_json
from loracle.report.decision_text import read_first_lines
from loracle.run_folder.folder import RunFolder
from tests.decision.test_judge import write_run

NUM = 60
PLAN: Mapping[str, Any] = {
    "decision": {"metric": "f1"},
    "seeds": [0, 1],
    "generation": {"max_new_tokens": 40},
}


def right(*places: range, num: int = NUM) -> Mapping[str, np.ndarray]:
    """The scores of a row that is right at these places, the same for two seeds."""
    values = np.zeros((2, num))
    for inside in places:
        values[:, list(inside)] = 1.0
    return {"f1": values}


def evidence_of(num_groups: int = NUM, **rows: Mapping[str, np.ndarray]) -> Evidence:
    clusters = [str(i % num_groups) for i in range(NUM)]
    ids = [f"q{i}" for i in range(NUM)]
    names = tuple(row for row in rows if row != "base")
    sets = (SetEvidence("test", ids, clusters, ("f1",), rows),)
    return Evidence(PLAN, names, (), dict.fromkeys(names, 1000.0), sets)


def clean_run() -> Evidence:
    return evidence_of(base=right(range(10)), a=right(range(50)), b=right(range(25)))


def facts_of(evidence: Evidence) -> list[GraveFact]:
    return list(judge(evidence).read_first)


def only(evidence: Evidence) -> GraveFact:
    (fact,) = facts_of(evidence)
    return fact


def test_where_nothing_is_known_against_it_the_list_is_empty():
    assert facts_of(clean_run()) == []
    assert read_first_lines([]) == []


def test_a_base_cut_on_more_than_half_is_told_of_in_the_list_and_in_the_verdict():
    found = judge(replace(clean_run(), endings={"base": {"test": Endings(120, 75)}}))
    (fact,) = found.read_first
    assert (fact.kind, fact.candidates) == ("base_cut", ("base",))
    assert fact.text.en.startswith("62% of the base's answers were cut off at 40 tokens")
    assert "基座模型有 62% 的回答被截断（上限 40 个 token）" in fact.text.zh
    sentence = found.decisions[0].sentence
    assert sentence.en.startswith("Use a: ")
    assert sentence.en.endswith("But 62% of the base's answers were cut off.")


def test_a_short_training_whose_loss_hardly_fell_is_told_of_with_what_to_change():
    learning = {
        "a": (Learning(6, 3.03, 2.52), Learning(6, 3.0, 2.9)),
        "b": (Learning(12, 2.44, 0.37),),
    }
    plan = {**PLAN, "training": {"batch_size": 64}}
    fact = only(replace(clean_run(), plan=plan, learning=learning))
    assert (fact.kind, fact.candidates) == ("hardly_trained", ("a",))
    assert "a from 3.03 to 2.52 in 6 steps." in fact.text.en
    assert "Lower `training.batch_size` (64 now)" in fact.text.en
    assert "a 在 6 步内从 3.03 降到 2.52" in fact.text.zh


def test_where_another_candidate_learned_in_as_few_steps_a_high_loss_is_the_datas():
    wrong = (Learning(15, 2.36, 2.21),)
    learned = replace(clean_run(), learning={"a": wrong, "b": (Learning(15, 1.6, 0.3),)})
    assert facts_of(learned) == []
    longer = replace(clean_run(), learning={"a": wrong, "b": (Learning(16, 1.6, 0.3),)})
    assert [fact.candidates for fact in facts_of(longer)] == [("a",)]


@pytest.mark.parametrize(
    "learning",
    [
        pytest.param(Learning(50, 3.0, 2.9), id="enough steps"),
        pytest.param(Learning(6, 3.0, 2.4), id="a loss that fell"),
    ],
)
def test_a_high_loss_after_many_steps_or_one_that_fell_is_not_told_of(learning):
    assert facts_of(replace(clean_run(), learning={"a": (learning,)})) == []


def test_the_losses_are_means_over_quarters_of_the_steps_of_finished_trials(tmp_path):
    write_run(tmp_path, {"base": 0.2, "a": 0.8})
    trial = RunFolder(tmp_path).trial("a", 0)
    steps = [{"step": 1 + i, "loss": loss} for i, loss in enumerate([4.0, 3.0, 3.0, 2.5] * 2)]
    write_atomically(trial.steps, json_lines_bytes(steps))
    trial.finish(trial.summary(), plan_fingerprint="f")
    assert read_evidence(tmp_path).learning["a"] == (Learning(8, 3.5, 2.75),)


def test_cut_answers_are_told_of_by_candidate_from_one_in_twenty_on():
    endings = {
        "base": {"test": Endings(120, 60)},
        "a": {"test": Endings(120, 12)},
        "b": {"test": Endings(120, 6)},
    }
    fact = only(replace(clean_run(), endings=endings))
    assert (fact.kind, fact.candidates) == ("answers_cut", ("base", "a"))
    assert "base 50%, a 10%." in fact.text.en
    assert "base 50%，a 10%。" in fact.text.zh


def test_leakage_that_changes_the_verdict_says_which_it_would_be():
    # a is better than b on the questions it has seen, and worse on the others.
    evidence = evidence_of(
        base=right(), a=right(range(30), range(30, 33)), b=right(range(5), range(30, 55))
    )
    leaked = {"a": {"test": frozenset(f"q{i}" for i in range(30))}}
    fact = only(replace(evidence, leaked=leaked))
    assert (fact.kind, fact.candidates) == ("leakage", ("a",))
    assert "a with 30 of 60 questions of test" in fact.text.en
    assert "On the other 30 the verdict is different: Use b: F1 83.3" in fact.text.en
    assert "其余 30 题上的结论不同：使用 b" in fact.text.zh


def test_leakage_that_changes_nothing_says_so():
    fact = only(replace(clean_run(), leaked={"b": {"test": frozenset({"q0"})}}))
    assert "On the other 59 the verdict is the same." in fact.text.en
    assert "其余 59 题上的结论相同" in fact.text.zh


def test_leakage_of_every_question_leaves_none_to_judge_by():
    everything = frozenset(f"q{i}" for i in range(NUM))
    fact = only(replace(clean_run(), leaked={"b": {"test": everything}}))
    assert "No question is free of it." in fact.text.en


def test_few_groups_a_metric_at_0_and_lost_rows_are_told_of():
    few = evidence_of(9, base=right(range(10)), a=right(range(50)))
    assert only(few).text.en.startswith(
        "Fewer than 10 independent groups of questions: test has 9."
    )
    nothing = evidence_of(base=right(), a=right())
    assert only(nothing).kind == "all_zero"
    assert "F1 (test)" in only(nothing).text.en
    lost = only(replace(clean_run(), lost={"a": LostRows(1_200, 3), "b": LostRows(50, 0)}))
    assert (lost.kind, lost.candidates) == ("rows_lost", ("a",))
    assert lost.text.en == "Rows not trained on: a 3 of 1,200 rows."
    assert lost.text.zh == "未参与训练的行：a 1,200 行中的 3 行。"


def test_candidates_and_seeds_that_did_not_finish_are_told_of():
    evidence = clean_run()
    (one,) = evidence.sets
    fewer = {**one.scores, "b": {"f1": one.scores["b"]["f1"][:1]}}
    evidence = replace(evidence, unfinished=("c",), sets=(replace(one, scores=fewer),))
    first, second = facts_of(evidence)
    assert first.text.en == "Not judged, because no trial finished: c."
    assert second.text.en == "Judged on fewer seeds than planned: b 1 / 2."


def test_all_is_read_from_the_run_folder_and_stands_in_the_record(tmp_path):
    write_run(tmp_path)
    check = {
        "datasets": [
            {
                "name": "clean",
                "kind": "candidate",
                "accounting": {"num_read": 100, "dropped_by_reason": {"no answer": 2, "long": 1}},
            },
            {"name": "test", "kind": "evaluation", "accounting": None},
        ],
        "leakage": [
            {"candidate": "clean", "evaluation": "test", "leaked_ids": ["q0"], "clean_ids": []},
            {"candidate": "noisy", "evaluation": "test", "leaked_ids": [], "clean_ids": ["q0"]},
        ],
    }
    write_json(tmp_path / "check.json", check)
    evidence = read_evidence(tmp_path)
    assert evidence.leaked == {"clean": {"test": frozenset({"q0"})}}
    assert evidence.lost == {"clean": LostRows(100, 3)}
    record = judgement_record(judge(evidence))["read_first"]
    assert [fact["kind"] for fact in record] == ["leakage", "rows_lost", "one_seed"]
    lines = read_first_lines(record, "zh")
    assert lines[0] == "请先阅读："
    assert lines[-1].startswith("- 只用了一个随机种子")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_control_characters_in_names_command_no_terminal(language):
    evidence = replace(clean_run(), unfinished=("c\x1b[2J",))
    record = judgement_record(judge(evidence))["read_first"]
    assert "\x1b" not in "".join(read_first_lines(record, language))
