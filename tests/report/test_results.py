from __future__ import annotations

import copy
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from loracle.decision import wording
from loracle.decision.evidence import Evidence, SetEvidence
from loracle.decision.judge import WordedDecision, decision_record, judge, judgement_record
from loracle.decision.rule import undecided
from loracle.errors import RunFolderError
from loracle.files import write_json
from loracle.report.decision_text import decision_sentence
from loracle.report.results import (
    EvaluationFacts,
    ModelFacts,
    ResultRow,
    RunFacts,
    build_results,
    read_results,
    results_schema,
)
from loracle.report.table import results_table, summary_lines
from loracle.text import shown_score, visible

MODEL = ModelFacts(
    name="embedded",
    revision=None,
    dtype="bfloat16",
    num_parameters=134_515_008,
    base_fingerprint="ab12",
    batching="forest",
    batching_reason="the self-test agreed to 2e-6",
)
EVALUATION = EvaluationFacts(
    "test", 301, ("em", "f1"), {"spaced": 280, "characters": 21}, 61, {"passage": 290, "row": 11}
)


def row(candidate: str, f1: float, seed: int | None = 0, em: float = 0.5) -> ResultRow:
    return ResultRow(
        candidate=candidate,
        seed=seed,
        status="done",
        num_examples=1200,
        num_steps=56,
        supervised_tokens=9000,
        tokens_read=200_884,
        tokens_computed=54_612,
        training_seconds=180.0,
        evaluation_seconds=60.0,
        means={"test": {"em": em, "f1": f1}},
        finish_reasons={"test": {"stop": 300, "length": 1}},
    )


def base_row(f1: float = 0.4) -> ResultRow:
    return replace(row("base", f1, seed=None, em=0.25), num_examples=0, num_steps=0)


def failed_row(candidate: str, reason: str = "step 3: loss nan", seed: int = 0) -> ResultRow:
    return ResultRow(candidate, seed, "failed", reason, num_examples=900)


def results_of(
    *rows: ResultRow,
    evaluations: tuple[EvaluationFacts, ...] = (EVALUATION,),
    metric: str = "f1",
    higher_is_better: bool = True,
    model: ModelFacts = MODEL,
) -> dict[str, Any]:
    created = datetime(2026, 1, 2, 10, 0, tzinfo=UTC)
    judgement = judgement_of(rows, evaluations, metric)
    facts = RunFacts("demo", "9f2c", model, evaluations, metric, higher_is_better, created)
    return build_results(facts, rows, judgement)


