"""axolotl's YAML becomes a plan."""

from __future__ import annotations

import pytest
import yaml

from tests.migration.conftest import Loracle, Migrated, block


def test_the_example_of_its_repository_becomes_a_plan(migrated: Migrated) -> None:
    plan, shown = migrated("sums_lora.yml")

    assert plan.model.name == "NousResearch/Llama-3.2-1B"
    sums, chats = plan.candidates
    assert (sums.path, sums.format, sums.columns) == ("registry/sums.json", "alpaca", {})
    assert (chats.path, chats.format) == ("registry/chats.json", "sharegpt")
    assert plan.holdout is not None
    assert plan.holdout.share == 0.2
    assert (plan.lora.r, plan.lora.alpha, plan.lora.dropout) == (16, 32, 0.05)
    assert plan.lora.target_modules == ["q_proj", "v_proj"]
    training = plan.training
    assert (training.epochs, training.batch_size, training.learning_rate) == (1.0, 4, 2e-4)
    assert (training.max_length, training.overlong) == (2048, "drop")
    assert training.gradient_checkpointing
    assert block(shown, "Not supported") == ["nothing"]
    changed = " ".join(block(shown, "Changed"))
    assert "theirs was 10 steps" in changed
    assert "adamw_8bit" in changed
    assert "wandb_project" in shown.partition("Not needed: ")[2]


def test_own_fields_files_and_hubs_are_carried_over(migrated: Migrated) -> None:
    plan, shown = migrated("own_fields_qlora.yml")

    tickets, hub = plan.candidates
    assert tickets.path == "registry/tickets.jsonl"
    assert (tickets.format, tickets.columns) == (
        "alpaca",
        {"instruction": "ask", "output": "reply"},
    )
    assert (hub.path, hub.split) == ("hf://rows-of/somebody:short@v1.0", "train")
    assert [e.path for e in plan.evaluation] == ["registry/quiz.jsonl"]
    assert plan.lora.target_modules == "all-linear"
    assert plan.lora.model_extra == {"use_dora": True}
    assert plan.training.max_grad_norm is None
    assert plan.training.overlong == "shorten"
    assert plan.seeds == [7]
    refused = " ".join(block(shown, "Not supported"))
    for what in ("mystery_key: 3", "train_on_inputs", "shards: 4"):
        assert what in refused
    changed = " ".join(block(shown, "Changed"))
    assert "rex" in changed
    assert "type.format" in changed


def test_its_data_is_read_by_check(migrated: Migrated, loracle: Loracle, capsys) -> None:
    migrated("sums_lora.yml")

    assert loracle("check", "--plan", "plan.yaml", "--set", "model.name=embedded") == 0
    shown = capsys.readouterr().out
    assert "sums" in shown
    assert "chats" in shown


def test_files_that_are_named_take_the_place_of_theirs(
    migrated: Migrated, loracle: Loracle, capsys
) -> None:
    plan, shown = migrated(
        "own_fields_qlora.yml", "registry/sums.json", "--eval", "data/quiz.jsonl"
    )

    assert [c.path for c in plan.candidates] == ["registry/sums.json"]
    assert [e.path for e in plan.evaluation] == ["data/quiz.jsonl"]
    assert any(line.startswith("their candidates") for line in block(shown, "Changed"))
    assert loracle("check", "--plan", "plan.yaml", "--set", "model.name=embedded") == 0


def test_a_dataset_that_is_not_there_is_named(migrated: Migrated, folder) -> None:
    text = (folder / "sums_lora.yml").read_text().replace("registry/sums.json", "gone/sums.json")
    (folder / "gone.yml").write_text(text)
    plan, shown = migrated("gone.yml")

    assert plan.candidates[0].path == "gone/sums.json"
    assert any(
        "gone/sums.json was not found here" in line for line in block(shown, "Not supported")
    )


def test_training_all_weights_is_said_not_to_be_kept(migrated: Migrated, folder) -> None:
    text = (folder / "sums_lora.yml").read_text().replace("adapter: lora\n", "adapter:\n")
    (folder / "full.yml").write_text(text)
    _, shown = migrated("full.yml")

    assert any(line.startswith("adapter: not set") for line in block(shown, "Not supported"))


@pytest.mark.parametrize(("part", "limit"), [("train[:30]", 30), ("train[:20%]", None)])
def test_a_part_of_a_split_is_its_first_rows_or_is_refused(
    migrated: Migrated, folder, part: str, limit: int | None
) -> None:
    settings = yaml.safe_load((folder / "sums_lora.yml").read_text())
    settings["datasets"] = [{"path": "org/sums", "type": "alpaca", "split": part}]
    (folder / "part.yml").write_text(yaml.safe_dump(settings))
    plan, shown = migrated("part.yml")

    assert (plan.candidates[0].split, plan.candidates[0].limit) == ("train", limit)
    refused = any(f"{part}: only a whole" in line for line in block(shown, "Not supported"))
    assert refused == (limit is None)
