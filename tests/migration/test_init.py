"""`loracle init` for files, and files of other tools that are given as plans."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loracle import migration
from loracle.errors import PlanError
from loracle.migration import init_plan
from loracle.migration.not_needed import NOT_NEEDED
from loracle.plan import load_plan
from tests.migration.conftest import EXAMPLES, Loracle, Migrated, block, keys_of

ENTRY_KEYS = [
    *("path", "type", "pad_token", "data_files", "split", "name", "revision", "format"),
    *("field_messages", "message_property_mappings", "roles", "roles_to_train", "shards"),
]
ANY_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.text("ab./$:#-1", max_size=6),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(ENTRY_KEYS), inner, max_size=4)
    ),
    max_leaves=8,
)
TOOLS = {
    "facts_lora_sft.yaml": "LLaMA-Factory",
    "facts_qlora.yaml": "LLaMA-Factory",
    "sums_lora.yml": "axolotl",
    "own_fields_qlora.yml": "axolotl",
    "quick_start.sh": "ms-swift",
    "several_gpus.sh": "ms-swift",
    "config.yaml": "ms-swift",
}


def test_every_example_is_tested() -> None:
    assert {path.name for path in EXAMPLES.iterdir()} == set(TOOLS)


@pytest.mark.parametrize(("name", "tool"), TOOLS.items())
def test_a_training_file_given_as_a_plan_is_told_from_one(name: str, tool: str) -> None:
    with pytest.raises(PlanError) as refused:
        load_plan(EXAMPLES / name)

    [problem] = refused.value.problems
    assert f"training file of {tool}, not a plan" in problem
    assert f"loracle init --from {EXAMPLES / name}" in problem


@pytest.mark.parametrize(
    ("tool", "name", "text"),
    [
        (
            "torchtune",
            "tune.yaml",
            "model:\n  _component_: torchtune.models.lora\n  lora_rank: 64\n"
            "dataset: {_component_: torchtune.datasets.alpaca}\nbatch_size: 4\nmax_length: 8\n",
        ),
        (
            "TRL",
            "trl.yaml",
            "model_name_or_path: Qwen/Qwen2-0.5B\ndataset_name: trl-lib/Capybara\n"
            "num_train_epochs: 1\nper_device_train_batch_size: 2\nlora_r: 32\n",
        ),
        ("TRL", "trl.sh", "accelerate launch trl/scripts/sft.py --use_peft --lora_r 32\n"),
        ("TRL", "short.sh", "trl sft --model_name_or_path Qwen/Qwen2-0.5B --lora_r 32\n"),
        ("torchtune", "tune.sh", "tune run lora_finetune_single_device --config a.yaml\n"),
        ("Unsloth", "train.py", "from unsloth import FastLanguageModel\n"),
    ],
)
def test_a_file_of_a_tool_that_is_not_read_is_named_and_not_taken_for_anothers(
    tmp_path: Path, tool: str, name: str, text: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(PlanError, match=f"is a training file of {tool}, which .* cannot read"):
        init_plan(source=tmp_path / name, out=tmp_path / "plan.yaml")
    if name.endswith(".yaml"):
        with pytest.raises(PlanError, match=f"is a training file of {tool}, which"):
            load_plan(tmp_path / name)
    assert not (tmp_path / "plan.yaml").exists()


@pytest.mark.parametrize("name", TOOLS)
def test_no_key_of_an_example_is_dropped_silently(migrated: Migrated, name: str) -> None:
    _, shown = migrated(name)

    assert [key for key in keys_of(EXAMPLES / name) if key not in shown] == []
    not_needed = shown.partition("Not needed: ")[2].partition("\n")[0].split(", ")
    assert len(not_needed) == len(set(not_needed))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_values_of_any_kind_end_in_a_plan_or_a_reason(folder: Path, data: st.DataObject) -> None:
    example = data.draw(st.sampled_from([name for name in TOOLS if not name.endswith(".sh")]))
    tree = yaml.safe_load((folder / example).read_text())
    changed = data.draw(st.sampled_from(sorted(tree)))
    tree[changed] = data.draw(ANY_VALUE)
    if "datasets" in tree and data.draw(st.booleans()):
        entry = data.draw(st.dictionaries(st.sampled_from(ENTRY_KEYS), ANY_VALUE))
        tree["datasets"] = [{"type": "chat_template", **entry, "path": "registry/chats.json"}]
    source = folder / "theirs.yaml"
    source.write_text(yaml.safe_dump(tree))
    out = folder / "any.yaml"
    out.unlink(missing_ok=True)

    problems: tuple[str, ...] = ()
    try:
        init_plan(source=source, out=out)
    except PlanError as error:
        problems = error.problems

    assert out.is_file() is not bool(problems)
    assert [problem for problem in problems if not problem.startswith(str(source))] == []


def test_a_slip_in_a_plan_does_not_make_it_another_tools_file(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text("candidates: [a.jsonl]\nevaluation: [b.jsonl]\nlora_rank: 4\ntemplate: qwen\n")

    with pytest.raises(PlanError, match="unknown key lora_rank"):
        load_plan(path)


def test_a_plan_whose_comment_shows_a_command_stays_a_plan(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text("# from: swift sft --model a/b\ncandidates: [a.jsonl]\nholdout: 0.1\n")

    assert load_plan(path).candidates[0].name == "a"


def test_a_plan_for_named_files_loads_with_every_default(folder: Path, loracle: Loracle) -> None:
    assert (
        loracle("init", "registry/sums.json", "data/chats.json", "--eval", "data/quiz.jsonl") == 0
    )
    plan = load_plan("plan.yaml")
    expected = load_plan(
        candidates=["registry/sums.json", "data/chats.json"], evaluations=["data/quiz.jsonl"]
    )

    assert plan == expected
    text = (folder / "plan.yaml").read_text()
    assert "# Rank of the update matrices." in text
    assert "# The highest learning rate, reached after the warm-up." in text
    assert "None" not in text


def test_without_an_evaluation_set_rows_are_held_out(folder: Path, loracle: Loracle) -> None:
    assert loracle("init", "registry/sums.json") == 0
    plan = load_plan("plan.yaml")

    assert plan.held_out is not None
    assert plan.held_out.share == 0.1


def test_without_files_the_plan_says_where_they_go(
    folder: Path, loracle: Loracle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert loracle("init") == 0

    assert "has no data yet" in capsys.readouterr().out
    text = (folder / "plan.yaml").read_text()
    assert "# - first.jsonl" in text
    assert yaml.safe_load(text)["candidates"] is None
    with pytest.raises(PlanError, match="candidates: found none"):
        load_plan("plan.yaml")


def test_a_plan_is_not_overwritten(
    folder: Path, loracle: Loracle, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "plan.yaml").write_text("mine")

    assert loracle("init", "registry/sums.json") == 2
    assert "plan.yaml already exists" in capsys.readouterr().err
    assert (folder / "plan.yaml").read_text() == "mine"


def test_a_file_that_is_not_there_is_named_and_no_plan_is_written(
    folder: Path, loracle: Loracle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert loracle("init", "registry/sum.json", "registry/dataset_info.json#sums") == 2
    assert "did you mean registry/sums.json?" in capsys.readouterr().err
    assert not (folder / "plan.yaml").exists()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("hello: 1\n", "not a training file of a known tool"),
        ("just text\n", "not a training file of a known tool"),
        ("model_name_or_path: [a\n", "not YAML"),
        ("swift sft --system 'open\n", "the command cannot be read"),
        ("swift sft --config gone.yaml\n", "gone.yaml, which does not exist"),
        (
            "model_name_or_path: a/b\ndataset: sums\nlearning_rate: -1\n",
            "training.learning_rate: found -1.0; expected more than 0",
        ),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_its_reason(
    folder: Path, loracle: Loracle, capsys: pytest.CaptureFixture[str], text: str, problem: str
) -> None:
    (folder / "theirs").write_text(text)

    assert loracle("init", "--from", "theirs") == 2
    shown = capsys.readouterr().err
    assert problem in shown
    assert "theirs:" in shown
    assert not (folder / "plan.yaml").exists()


def test_a_training_file_without_data_leaves_its_place(migrated: Migrated, folder: Path) -> None:
    (folder / "none.yaml").write_text("model_name_or_path: a/b\nstage: sft\nlora_rank: 4\n")
    with pytest.raises(PlanError, match="candidates: found none"):
        migrated("none.yaml")

    assert yaml.safe_load((folder / "plan.yaml").read_text())["lora"]["r"] == 4


def test_a_variable_without_a_value_is_named(migrated: Migrated, folder: Path) -> None:
    (folder / "open.sh").write_text(
        "swift sft --model $MODEL --dataset registry/quiz.jsonl --lora_rank 4\n"
    )
    _, shown = migrated("open.sh")

    assert any("model: $MODEL" in line for line in block(shown, "Not supported"))


def test_a_dataset_listed_twice_gets_two_names(migrated: Migrated, folder: Path) -> None:
    (folder / "twice.sh").write_text(
        "swift sft --model a/b --dataset registry/quiz.jsonl#5 registry/quiz.jsonl#20\n"
    )
    plan, shown = migrated("twice.sh")

    assert [c.name for c in plan.candidates] == ["quiz", "quiz-2"]
    assert any("listed more than once" in line for line in block(shown, "Changed"))


def test_no_list_of_unneeded_keys_has_one_twice() -> None:
    for names in NOT_NEEDED.values():
        assert len(names) == len(set(names))


def test_a_number_of_rows_held_out_becomes_a_share(migrated: Migrated, folder: Path) -> None:
    text = (folder / "sums_lora.yml").read_text().replace("val_set_size: 0.2", "val_set_size: 300")
    (folder / "rows.yml").write_text(text)
    plan, shown = migrated("rows.yml")

    assert plan.holdout is not None
    assert plan.holdout.share == 0.1
    assert any("not a number of rows" in line for line in block(shown, "Changed"))


def test_the_package_needs_the_plan_and_nothing_above_it() -> None:
    imported = {
        node.module
        for path in (Path(migration.__file__).parent).glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module
    }
    own = {name for name in imported if name.startswith("loracle")}

    assert {name.split(".")[1] for name in own} == {"errors", "migration", "plan", "text"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["facts_lora_sft.yaml", "sums_lora.yml", "quick_start.sh"])
def test_the_plan_runs_with_the_embedded_model(
    migrated: Migrated, folder: Path, loracle: Loracle, name: str
) -> None:
    migrated(name)
    quick = ("model.name=embedded", "training.max_steps=2", "generation.max_new_tokens=8")
    overrides = [part for setting in quick for part in ("--set", setting)]

    assert loracle("run", "--plan", "plan.yaml", *overrides, "--out", "run") == 0
    assert (folder / "run/results.json").is_file()
