"""LLaMA-Factory's training YAML becomes a plan."""

from __future__ import annotations

from pathlib import Path

from tests.migration.conftest import Loracle, Migrated, block


def test_the_example_of_its_repository_becomes_a_plan(migrated: Migrated) -> None:
    plan, shown = migrated("facts_lora_sft.yaml")

    assert plan.model.name == "meta-llama/Meta-Llama-3-8B-Instruct"
    assert plan.model.trust_remote_code
    assert [(c.path, c.name, c.limit) for c in plan.candidates] == [
        ("data/dataset_info.json#sums", "sums", 1000),
        ("data/dataset_info.json#chats", "chats", 1000),
    ]
    assert plan.holdout is not None
    assert plan.holdout.share == 0.1
    assert (plan.lora.r, plan.lora.alpha, plan.lora.dropout) == (8, 16, 0.0)
    assert plan.lora.target_modules == "all-linear"
    training = plan.training
    assert (training.epochs, training.batch_size, training.learning_rate) == (3.0, 8, 1e-4)
    assert (training.schedule, training.warmup_ratio) == ("cosine", 0.1)
    assert (training.max_length, training.overlong) == (2048, "shorten")
    assert training.max_grad_norm == 1.0
    assert block(shown, "Not supported") == ["nothing"]
    assert any("own chat template" in line for line in block(shown, "Changed"))
    assert any("separate candidate" in line for line in block(shown, "Changed"))
    assert "Not needed: stage, finetuning_type, output_dir, logging_steps" in shown


def test_what_it_does_without_a_word_is_kept_too(migrated: Migrated, folder: Path) -> None:
    (folder / "short.yaml").write_text(
        "model_name_or_path: Qwen/Qwen2.5-0.5B\nstage: sft\ndataset: sums\nlora_rank: 4\n"
    )
    plan, shown = migrated("short.yaml")

    assert (plan.lora.r, plan.lora.alpha, plan.lora.dropout) == (4, 8, 0.0)
    assert (plan.training.learning_rate, plan.training.batch_size) == (5e-5, 8)
    assert (plan.training.schedule, plan.training.warmup_ratio) == ("linear", 0.0)
    assert any(
        "lora_alpha (not set: LLaMA-Factory's default)" in line for line in shown.split("\n")
    )


def test_qlora_with_an_evaluation_set_says_what_cannot_be_kept(migrated: Migrated) -> None:
    plan, shown = migrated("facts_qlora.yaml")

    assert [c.path for c in plan.candidates] == [
        "registry/dataset_info.json#sums",
        "registry/dataset_info.json#chats",
    ]
    assert [e.path for e in plan.evaluation] == ["registry/dataset_info.json#quiz"]
    assert plan.held_out is None
    assert plan.lora.target_modules == ["q_proj", "v_proj"]
    assert plan.lora.model_extra == {"use_rslora": True}
    assert (plan.training.max_steps, plan.training.warmup_ratio) == (200, 0.1)
    assert plan.training.train_on == "last"
    assert plan.training.schedule == "cosine"
    refused = " ".join(block(shown, "Not supported"))
    assert "neftune_noise_alpha: 5" in refused
    changed = " ".join(block(shown, "Changed"))
    assert "cosine_with_restarts" in changed
    assert "fp16" in changed
    assert "--set trackers=wandb" in changed


def test_a_dataset_that_the_registry_lacks_is_named(migrated: Migrated, folder: Path) -> None:
    text = (folder / "facts_qlora.yaml").read_text()
    (folder / "slip.yaml").write_text(text.replace("sums, chats", "sums, chat"))
    _, shown = migrated("slip.yaml")

    assert any(
        "dataset: chat" in line and "did you mean chats?" in line
        for line in block(shown, "Not supported")
    )


def test_its_data_is_found_above_the_file_and_from_the_plans_folder(
    folder: Path, loracle: Loracle, monkeypatch, capsys
) -> None:
    deep = folder / "examples/train_lora"
    deep.mkdir(parents=True)
    (folder / "facts_lora_sft.yaml").rename(deep / "facts.yaml")
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)

    assert loracle("init", "--from", deep / "facts.yaml", "--out", "plans/facts.yaml") == 0
    assert loracle("check", "--plan", "plans/facts.yaml", "--set", "model.name=embedded") == 0
    assert "40" in capsys.readouterr().out


def test_its_data_is_read_by_check(migrated: Migrated, loracle: Loracle, capsys) -> None:
    migrated("facts_qlora.yaml")

    assert loracle("check", "--plan", "plan.yaml", "--set", "model.name=embedded") == 0
    shown = capsys.readouterr().out
    assert "sums" in shown
    assert "chats" in shown
    assert "quiz" in shown


def test_its_command_line_is_read_from_a_script(migrated: Migrated, folder: Path) -> None:
    (folder / "train.sh").write_text(
        "USE_MODELSCOPE_HUB=1 llamafactory-cli train facts_lora_sft.yaml learning_rate=3e-5\n"
    )
    plan, _ = migrated("train.sh")

    assert plan.training.learning_rate == 3e-5
    assert plan.model.name == "ms://meta-llama/Meta-Llama-3-8B-Instruct"


def test_an_evaluation_set_on_the_command_line_leaves_no_word_of_rows_held_out(
    migrated: Migrated,
) -> None:
    plan, shown = migrated("facts_lora_sft.yaml", "--eval", "registry/quiz.jsonl")

    assert [e.path for e in plan.evaluation] == ["registry/quiz.jsonl"]
    assert "--eval YOUR_FILE" not in shown