def judgement_of(
    rows: Sequence[ResultRow], evaluations: Sequence[EvaluationFacts], metric: str
) -> dict[str, Any]:
    """The record of a judgement on 40 answers for each mean in the rows."""
    done = [row for row in rows if row.status == "done"]
    names = [name for name in dict.fromkeys(row.candidate for row in done) if name != "base"]
    if not any(row.candidate == "base" for row in done):
        names = []

    def answers(mean: float, row: int) -> list[float]:
        spread = np.random.default_rng(row).normal(0, min(mean, abs(1 - mean)) / 4, 40)
        return [float(value) for value in mean + spread - spread.mean()]

    def scores(candidate: str, facts: EvaluationFacts, metric: str) -> np.ndarray:
        return np.array(
            [
                answers(row.means[facts.name][metric], number)
                for number, row in enumerate(done)
                if row.candidate == candidate
            ]
        )

    plan = {"decision": {"metric": metric}, "seeds": [0, 1]}
    costs = dict.fromkeys(names, 1000.0)
    if not names:
        record = {
            "rule": {"metric": metric, "confidence": 0.95, "min_gain": 0.0, "correction": "holm"}
            | {"worth_having": 0.02, "num_comparisons": 0, "power": 0.8},
            "read_first": [],
            "decisions": [
                decision_record(WordedDecision(decision, wording.undecided_sentence(), []))
                for decision in undecided([facts.name for facts in evaluations])
            ],
        }
        return record | {"precision": [], "estimates": [], "comparisons": []}
    sets = tuple(
        SetEvidence(
            facts.name,
            [str(i) for i in range(40)],
            [str(i // 2) for i in range(40)],
            facts.metrics,
            {
                name: {metric: scores(name, facts, metric) for metric in facts.metrics}
                for name in ("base", *names)
            },
        )
        for facts in evaluations
    )
    return judgement_record(judge(Evidence(plan, tuple(names), (), costs, sets)))


def ranks(results: Mapping[str, Any]) -> list[tuple[int | None, str]]:
    return [(entry["rank"], entry["candidate"]) for entry in results["ranking"]]


def printed(results: Mapping[str, Any], width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    for table in results_table(results, width=width):
        console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def line_of(text: str, name: str) -> str:
    return next(line for line in text.splitlines() if name in line)


# The schema

A_FULL_RUN = (
    base_row(),
    row("clean", 0.7),
    row("clean", 0.6, seed=1),
    failed_row("noisy"),
    row("half", 0.5),
    failed_row("half", "out of memory", seed=1),
)


@pytest.mark.parametrize("rows", [A_FULL_RUN, (failed_row("a"),), (failed_row("base"),), ()])
def test_results_agree_with_the_published_schema(rows: tuple[ResultRow, ...]) -> None:
    results = results_of(*rows)
    jsonschema.Draft202012Validator(results_schema()).validate(results)
    assert json.loads(json.dumps(results, allow_nan=False)) == results


def test_the_schema_itself_is_valid() -> None:
    jsonschema.Draft202012Validator.check_schema(results_schema())


def objects_in(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        if "properties" in schema:
            yield schema
        for value in schema.values():
            yield from objects_in(value)


def test_every_field_of_the_schema_is_required_described_and_known() -> None:
    schema = results_schema()
    objects = list(objects_in(schema))
    assert len(objects) == 15
    for definition in objects:
        assert definition["additionalProperties"] is False
        assert definition["required"] == list(definition["properties"])
        for name, field in definition["properties"].items():
            described = schema["$defs"][field["$ref"].split("/")[-1]] if "$ref" in field else field
            assert described.get("description"), name


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where the objects with fixed fields are."""
    if isinstance(value, dict):
        by_name = {"scores", "finish_reasons", "tokenisation", "clusters_by", "held_out"}
        if path and path[-1] not in by_name and not (len(path) > 1 and path[-2] == "scores"):
            yield path
    children: Any = value.items() if isinstance(value, dict) else ()
    children = enumerate(value) if isinstance(value, list) else children
    for key, child in children:
        yield from places(child, (*path, key))


def test_a_field_too_many_or_too_few_is_found_by_the_schema() -> None:
    results = results_of(*A_FULL_RUN)
    validator = jsonschema.Draft202012Validator(results_schema())
    found = list(places(results))
    assert len(found) > 20
    for place in found:
        changed = copy.deepcopy(results)
        target = changed
        for key in place:
            target = target[key]
        target["surprise"] = 1
        assert not validator.is_valid(changed), place
        del target["surprise"]
        target.pop(next(iter(target)))
        assert not validator.is_valid(changed), place


# Rows


def test_the_lift_is_the_mean_minus_the_bases() -> None:
    results = results_of(base_row(0.4), row("a", 0.7), row("b", 0.1))
    lifts = {entry["candidate"]: entry["scores"]["test"]["f1"]["lift"] for entry in results["rows"]}
    assert lifts == pytest.approx({"base": 0.0, "a": 0.3, "b": -0.3})


def test_without_a_base_there_is_no_lift() -> None:
    broken = replace(failed_row("base"), seed=None, means={"test": {"f1": 0.9}})
    results = results_of(broken, row("a", 0.7))
    assert results["rows"][1]["scores"]["test"]["f1"] == {"mean": 0.7, "lift": None}
    assert results["ranking"][0]["lift"] is None
    assert ranks(results) == [(1, "a"), (None, "base")]


def test_finish_reasons_that_did_not_occur_are_zero() -> None:
    only_stopped = replace(row("a", 0.7), finish_reasons={"test": {"stop": 301}})
    results = results_of(only_stopped)
    assert results["rows"][0]["finish_reasons"] == {"test": {"stop": 301, "length": 0}}


def test_the_rows_costs_and_the_head_are_kept() -> None:
    results = results_of(base_row(), row("a", 0.7))
    assert results["created"] == "2026-01-02T10:00:00+00:00"
    assert (results["run"], results["plan_fingerprint"]) == ("demo", "9f2c")
    assert results["model"]["batching_reason"] == "the self-test agreed to 2e-6"
    assert results["evaluations"][0]["tokenisation"] == {"spaced": 280, "characters": 21}
    a = results["rows"][1]
    assert (a["tokens_read"], a["tokens_computed"], a["supervised_tokens"]) == (
        200_884,
        54_612,
        9000,
    )


# The ranking


def test_the_best_is_first_the_base_is_among_them_and_failures_are_last() -> None:
    results = results_of(base_row(0.4), failed_row("broken"), row("low", 0.1), row("high", 0.7))
    assert ranks(results) == [(1, "high"), (2, "base"), (3, "low"), (None, "broken")]
    assert results["ranking"][-1]["reason"] == "step 3: loss nan"
    assert results["num_failed"] == 1


def test_where_lower_is_better_the_lowest_is_first() -> None:
    evaluation = replace(EVALUATION, metrics=("answer_nll",))
    rows = [
        replace(row(name, 0.0), means={"test": {"answer_nll": nll}})
        for name, nll in (("a", 2.5), ("b", 1.5), ("base", 4.0))
    ]
    results = results_of(
        *rows, evaluations=(evaluation,), metric="answer_nll", higher_is_better=False
    )
    assert ranks(results) == [(1, "b"), (2, "a"), (3, "base")]
    assert results["ranking"][0]["lift"] == pytest.approx(-2.5)


def test_equal_means_share_a_rank_and_stand_by_name() -> None:
    results = results_of(row("b", 0.7), row("c", 0.1), row("a", 0.7))
    assert ranks(results) == [(1, "a"), (1, "b"), (3, "c")]


def test_the_ranking_averages_over_seeds_and_evaluations() -> None:
    evaluations = (EVALUATION, replace(EVALUATION, name="other"))

    def both(candidate: str, seed: int | None, test: float, other: float) -> ResultRow:
        means = {"test": {"em": 0.0, "f1": test}, "other": {"em": 0.0, "f1": other}}
        return replace(row(candidate, 0.0, seed=seed), means=means)

    results = results_of(
        both("base", None, 0.1, 0.3),
        both("a", 0, 0.6, 0.2),
        both("a", 1, 0.8, 0.4),
        evaluations=evaluations,
    )
    a = results["ranking"][0]
    assert a["candidate"] == "a"
    assert a["mean"] == pytest.approx(0.5)
    assert a["lift"] == pytest.approx(0.3)
    assert a["scores"]["test"]["f1"] == pytest.approx({"mean": 0.7, "lift": 0.6})
    assert a["scores"]["other"]["f1"] == pytest.approx({"mean": 0.3, "lift": 0.0})
    assert a["num_done"] == 2


def test_the_ranking_and_the_estimates_have_the_same_means() -> None:
    results = results_of(*A_FULL_RUN)
    estimated = {
        entry["candidate"]: entry["mean"]
        for entry in results["estimates"]
        if entry["metric"] == results["decision_metric"]
    }
    ranked = {
        entry["candidate"]: entry["mean"]
        for entry in results["ranking"]
        if entry["mean"] is not None
    }
    assert ranked == pytest.approx(estimated, rel=1e-12)


def test_a_candidate_with_one_failed_seed_is_ranked_by_the_others_and_says_so() -> None:
    results = results_of(*A_FULL_RUN)
    half = next(entry for entry in results["ranking"] if entry["candidate"] == "half")
    assert (half["num_done"], half["num_failed"], half["status"]) == (1, 1, "done")
    assert half["reason"] == "out of memory"
    assert half["mean"] == 0.5
    assert half["seconds"] == 240.0


# Reading


def test_written_results_are_read_back(tmp_path: Path) -> None:
    results = results_of(*A_FULL_RUN)
    write_json(tmp_path / "results.json", results)
    assert read_results(tmp_path / "results.json") == results


@pytest.mark.parametrize("content", [{"version": 2}, {"version": 4}, {}, []])
def test_results_of_another_version_are_refused(tmp_path: Path, content: object) -> None:
    write_json(tmp_path / "results.json", content)
    with pytest.raises(
        RunFolderError, match=r"results\.json has version (2|4|None).*reads version 3"
    ):
        read_results(tmp_path / "results.json")


def test_missing_results_are_named_with_their_path(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"results\.json cannot be read"):
        read_results(tmp_path / "results.json")


# The table


def test_the_table_shows_costs_scores_and_the_lift_with_its_sign() -> None:
    text = printed(results_of(base_row(0.4), row("clean", 0.7), row("odd", 0.1)))
    header = [cell.strip() for cell in line_of(text, "candidate").split("┃")[1:-1]]
    assert header == ["rank", "candidate", "steps", "EM", "F1", "F1 lift", "minutes"]
    assert "test · 301 examples · 61 independent groups" in text

    def cells(name: str) -> list[str]:
        return [cell.strip() for cell in line_of(text, name).split("│")[1:-1]]

    assert cells("clean") == ["1", "clean", "1,200", "50.0", "70.0", "+30.0", "4.0"]
    assert cells("base") == ["2", "base", "–", "25.0", "40.0", "–", "4.0"]
    assert cells("odd") == ["3", "odd", "1,200", "50.0", "10.0", "-30.0", "4.0"]


def test_every_score_has_its_interval_below_it() -> None:
    results = results_of(base_row(0.4), row("clean", 0.7))
    lines = printed(results).splitlines()
    below = lines[next(i for i, line in enumerate(lines) if "clean" in line) + 1]
    _, _, steps, em, f1, lift, _ = (cell.strip() for cell in below.split("│")[1:-1])
    assert steps == "56"
    [estimate] = [
        e for e in results["estimates"] if (e["candidate"], e["metric"]) == ("clean", "f1")
    ]
    assert f1 == f"{100 * estimate['low']:.1f}–{100 * estimate['high']:.1f}"
    assert re.fullmatch(r"4\d\.\d–5\d\.\d", em)
    assert re.fullmatch(r"\+2\d\.\d…\+3\d\.\d", lift)
    assert "intervals at confidence 0.95" in printed(results)


def test_several_evaluations_end_with_the_table_of_their_mean() -> None:
    evaluations = (EVALUATION, replace(EVALUATION, name="other"))

    def both(candidate: str, seed: int | None, f1: float) -> ResultRow:
        means = {"test": {"em": 0.5, "f1": f1}, "other": {"em": 0.5, "f1": f1 / 2}}
        return replace(row(candidate, 0.0, seed=seed), means=means)

    results = results_of(both("base", None, 0.4), both("a", 0, 0.8), evaluations=evaluations)
    last = results_table(results)[-1]
    assert str(last.title) == "mean of 2 evaluation sets"
    assert "60.0" in line_of(printed(results).split("mean of 2")[1], " a ")


def test_the_decision_is_one_line_without_control_characters() -> None:
    results = results_of(base_row(0.4), row("cl\x1bean", 0.7))
    assert decision_sentence(results["decisions"]).startswith(
        "Use cl\\x1bean: F1 70.0, +30.0 points"
    )


def test_a_failed_candidate_is_red_at_the_end_with_its_reason() -> None:
    results = results_of(base_row(), failed_row("broken", "loss \x1b[2J is [bold]nan"))
    table = results_table(results)[0]
    assert [str(row.style) for row in table.rows] == ["dim", "red"]
    text = printed(results)
    assert "failed: loss \\x1b[2J is [bold]nan" in text
    assert "–" in line_of(text, "broken")


def test_there_is_a_table_for_each_evaluation_with_its_own_metrics() -> None:
    evaluations = (
        EVALUATION,
        EvaluationFacts("[b]zh", 50, ("f1", "answer_nll"), {"characters": 50}, 50, {"row": 50}),
    )
    means = {"test": {"em": 0.5, "f1": 0.7}, "[b]zh": {"f1": 0.6, "answer_nll": 2.5}}
    results = results_of(replace(row("a", 0.0), means=means), evaluations=evaluations)
    first, second, _ = results_table(results)
    assert str(first.title) == "test · 301 examples · 61 independent groups"
    assert str(second.title) == "[b]zh · 50 examples · 50 independent groups"
    assert "2.500" in printed(results)


def test_names_are_text_and_chinese_names_align() -> None:
    text = printed(
        results_of(row("噪声数据集", 0.7), row("[red]a[/red]", 0.6), row("plain", 0.5)), width=90
    )
    assert "[red]a[/red]" in text
    widths = {cell_len(line) for line in text.splitlines() if "│" in line}
    assert len(widths) == 1


def test_seeds_have_a_column_where_there_are_several() -> None:
    text = printed(results_of(*A_FULL_RUN))
    assert "1 of 2" in line_of(text, "half")
    assert "seeds" in text
    assert "seeds" not in printed(results_of(base_row(), row("a", 0.7)))


def test_the_table_fits_eighty_columns() -> None:
    results = results_of(base_row(), row("a-candidate-with-a-long-name" * 3, 0.7))
    text = printed(results, width=80)
    assert max(map(cell_len, text.splitlines())) <= 80
    assert "F1 lift" in text


@pytest.mark.parametrize(
    ("metric", "value", "signed", "text"),
    [
        ("f1", 0.61239, False, "61.2"),
        ("em", 1.0, False, "100.0"),
        ("f1", 0.05, True, "+5.0"),
        ("answer_nll", 2.5, False, "2.500"),
        ("answer_nll", -0.25, True, "-0.250"),
    ],
)
def test_shares_are_shown_times_100_and_nats_as_they_are(
    metric: str, value: float, signed: bool, text: str
) -> None:
    assert shown_score(metric, value, signed=signed) == text


def test_control_characters_are_spelled_out_and_text_is_left_alone() -> None:
    assert visible("a\x1b[1m\u202e\x9b 中文 é\n\t🙂") == "a\\x1b[1m\\u202e\\x9b 中文 é\n\t🙂"


# Under the table


def test_the_tokens_that_f1_used_are_stated() -> None:
    only_f1 = replace(EVALUATION, metrics=("f1",))
    assert summary_lines(results_of(evaluations=(only_f1,))) == [
        "f1: words on 280, characters on 21 examples"
    ]


def test_of_several_evaluations_each_states_its_tokens_if_it_has_any() -> None:
    evaluations = (
        EVALUATION,
        EvaluationFacts("zh", 50, ("f1",), {"spaced": 0, "characters": 50}, 50, {"row": 50}),
        EvaluationFacts("official", 10, ("squad_f1",), {"spaced": 10}, 10, {"row": 10}),
    )
    assert summary_lines(results_of(evaluations=evaluations)) == [
        "test: em, f1: words on 280, characters on 21 examples",
        "zh: f1: characters on 50 examples",
    ]


def test_answers_that_were_cut_are_counted() -> None:
    uncut = replace(row("tidy", 0.5), finish_reasons={"test": {"stop": 301}})
    lines = summary_lines(results_of(uncut, row("a", 0.7), row("a", 0.7, seed=1)))
    assert "answers cut at max_new_tokens: a 2 of 602" in lines


def test_padded_batches_are_stated_with_their_reason() -> None:
    model = replace(MODEL, batching="padded", batching_reason="the self-test was off by 0.3")
    lines = summary_lines(results_of(model=model))
    assert "padded batches, no shared prefixes: the self-test was off by 0.3" in lines
    assert not any("padded" in line for line in summary_lines(results_of()))


def test_every_failed_trial_is_listed_with_its_reason() -> None:
    lines = summary_lines(results_of(*A_FULL_RUN))
    assert lines[-3:] == [
        "2 trials failed:",
        "  noisy (seed 0): step 3: loss nan",
        "  half (seed 1): out of memory",
    ]
    assert not any("failed" in line for line in summary_lines(results_of(base_row())))
