"""What the two READMEs of training/ show: their code runs, and every feature names its test."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from loracle.migration.transformers_settings import GenerationArguments, TrainingArguments
from loracle.model import source
from tests import tiny
from tests.original.conftest import question_rows, write_rows

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "training"
READMES = ("README.md", "README.zh.md")


def text_of(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def code_blocks(name: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", text_of(name), re.DOTALL | re.MULTILINE)


def features(name: str) -> list[list[str]]:
    """By row of the last table, the tests it names."""
    rows = [line for line in text_of(name).splitlines() if line.startswith("| ")][1:]
    return [re.findall(r"`(test_\w+)`", row.rsplit("|", 2)[1]) for row in rows]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """The working folder that the code speaks of: a small model, data and LoRA configs."""
    tiny.save_model(tmp_path / "my-model", hidden_size=64, intermediate_size=128)
    (tmp_path / "data").mkdir()
    for name, rows in (("a", (4, 3)), ("b", (3, 2)), ("test", (2, 2))):
        write_rows(tmp_path / "data" / f"{name}.jsonl", question_rows(*rows))
    shutil.copytree(REPOSITORY / "lora_configs", tmp_path / "lora_configs")
    return tmp_path


def test_the_code_runs_as_it_stands(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # test_description.py trains the real one.
    monkeypatch.setattr(source, "embedded_model_folder", lambda: files / "my-model")
    for block in code_blocks("README.md"):
        exec(compile(block, "README.md", "exec"), {})
    assert (files / "adapters" / "a" / "adapter_model.safetensors").is_file()
    assert json.loads((files / "results" / "summary.json").read_text())["status"] == "completed"


def test_both_languages_show_the_same_code_and_the_same_tests() -> None:
    assert len(code_blocks("README.md")) == 3
    assert code_blocks("README.zh.md") == code_blocks("README.md")
    assert features("README.zh.md") == features("README.md")


def test_every_feature_names_a_test_that_is_there() -> None:
    sources = [path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py")]
    there = {name for text in sources for name in re.findall(r"^def (test_\w+)", text, re.M)}
    found = features("README.md")
    assert len(found) > 20
    for tests in found:
        assert tests
        assert set(tests) <= there


@pytest.mark.parametrize("name", READMES)
def test_every_argument_is_listed(name: str) -> None:
    named = set(re.findall(r"\w+", text_of(name)))
    fields = {*TrainingArguments.model_fields, *GenerationArguments.model_fields}
    assert not fields - named


@pytest.mark.parametrize("name", READMES)
def test_the_tree_names_every_module_and_no_other(name: str) -> None:
    tree = text_of(name).split("```")[1]
    shown = set(re.findall(r"\b(\w+\.py)\b", tree))
    assert shown == {path.name for path in FOLDER.glob("*.py")} - {"__init__.py"}
