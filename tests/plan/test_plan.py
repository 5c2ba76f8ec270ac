from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from loracle import plan as plan_module
from loracle.errors import DataError, PlanError
from loracle.plan import (
    CandidatePlan,
    EvaluationPlan,
    HeldOutFile,
    HoldoutPlan,
    Plan,
    Section,
    difference,
    file_problem,
    fingerprint,
    freeze,
    load_plan,
    load_unmeasured_plan,
    nearest,
)

FILES: dict[str, Any] = {"candidates": ["a.jsonl"], "evaluations": ["test.jsonl"]}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder with the data files of a small plan."""
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "test"):
        Path(f"{name}.jsonl").write_text(f"rows of {name}\n")
    return tmp_path


def plan_of(text: str, **flags: Any) -> Plan:
    """The plan of a YAML text, with two data files where it names none."""
    Path("plan.yaml").write_text(text, encoding="utf-8")
    return load_plan("plan.yaml", **{**FILES, **flags})


def problems_of(text: str = "", **flags: Any) -> tuple[str, ...]:
    with pytest.raises(PlanError) as caught:
        plan_of(text, **flags)
    return caught.value.problems


def test_two_file_names_are_a_whole_plan() -> None:
    plan = load_plan(candidates=["a.jsonl", Path("b.jsonl")], evaluations=["test.jsonl"])

    assert [(entry.path, entry.name) for entry in plan.candidates] == [
        ("a.jsonl", "a"),
        ("b.jsonl", "b"),
    ]
    assert plan.evaluation == [EvaluationPlan(path="test.jsonl", metrics=["em", "f1"])]
    assert (plan.model.name, plan.seeds, plan.decision.metric) == ("embedded", [0], "f1")
    assert (plan.training.epochs, plan.training.batch_size, plan.lora.r) == (3.0, 64, 8)


def test_bare_strings_stand_for_candidates_evaluation_and_model() -> None:
    Path("plan.yaml").write_text(
        "model: org/name\ncandidates: [a.jsonl, {path: b.jsonl, name: two, limit: 5}]\n"
        "evaluation: test.jsonl\n"
    )

    plan = load_plan("plan.yaml")

    assert plan.model.name == "org/name"
    assert plan.candidates[1] == CandidatePlan(path="b.jsonl", name="two", limit=5)
    assert plan.evaluation[0].name == "test"


def test_a_plan_made_in_python_takes_the_same_short_forms() -> None:
    plan = Plan.model_validate({"candidates": ["a.jsonl"], "evaluation": "test.jsonl"})

    assert plan == load_plan(**FILES)


def test_an_empty_section_means_its_defaults() -> None:
    assert plan_of("training:\nseeds:\n") == plan_of("")


def test_a_plan_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        plan_of("").training.epochs = 5


def test_every_field_is_documented() -> None:
    sections = [value for value in vars(plan_module).values() if isinstance(value, type)]
    fields = [
        (section.__name__, name, field.description)
        for section in sections
        if issubclass(section, BaseModel)
        for name, field in section.model_fields.items()
    ]

    assert len(fields) > 50
    assert [(section, name) for section, name, text in fields if not text] == []


@pytest.mark.parametrize("written", ["1e-3", "1E-03", "0.001", ".1e-2", "1.0e-3", "10e-4"])
def test_a_number_with_an_exponent_is_a_number(written: str) -> None:
    assert plan_of(f"training: {{learning_rate: {written}}}").training.learning_rate == 0.001
    overridden = plan_of("", overrides=[f"training.learning_rate={written}"])
    assert overridden.training.learning_rate == 0.001


def test_yaml_booleans_may_be_on_and_no() -> None:
    generation = plan_of("generation: {drafts: no, do_sample: on}").generation

    assert (generation.drafts, generation.do_sample) == ("off", True)


@pytest.mark.parametrize(
    ("written", "drafts"),
    [("true", "all"), ("false", "off"), ("off", "off"), ("all", "all"), ("references",) * 2],
)
def test_drafts_are_named_and_may_still_be_true_or_false(written: str, drafts: str) -> None:
    assert plan_of(f"generation: {{drafts: {written}}}").generation.drafts == drafts
    assert plan_of("").generation.drafts == "references"


@pytest.mark.parametrize("every", ["auto", "100", "10 min", "30 s", "1.5 h"])
def test_checkpoints_are_asked_for_in_steps_or_time_and_decide_no_result(every: str) -> None:
    plan = plan_of(f"training: {{checkpoint_every: {every}}}")
    assert str(plan.training.checkpoint_every) == every
    frozen, usual = freeze(plan), freeze(plan_of(""))
    assert frozen["training"]["checkpoint_every"] == plan.training.checkpoint_every
    assert fingerprint(frozen) == fingerprint(usual)
    assert difference(frozen, usual) == []


def test_paths_of_a_plan_file_start_at_its_folder(folder: Path) -> None:
    Path("plans").mkdir()
    Path("plans/plan.yaml").write_text(
        f"candidates: [../a.jsonl, {{path: {folder}/b.jsonl}}]\nevaluation: [test.jsonl]\n"
    )

    plan = load_plan("plans/plan.yaml")

    assert [entry.path for entry in plan.candidates] == ["plans/../a.jsonl", f"{folder}/b.jsonl"]
    assert plan.evaluation[0].path == "plans/test.jsonl"


def test_paths_of_the_command_line_start_at_the_current_folder() -> None:
    Path("plans").mkdir()
    Path("plans/plan.yaml").write_text("candidates: [x.jsonl]\nevaluation: [y.jsonl]\n")

    plan = load_plan(
        "plans/plan.yaml", candidates=["a.jsonl"], overrides=["evaluation.0.path=test.jsonl"]
    )

    assert [entry.path for entry in plan.candidates] == ["a.jsonl"]
    assert plan.evaluation[0].path == "test.jsonl"


def test_the_command_line_replaces_only_the_lists_it_names() -> None:
    Path("plan.yaml").write_text("candidates: [a.jsonl, b.jsonl]\nevaluation: [test.jsonl]\n")

    assert len(load_plan("plan.yaml").candidates) == 2
    plan = load_plan("plan.yaml", evaluations=["b.jsonl"])
    assert [len(plan.candidates), plan.evaluation[0].name] == [2, "b"]
    assert [e.name for e in load_plan("plan.yaml", candidates=["b.jsonl"]).candidates] == ["b"]


def test_a_model_flag_keeps_the_other_settings_of_the_model() -> None:
    model = plan_of("model: {name: org/one, dtype: float32}", model="org/two").model

    assert (model.name, model.dtype) == ("org/two", "float32")


def test_a_revision_and_trust_are_not_carried_to_another_model() -> None:
    text = "model: {name: org/one, revision: abc, trust_remote_code: true}"

    revision, trust = problems_of(text, model="org/two")
    assert revision.startswith('model.revision: found "abc", which the plan sets for org/one')
    assert trust.startswith("model.trust_remote_code: found true")
    decided = ["model.revision=null", "model.trust_remote_code=false"]
    assert plan_of(text, model="org/two", overrides=decided).model.revision is None
    assert plan_of(text, model="org/one").model.revision == "abc"


def test_overrides_reach_every_key_and_list_items() -> None:
    plan = plan_of(
        "training: {epochs: 2}",
        overrides=[
            "training.epochs=0.5",
            "candidates.0.name=short",
            "lora.target_modules=[q_proj, v_proj]",
            "model=org/name",
            "model.dtype=float32",
            "training.max_grad_norm=null",
            "seeds=[3, 4]",
            "model.chat_template_kwargs.enable_thinking=false",
        ],
    )

    assert plan.training.epochs == 0.5
    assert plan.candidates[0].name == "short"
    assert plan.lora.target_modules == ["q_proj", "v_proj"]
    assert (plan.model.name, plan.model.dtype) == ("org/name", "float32")
    assert plan.training.max_grad_norm is None
    assert plan.seeds == [3, 4]
    assert plan.model.chat_template_kwargs == {"enable_thinking": False}


def test_an_override_of_one_entry_leaves_its_yaml_alias_alone() -> None:
    Path("plan.yaml").write_text(
        "candidates:\n- &a {path: a.jsonl, limit: 3}\n- {<<: *a, path: b.jsonl}\n"
        "evaluation: [test.jsonl]\n"
    )

    plan = load_plan("plan.yaml", overrides=["candidates.0.limit=9"])

    assert [entry.limit for entry in plan.candidates] == [9, 3]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epochs", "--set training.epochs: expected key.path=value"),
        ("=3", "--set =3: expected key.path=value"),
        ("training..epochs=3", "--set training..epochs=3: expected key.path=value"),
        ("candidates.7.name=x", "--set candidates.7: no such item of candidates, which has 0 to 0"),
        ("candidates.x=y", "--set candidates.x: no such item of candidates, which has 0 to 0"),
        ("seeds.x.y=3", "seeds: found {'x': {'y': 3}}; expected a list"),
        ("training.epoch=2", "unknown key training.epoch; did you mean training.epochs?"),
        ("training.epochs=-1", "training.epochs: found -1; expected more than 0.0"),
        ("training.epochs=[", "--set training.epochs=[:1: not YAML: expected the node content"),
    ],
)
def test_an_override_that_cannot_be_used_is_named(override: str, message: str) -> None:
    (problem,) = problems_of(overrides=[override])

    assert problem.startswith(message)


def test_an_override_below_a_plain_value_is_named() -> None:
    (problem,) = problems_of("training: {epochs: 2}", overrides=["training.epochs.x=1"])

    assert problem == "--set training.epochs.x: training.epochs is 2 and has no key below it"


def test_an_override_given_twice_is_named() -> None:
    (problem,) = problems_of(overrides=["training.epochs=1", "training.epochs=2"])

    assert problem == "--set training.epochs: found twice; set it once"


def test_all_problems_come_together() -> None:
    problems = problems_of(
        "training: {epoch: 2, batch_size: 0}\ngeneration: {top_k: 4}\nseeds: [0, 0]\nzzz: 1",
        overrides=["lora.r=8.5", "nonsense"],
    )

    assert len(problems) == 7
    assert "--set nonsense: expected key.path=value" in problems
    assert "unknown key training.epoch; did you mean training.epochs?" in problems
    assert "seeds: found 0 twice; name it once" in problems
    assert "training.batch_size: found 0; expected more than 0" in problems
    assert "lora.r: found 8.5; expected a whole number" in problems


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modle: x", "unknown key modle; did you mean model?"),
        ("epochs: 2", "unknown key epochs; did you mean training.epochs?"),
        (
            "batch_size: 2",
            "unknown key batch_size; did you mean training.batch_size or generation.batch_size?",
        ),
        ("generation: {max_tokens: 3}", "did you mean generation.max_new_tokens?"),
        ("training: {lora_rank_size: 3}", "unknown key training.lora_rank_size; known here: epo"),
        ("evaluation: [{path: x, metric: [em]}]", "did you mean evaluation.0.metrics?"),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(text: str, message: str) -> None:
    flags: dict[str, Any] = {"evaluations": []} if "evaluation" in text else {}

    (problem,) = problems_of(text, **flags)

    assert message in problem


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training: {batch_size: yes}", "training.batch_size: found true; expected a whole number"),
        ('training: {epochs: "3"}', 'training.epochs: found "3"; expected a number'),
        ("training: {epochs: .inf}", "training.epochs: found Infinity; expected a finite number"),
        ("training: {warmup_ratio: 1.5}", "found 1.5; expected at most 1"),
        ("training: {warmup_ratio: -1}", "found -1; expected at least 0"),
        ("training: {adam_beta1: 1}", "training.adam_beta1: found 1; expected less than 1"),
        ("training: {order: random}", "found \"random\"; expected 'grouped' or 'shuffled'"),
        ("training: {micro_batch_tokens: all}", "found \"all\"; expected a whole number or 'auto'"),
        ("training: 3", "training: found 3; expected a mapping of settings"),
        ("generation: {drafts: 1}", "found 1; expected 'references', 'all' or 'off'"),
        (
            "training: {checkpoint_every: often}",
            'training.checkpoint_every: found "often"; expected auto, a number of steps, or a time',
        ),
        ("training: {checkpoint_every: 0 s}", 'training.checkpoint_every: found "0 s"; expected'),
        ("training: {shard_base: true}", "found true with training.data_parallel: 1, one device"),
        (
            "training: {shard_base: true, data_parallel: 2}\nmodel: {quantization: nf4}",
            "found true together with model.quantization: nf4, whose packed weights torch cannot",
        ),
        ("model: {name: 1e5}", "model.name: found 100000.0; expected text (in quotes"),
        ('model: ""', 'model.name: found ""; expected text that is not empty'),
        ("model: {chat_template_kwargs: 3}", "chat_template_kwargs: found 3; expected a mapping"),
        ("lora: {target_modules: [q, 3]}", "lora.target_modules.1: found 3; expected text"),
        ("seeds: []", "seeds: found []; expected at least one entry"),
        ("seeds: [-1]", "seeds.0: found -1; expected at least 0"),
        ("1: 2", "1: found 1; expected keys that are text"),
    ],
)
def test_a_wrong_value_says_what_was_found_and_what_is_expected(text: str, message: str) -> None:
    (problem,) = problems_of(text)

    assert message in problem


def test_a_candidate_without_a_path_is_named() -> None:
    assert problems_of("candidates: [{name: x}]", candidates=[]) == (
        "candidates.0.path: missing; expected a value",
    )


def test_a_plan_without_files_says_how_to_name_them() -> None:
    with pytest.raises(PlanError) as caught:
        load_plan()

    assert caught.value.problems == (
        "candidates: found none; name at least one training file",
        "evaluation: found none; pass --eval FILE, list it in the plan, or hold rows of the "
        "candidates out for it: --set holdout=0.1",
    )


def test_two_lengths_of_training_exclude_each_other() -> None:
    (problem,) = problems_of("training: {max_steps: 3, max_tokens: 9}")

    assert problem.startswith("training.max_tokens: found 9 together with training.max_steps: 3")
    assert plan_of("training: {max_tokens: 9}").training.max_tokens == 9


@pytest.mark.parametrize("setting", ["temperature: 0.5", "top_p: 0.9", "top_k: 5", "seed: 3"])
def test_a_sampling_setting_without_sampling_is_refused(setting: str) -> None:
    (problem,) = problems_of(f"generation: {{{setting}}}")

    assert "has no effect unless do_sample is true" in problem
    assert plan_of(f"generation: {{{setting}, do_sample: true}}").generation.do_sample


def test_early_stopping_without_beams_is_refused() -> None:
    (problem,) = problems_of("generation: {early_stopping: true}")

    assert "has no effect unless num_beams is above 1" in problem
    assert plan_of("generation: {early_stopping: true, num_beams: 4}").generation.num_beams == 4


def test_the_deciding_metric_must_be_computed_by_every_evaluation() -> None:
    text = "evaluation: [test.jsonl, {path: b.jsonl, metrics: [em]}]"

    (problem,) = problems_of(text, evaluations=[])

    assert problem.startswith('decision.metric: found "f1", which b does not compute')
    assert plan_of(text, evaluations=[], overrides=["decision.metric=em"]).decision.metric == "em"


def test_a_holdout_takes_the_place_of_an_evaluation() -> None:
    for text in ("holdout: 0.1", "holdout: {share: 0.1}"):
        plan = plan_of(text, evaluations=[])
        assert plan.held_out == HoldoutPlan(share=0.1, seed=0, metrics=["em", "f1"])
        assert plan.asked == [("holdout", ("em", "f1"))]


def test_beside_an_evaluation_a_holdout_is_not_used() -> None:
    plan = plan_of("holdout: 0.1")
    assert plan.held_out is None
    assert plan.asked == [("test", ("em", "f1"))]
    assert fingerprint(freeze(plan)) == fingerprint(freeze(plan_of("")))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("holdout: 1", "holdout.share: found 1; expected less than 1.0"),
        ("holdout: 0", "holdout.share: found 0; expected more than 0.0"),
        ("holdout: yes", "holdout.share: found true; expected a number"),
        ("holdout: {seed: 1}", "holdout.share: missing; expected a value"),
        ("holdout: {sahre: 0.1}", "unknown key holdout.sahre; did you mean holdout.share?"),
        ("holdout: {share: 0.1, metrics: [f1, f1]}", 'holdout.metrics: found "f1" twice'),
        (
            "holdout: {share: 0.1, metrics: [em]}",
            'decision.metric: found "f1", which the holdout does not compute (holdout.metrics: em)',
        ),
    ],
)
def test_a_holdout_that_cannot_be_used_is_refused(text: str, message: str) -> None:
    found = problems_of(text, evaluations=[])

    assert [problem for problem in found if problem.startswith(message)]
    assert not [problem for problem in found if problem.startswith("evaluation: found none")]


def test_a_frozen_holdout_is_the_evaluation_and_its_rows_decide(folder: Path) -> None:
    plan = plan_of("holdout: 0.1", evaluations=[])
    files = [HeldOutFile("holdout.jsonl", digest * 64, 10) for digest in "ab"]
    first, second = (freeze(plan, held_out=file) for file in files)

    assert first["holdout"] == {"share": 0.1, "seed": 0, "metrics": ["em", "f1"]}
    [entry] = first["evaluation"]
    assert (entry["name"], entry["sha256"]) == ("holdout", "a" * 64)
    assert difference(first, second) == [f"evaluation.0.sha256: {'a' * 12} → {'b' * 12}"]


def test_where_nothing_is_measured_no_evaluation_is_needed() -> None:
    assert load_unmeasured_plan(candidates=["a.jsonl"]).evaluation == []


def test_a_metric_named_twice_is_refused() -> None:
    (problem,) = problems_of("evaluation: {path: x, metrics: [f1, f1]}", evaluations=[])

    assert problem == 'evaluation.0.metrics: found "f1" twice; name it once'


def names_of(*paths: str) -> list[str]:
    plan = load_plan(candidates=paths, evaluations=["test.jsonl"])
    return [entry.name for entry in plan.candidates]


def test_files_of_one_stem_are_told_apart_by_their_folders() -> None:
    assert names_of("x/train.jsonl", "y/train.json", "z.jsonl") == ["x-train", "y-train", "z"]
    assert names_of("train.jsonl", "y/train.jsonl") == ["train", "y-train"]
    assert names_of("x/../y/train.jsonl", "x/Train.jsonl") == ["y-train", "x-Train"]


def test_a_folder_written_as_two_dots_is_called_by_its_name(folder: Path) -> None:
    assert names_of("../t.jsonl", "x/t.jsonl") == [f"{folder.parent.name}-t", "x-t"]


def test_a_tilde_in_a_plan_file_is_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    plan = plan_of("candidates: [~/a.jsonl, ~nobody-of-this-name/b.jsonl]", candidates=[])

    assert [entry.path for entry in plan.candidates] == [
        "/home/someone/a.jsonl",
        "~nobody-of-this-name/b.jsonl",
    ]


def test_evaluation_files_of_one_stem_are_told_apart_too() -> None:
    plan = load_plan(candidates=["a.jsonl"], evaluations=["x/test.jsonl", "y/test.jsonl"])

    assert [entry.name for entry in plan.evaluation] == ["x-test", "y-test"]


def test_a_given_name_wins_over_a_derived_one() -> None:
    plan = plan_of("candidates: [x/a.jsonl, {path: b.jsonl, name: a}]", candidates=[])

    assert [entry.name for entry in plan.candidates] == ["x-a", "a"]


def test_a_null_name_is_derived() -> None:
    plan = plan_of("candidates: [{path: b.jsonl, name: null}]", candidates=[])

    assert plan.candidates[0].name == "b"


@pytest.mark.parametrize("section", ["candidates", "evaluation"])
def test_two_files_under_one_name_are_both_named(section: str) -> None:
    text = f"{section}: [{{path: a.jsonl, name: Same}}, {{path: b.jsonl, name: same}}]"

    (problem,) = problems_of(text, **{"evaluations" if section == "evaluation" else section: []})

    assert problem.startswith(f'{section}.1.name: "same" is the name of both a.jsonl and b.jsonl')


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("a/b", "has a slash in it"),
        ("a\\\\b", "has a slash in it"),
        ("..", "is empty, a dot, or has spaces around it"),
        ("", "is empty, a dot, or has spaces around it"),
        (" a", "is empty, a dot, or has spaces around it"),
        ("a\\nb", "has a character that cannot be shown"),
        ("n" * 101, "is longer than 100 characters or 200 bytes"),
        ("n" * 300, "is longer than 100 characters or 200 bytes"),
        ("数" * 67, "is longer than 100 characters or 200 bytes"),
        ("Base", "is the untrained model's row"),
    ],
)
def test_a_name_that_cannot_name_a_folder_is_refused(name: str, fault: str) -> None:
    (problem,) = problems_of(f'candidates: [{{path: a.jsonl, name: "{name}"}}]', candidates=[])

    assert fault in problem
    assert problem.startswith("candidates.0.name: ")


@pytest.mark.parametrize("stem", ["n" * 101, "n" * 300])
def test_a_file_whose_own_name_is_too_long_is_told_to_take_another(stem: str) -> None:
    for candidates in ([f"{stem}.jsonl"], [f"x/{stem}.jsonl", f"y/{stem}.jsonl"]):
        for found in problems_of(candidates=candidates):
            assert found.startswith("candidates.")
            assert "give it a name of its own, {path: ..., name: ...}" in found
    assert plan_of(f"candidates: {{path: {stem}.jsonl, name: short}}", candidates=[])


def test_a_slash_in_a_path_is_no_part_of_the_name() -> None:
    assert names_of("some/folder/a.jsonl", "registry.json#entry") == ["a", "entry"]


def test_one_file_named_twice_is_told_so() -> None:
    (problem,) = problems_of(candidates=["x/a.jsonl", "x/a.jsonl"])

    assert problem.startswith("candidates.1.name: x/a.jsonl is listed twice; give one of them")


def test_an_evaluation_may_be_called_base() -> None:
    assert plan_of("", evaluations=["base.jsonl"]).evaluation[0].name == "base"


def test_further_lora_settings_pass_through() -> None:
    lora = plan_of("lora: {r: 4, use_rslora: true, init_lora_weights: pissa}").lora

    assert lora.model_extra == {"use_rslora": True, "init_lora_weights": "pissa"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training:\n  epochs: 2\n  epochs: 3\n", "plan.yaml:3: not YAML: the key epochs appears"),
        ("training: [\n", "plan.yaml:2: not YAML: expected the node content"),
        ("- a\n", "plan.yaml:1: found ['a']; expected keys"),
        ("seeds: 2024-13-01", "plan.yaml: not YAML: month must be in 1..12"),
        ("a: !!python/name:os.system x", "plan.yaml:1: not YAML: could not determine a construct"),
        ("a: \x01", "plan.yaml: not YAML: unacceptable character"),
        ("[" * 5000, "plan.yaml: not YAML: maximum recursion depth"),
        ("{a: 1}: 2", "plan.yaml:1: not YAML: found unhashable key"),
    ],
)
def test_a_file_that_is_no_yaml_is_named_with_its_line(text: str, message: str) -> None:
    (problem,) = problems_of(text)

    assert problem.startswith(message)


def test_a_plan_file_that_is_not_utf8_is_named() -> None:
    Path("plan.yaml").write_bytes(b"model: \xff\n")

    with pytest.raises(PlanError, match=r"^plan.yaml: cannot be read as UTF-8 text"):
        load_plan("plan.yaml")


def test_a_missing_plan_file_names_the_nearest() -> None:
    Path("plan.yaml").touch()

    with pytest.raises(PlanError, match=r"there is no file plan.yml; did you mean plan.yaml\?"):
        load_plan("plan.yml")


def test_a_plan_error_survives_pickling() -> None:
    error = PlanError(problems_of("zzz: 1\nyyy: 2"))

    assert pickle.loads(pickle.dumps(error)).problems == error.problems


def plan_or_problems(**flags: Any) -> Plan | tuple[str, ...]:
    try:
        return load_plan("plan.yaml", **flags)
    except PlanError as error:
        return error.problems


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60), st.lists(st.text(max_size=20), max_size=3))
def test_any_text_gives_a_plan_or_a_plan_error(text: str, overrides: list[str]) -> None:
    Path("plan.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))

    result = plan_or_problems(overrides=overrides, **FILES)

    assert isinstance(result, Plan) or all(result)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_value_of_any_key_gives_a_plan_or_a_plan_error(data: st.DataObject) -> None:
    section = data.draw(st.sampled_from(sorted(Plan.model_fields)))
    value = data.draw(json_values | st.dictionaries(st.sampled_from(FIELD_NAMES), json_values))
    Path("plan.yaml").write_text(json.dumps({section: value}))

    result = plan_or_problems()

    assert not isinstance(result, Plan), "a plan without files was accepted"
    assert all(result)


FIELD_NAMES = sorted(
    {
        name
        for section in vars(plan_module).values()
        if isinstance(section, type) and issubclass(section, Section)
        for name in section.model_fields
    }
)


def frozen_of(text: str = "", **flags: Any) -> dict[str, object]:
    return freeze(plan_of(text, **flags))


def test_a_frozen_plan_holds_every_default_and_every_files_hash(folder: Path) -> None:
    frozen = freeze(plan_of(""))

    assert frozen["candidates"] == [
        {
            "path": str(folder / "a.jsonl"),
            "name": "a",
            "limit": None,
            "split": None,
            "format": "auto",
            "columns": {},
            "ignore_columns": [],
            "encoding": None,
            "unanswerable": "answer",
            "unanswerable_reply": "unanswerable",
            "max_dropped": 0.05,
            # printf 'rows of a\n' | sha256sum
            "sha256": "a2eb8baf00097a28f6f648b63d4fd33bb910797695a147a6560d80e13ed1c124",
            "size_bytes": len("rows of a\n"),
        }
    ]
    assert frozen["training"]["learning_rate"] == 1e-4
    # A holdout that is not used decides nothing.
    assert set(frozen) == set(Plan.model_fields) - {"holdout"}
    assert json.loads(json.dumps(frozen)) == frozen


def test_freezing_names_every_missing_file() -> None:
    Path("sub").mkdir()
    plan = load_plan(candidates=["aa.jsonl", "sub", "no/a.jsonl"], evaluations=["tets.jsonl"])

    with pytest.raises(DataError) as caught:
        freeze(plan)

    assert caught.value.problems == (
        "candidates.0.path: there is no file aa.jsonl; did you mean a.jsonl?",
        "candidates.1.path: sub is a folder; name a file in it",
        "candidates.2.path: there is no file no/a.jsonl: its folder no does not exist",
        "evaluation.0.path: there is no file tets.jsonl; did you mean test.jsonl?",
    )


def test_moving_a_file_does_not_change_the_fingerprint() -> None:
    before = frozen_of()
    Path("moved").mkdir()
    shutil.move("a.jsonl", "moved/a.jsonl")
    after = frozen_of(candidates=["moved/a.jsonl"])

    assert fingerprint(after) == fingerprint(before)
    assert difference(before, after) == []


def test_defaults_written_out_do_not_change_the_fingerprint() -> None:
    text = "training: {epochs: 3, weight_decay: 0, max_grad_norm: 0.3}\ngeneration: {top_p: 1}"

    assert fingerprint(frozen_of(text)) == fingerprint(frozen_of())


def test_a_fingerprint_survives_the_way_through_a_json_file() -> None:
    frozen = frozen_of()

    assert fingerprint(json.loads(json.dumps(frozen, indent=2))) == fingerprint(frozen)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("training.epochs=2", "training.epochs: 3 → 2"),
        ("candidates.0.name=z", 'candidates.0.name: "a" → "z"'),
        ("candidates.0.limit=4", "candidates.0.limit: null → 4"),
        ("lora.use_rslora=true", "lora.use_rslora: (missing) → true"),
        ("seeds=[0, 1]", "seeds: [0] → [0, 1]"),
        ("model=org/name", 'model.name: "embedded" → "org/name"'),
        ("candidates=[a.jsonl, b.jsonl]", "candidates.1: (missing) → b"),
    ],
)
def test_a_change_of_the_plan_is_one_line_of_difference(change: str, line: str) -> None:
    before, after = frozen_of(), frozen_of(overrides=[change])

    assert difference(before, after) == [line]
    assert fingerprint(before) != fingerprint(after)


def test_a_change_of_a_files_content_is_a_difference() -> None:
    before = frozen_of()
    Path("a.jsonl").write_text("other rows\n")
    after = frozen_of()

    (line,) = difference(before, after)
    assert line.startswith("candidates.0.sha256: ")
    assert fingerprint(before) != fingerprint(after)


def test_a_number_and_a_truth_value_are_a_difference() -> None:
    one, true = ({"lora": {"use_dora": value}} for value in (1, True))

    assert difference(one, true) == ["lora.use_dora: 1 → true"]
    assert fingerprint(one) != fingerprint(true)


def test_nearest_finds_a_likely_name_and_nothing_else() -> None:
    assert nearest("trainning", ["training", "generation"]) == "training"
    assert nearest("HUMAN", ["human"]) == "human"
    assert nearest("zzz", ["training", "generation"]) is None
    assert nearest("x", []) is None


def test_a_special_file_is_not_read() -> None:
    assert file_problem("a.jsonl") is None
    assert "is not a regular file" in str(file_problem("/dev/null"))


def test_a_path_that_the_system_refuses_is_named() -> None:
    assert file_problem("n" * 300) == f"{'n' * 300} cannot be reached: File name too long"


def test_the_plan_loads_without_torch() -> None:
    code = "import sys, loracle.plan; sys.exit('torch' in sys.modules)"
    root = Path(__file__).resolve().parents[2]

    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
