"""A command of ms-swift in a shell script, or its YAML, becomes a plan."""

from __future__ import annotations

from tests.migration.conftest import Loracle, Migrated, block


def test_the_quick_start_becomes_a_plan(migrated: Migrated) -> None:
    plan, shown = migrated("quick_start.sh")

    assert plan.model.name == "ms://Qwen/Qwen2.5-7B-Instruct"
    questions, quiz = plan.candidates
    assert (questions.path, questions.limit) == ("registry/questions.jsonl", 20)
    assert questions.columns == {"instruction": "query", "output": "response"}
    assert (quiz.path, quiz.limit, quiz.format) == ("registry/quiz.jsonl", None, "auto")
    assert (plan.lora.r, plan.lora.alpha, plan.lora.dropout) == (8, 32, 0.05)
    training = plan.training
    assert (training.epochs, training.batch_size, training.learning_rate) == (1.0, 16, 1e-4)
    assert (training.schedule, training.warmup_ratio) == ("cosine", 0.05)
    assert (training.weight_decay, training.adam_beta2) == (0.1, 0.95)
    assert (training.max_length, training.overlong) == (2048, "drop")
    assert block(shown, "Not supported") == [
        "system: You are a helpful assistant.: write it into the rows, as their system message"
    ]
    assert any("not a random sample" in line for line in block(shown, "Changed"))


def test_hubs_subsets_and_processes_are_carried_over(migrated: Migrated) -> None:
    plan, shown = migrated("several_gpus.sh")

    assert plan.model.name == "ms://Qwen/Qwen2.5-7B-Instruct"
    assert [(c.path, c.limit) for c in plan.candidates] == [
        ("ms://AI-ModelScope/alpaca-gpt4-data-zh", 500),
        ("ms://swift/self-cognition:qwen3", None),
        ("ms://swift/self-cognition:empty_think", None),
        ("hf://somebody/their-rows", None),
    ]
    assert [e.path for e in plan.evaluation] == ["registry/quiz.jsonl"]
    # 2 rows, on 2 processes, filled up to 16.
    assert plan.training.batch_size == 16
    assert plan.training.train_on == "last"
    assert (plan.training.schedule, plan.training.warmup_ratio) == ("constant", 0.0)
    assert plan.lora.target_modules == ["q_proj", "v_proj"]
    assert "lorap_lr_ratio: 16" in " ".join(block(shown, "Not supported"))
    not_needed = shown.partition("Not needed: ")[2].partition("\n")[0]
    assert {"packing", "use_dora", "deepspeed"} <= set(not_needed.split(", "))


def test_its_yaml_becomes_a_plan_too(migrated: Migrated, folder) -> None:
    (folder / "train.sh").write_text("swift sft --config config.yaml --learning_rate 2e-5\n")
    plan, _ = migrated("train.sh")

    assert plan.model.name == "Qwen/Qwen2.5-7B-Instruct"
    assert plan.candidates[0].columns == {"instruction": "ask", "output": "reply"}
    assert plan.training.learning_rate == 2e-5
    assert plan.holdout is not None
    assert plan.holdout.share == 0.1


def test_the_names_of_its_second_version_are_known(migrated: Migrated, folder) -> None:
    (folder / "old.sh").write_text(
        "swift sft --model_id_or_path Qwen/Qwen2.5-7B-Instruct --sft_type lora \\\n"
        "  --dataset registry/quiz.jsonl --lora_target_modules ALL --batch_size 4\n"
    )
    plan, shown = migrated("old.sh")

    assert plan.lora.target_modules == "all-linear"
    assert plan.training.batch_size == 16
    assert block(shown, "Not supported") == ["nothing"]


def test_its_data_is_read_by_check(migrated: Migrated, loracle: Loracle, capsys) -> None:
    migrated("quick_start.sh")

    assert loracle("check", "--plan", "plan.yaml", "--set", "model.name=embedded") == 0
    shown = capsys.readouterr().out
    assert "questions" in shown
    assert "quiz" in shown


def test_a_second_training_command_is_named_and_not_read(migrated: Migrated, folder) -> None:
    (folder / "two.sh").write_text(
        "swift sft --model a/b --dataset registry/quiz.jsonl\n"
        "swift sft --model c/d --dataset registry/quiz.jsonl\n"
    )
    plan, shown = migrated("two.sh")

    assert plan.model.name == "ms://a/b"
    assert any("swift sft --model c/d" in line for line in block(shown, "Not supported"))
