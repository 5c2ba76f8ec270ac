"""From a run folder's files to the judgement, without a model."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from loracle.decision.compare import compare_runs, comparison_record
from loracle.decision.evidence import read_evidence
from loracle.decision.judge import frozen_rule, judge, judgement_record, other_rule
from loracle.errors import PlanError, RunFolderError
from loracle.files import JsonLinesWriter, write_json
from loracle.plan import DecisionPlan
from loracle.report.decision_text import (
    decision_lines,
    other_rule_note,
    run_comparison_lines,
    run_comparison_tables,
)
from loracle.report.results import results_schema
from loracle.run_folder.folder import RunFolder, TrialFolder
from tests.trial_summaries import summary

RATES = {"base": 0.2, "clean": 0.8, "noisy": 0.1}


def write_trial(
    folder: TrialFolder, rate: float, kind: int, sets: Mapping[str, int], *, clusters: bool = True
) -> None:
    generator = np.random.default_rng(kind)
    for name, num in sets.items():
        right = (generator.permutation(num) < round(rate * num)).astype(float)
        with JsonLinesWriter(folder.predictions(name)) as predictions:
            for i in range(num):
                cluster = {"cluster": f"passage:{i - i % 3}"} if clusters else {}
                predictions.write({"id": f"q{i}", **cluster, "prediction": "x", "answers": ["x"]})
        with JsonLinesWriter(folder.scores(name)) as scores:
            for i in range(num):
                scores.write({"id": f"q{i}", "em": right[i], "f1": right[i]})
    folder.finish(summary(num_tokens_computed=1000 * (kind + 1)), plan_fingerprint="f")


def write_run(
    root: Path,
    rates: Mapping[str, float] = RATES,
    sets: Mapping[str, int] = {"test": 90},
    seeds: tuple[int, ...] = (0,),
    *,
    candidates: tuple[str, ...] | None = None,
    decision: Mapping[str, object] = {"metric": "f1"},
    clusters: bool = True,
) -> Path:
    """A finished run. candidates: in the plan; those without a rate have no finished trial."""
    folder = RunFolder(root)
    names = candidates or tuple(name for name in rates if name != "base")
    plan = {
        "candidates": [{"name": name, "sha256": name} for name in names],
        "evaluation": [
            {"name": name, "metrics": ["em", "f1"], "sha256": f"{name}-{num}"}
            for name, num in sets.items()
        ],
        "seeds": list(seeds),
        "decision": dict(decision),
    }
    write_json(folder.plan, {"version": 1, "fingerprint": "f", "plan": plan})
    for kind, (name, rate) in enumerate(rates.items()):
        for seed in (0,) if name == "base" else seeds:
            place = folder.base if name == "base" else folder.trial(name, seed)
            write_trial(place, rate, 10 * kind + seed, sets, clusters=clusters)
    return root


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_run_is_judged_from_its_files_and_no_file_changes(tmp_path):
    write_run(tmp_path)
    before = content_of(tmp_path)
    first, again = (judgement_record(judge(read_evidence(tmp_path))) for _ in range(2))
    assert json.dumps(first) == json.dumps(again)
    assert content_of(tmp_path) == before
    (decision,) = first["decisions"]
    assert (decision["verdict"], decision["winner"]) == ("use", "clean")
    # One answer right in ten against two in ten: ninety questions cannot tell.
    assert decision["harmful"] == []
    assert first["rule"]["num_comparisons"] == 3
    metrics = [estimate["metric"] for estimate in first["estimates"]]
    assert metrics == ["em"] * 3 + ["f1"] * 3


def test_the_record_has_the_published_form(tmp_path):
    record = judgement_record(judge(read_evidence(write_run(tmp_path, sets={"a": 60, "b": 30}))))
    schema = results_schema()
    for key, value in record.items():
        part = {"$defs": schema["$defs"], **schema["properties"][key]}
        jsonschema.Draft202012Validator(part).validate(value)
    assert [decision["evaluation"] for decision in record["decisions"]] == [None, "a", "b"]


def test_costs_are_the_tokens_computed_by_the_seeds_that_finished(tmp_path):
    evidence = read_evidence(write_run(tmp_path, seeds=(0, 1)))
    assert evidence.costs == {"clean": 11_500.0, "noisy": 21_500.0}
    assert evidence.sets[0].scores["clean"]["f1"].shape == (2, 90)
    assert evidence.sets[0].scores["base"]["f1"].shape == (1, 90)


def test_candidates_without_a_finished_trial_are_named_and_the_others_judged(tmp_path):
    write_run(tmp_path, candidates=("clean", "broken", "noisy"))
    evidence = read_evidence(tmp_path)
    assert (evidence.candidates, evidence.unfinished) == (("clean", "noisy"), ("broken",))
    reasons = judge(evidence).decisions[0].reasons
    assert any("no trial finished: broken" in reason.en for reason in reasons)


def test_one_seed_of_two_is_enough_to_be_judged(tmp_path):
    write_run(tmp_path, seeds=(0, 1))
    RunFolder(tmp_path).trial("clean", 1).done.unlink()
    scores = read_evidence(tmp_path).sets[0].scores
    assert (len(scores["clean"]["f1"]), len(scores["noisy"]["f1"])) == (1, 2)
    assert judge(read_evidence(tmp_path)).decisions[0].decision.winner == "clean"


def test_without_any_finished_candidate_the_verdict_is_undecided(tmp_path):
    write_run(tmp_path, rates={"base": 0.2}, candidates=("clean",))
    record = judgement_record(judge(read_evidence(tmp_path)))
    assert record["decisions"][0]["verdict"] == "undecided"
    assert decision_lines(record["decisions"])[0].startswith("Undecided")


def test_a_run_without_its_base_is_refused(tmp_path):
    write_run(tmp_path)
    RunFolder(tmp_path).base.done.unlink()
    with pytest.raises(RunFolderError, match=r"base is not finished.*`loracle resume"):
        read_evidence(tmp_path)


def test_what_is_no_run_folder_is_refused(tmp_path):
    with pytest.raises(RunFolderError, match="is not a run folder"):
        read_evidence(tmp_path)


def test_scores_that_were_changed_by_hand_are_refused(tmp_path):
    write_run(tmp_path)
    path = RunFolder(tmp_path).trial("noisy", 0).scores("test")
    path.write_text(path.read_text().replace('"f1": 0.0', '"f1": 1.0'))
    with pytest.raises(RunFolderError, match=r"noisy--s0/scores/test\.jsonl has changed since"):
        read_evidence(tmp_path)
    path.unlink()
    with pytest.raises(RunFolderError, match=r"test\.jsonl is missing"):
        read_evidence(tmp_path)


def test_a_run_from_before_clusters_is_refused_with_what_to_do(tmp_path):
    write_run(tmp_path, clusters=False)
    with pytest.raises(RunFolderError, match=r"test\.jsonl:1: has no `cluster`.*run it again"):
        read_evidence(tmp_path)


def test_a_trial_that_answered_other_questions_is_refused(tmp_path):
    write_run(tmp_path)
    folder = RunFolder(tmp_path).trial("noisy", 0)
    folder.clear()
    write_trial(folder, 0.1, 3, {"test": 60})
    with pytest.raises(RunFolderError, match=r"its 60 questions are not those of the base's"):
        read_evidence(tmp_path)


def test_an_earlier_plan_is_read_with_the_rule_it_did_not_have(tmp_path):
    rule = frozen_rule(read_evidence(write_run(tmp_path, decision={"metric": "em"})))
    assert rule == DecisionPlan(metric="em", confidence=0.95, min_gain=0.0)


def test_another_rule_changes_metric_and_confidence_and_is_checked():
    frozen = DecisionPlan(metric="f1", min_gain=0.02)
    assert other_rule(frozen, metric=None, confidence=None) == frozen
    changed = other_rule(frozen, metric="em", confidence=0.9)
    # Two points of f1 are no statement about em.
    assert changed == DecisionPlan(metric="em", confidence=0.9, min_gain=0.0)
    with pytest.raises(PlanError) as caught:
        other_rule(frozen, metric="f2", confidence=95.0)
    assert len(caught.value.problems) == 2
    assert "least gain 0.02" in other_rule_note(frozen)


def test_a_metric_that_was_not_computed_is_refused(tmp_path):
    evidence = read_evidence(write_run(tmp_path))
    with pytest.raises(PlanError, match=r"squad_em was not computed on test.*: em, f1"):
        judge(evidence, DecisionPlan(metric="squad_em"))


def test_decisions_of_several_sets_are_printed_with_reasons_in_both_languages(tmp_path):
    record = judgement_record(judge(read_evidence(write_run(tmp_path, sets={"a": 60, "b": 60}))))
    english, chinese = (decision_lines(record["decisions"], one) for one in ("en", "zh"))
    assert len(english) == len(chinese)
    assert english[0].startswith("Use clean: F1 80.0")
    assert any(line.startswith("On b alone: Use clean") for line in english)
    assert chinese[0].startswith("使用 clean")
    assert sum(line.startswith("  Rule: ") for line in english) == 1


# Two runs


def tables_text(found) -> str:
    from io import StringIO

    from rich.console import Console

    console = Console(file=StringIO(), width=100, color_system=None)
    for table in run_comparison_tables(found):
        console.print(table)
    return console.file.getvalue()


def test_two_runs_are_compared_question_by_question(tmp_path):
    a = read_evidence(write_run(tmp_path / "a"))
    b = read_evidence(write_run(tmp_path / "b", rates={"base": 0.2, "clean": 0.3, "new": 0.9}))
    found = compare_runs(a, b)
    rows = [(comparison.a, comparison.b) for comparison in found.comparisons]
    assert rows == [
        ("B: base", "A: base"),
        ("B: clean", "A: clean"),
        ("B: new", "A: clean"),
    ]
    base, clean, best = found.comparisons
    assert (base.difference, base.better) == (0.0, None)
    assert clean.difference == pytest.approx(0.3 - 0.8, abs=0.01)
    assert clean.better == "A: clean"
    assert best.difference == pytest.approx(0.1, abs=0.01)
    assert any("candidates" in line for line in found.plan_changes)
    text = tables_text(found)
    assert re.search(r"clean +│ 80\.0 │ 30\.0 │ +-50\.0", text)
    assert "A: clean · B: new" in text
    assert json.loads(json.dumps(comparison_record(found)))["metric"] == "f1"


def test_a_run_compared_with_itself_shows_no_difference(tmp_path):
    evidence = read_evidence(write_run(tmp_path, seeds=(0, 1)))
    found = compare_runs(evidence, evidence, metric="em", confidence=0.9)
    assert {comparison.better for comparison in found.comparisons} == {None}
    assert (found.metric, found.confidence) == ("em", 0.9)
    assert run_comparison_lines(found) == ["The plans are the same."]


def test_only_sets_with_the_same_questions_are_compared_and_the_others_are_named(tmp_path):
    a = read_evidence(write_run(tmp_path / "a", sets={"test": 90, "old": 30}))
    b = read_evidence(write_run(tmp_path / "b", sets={"test": 90, "old": 60}))
    found = compare_runs(a, b)
    assert (found.shared, found.unshared) == (["test"], ["old", "old"])
    c = read_evidence(write_run(tmp_path / "c", sets={"test": 60}))
    with pytest.raises(RunFolderError, match=r"share no evaluation set.*test \(60 questions\)"):
        compare_runs(a, c)


def test_several_shared_sets_have_their_mean_compared_too(tmp_path):
    evidence = read_evidence(write_run(tmp_path, sets={"test": 90, "old": 30}))
    found = compare_runs(evidence, evidence)
    assert "mean of 2 sets" in tables_text(found)


def test_runs_that_computed_other_metrics_are_refused(tmp_path):
    evidence = read_evidence(write_run(tmp_path))
    with pytest.raises(PlanError, match=r"cmrc_em was not computed by both.*both: em, f1"):
        compare_runs(evidence, evidence, metric="cmrc_em")
