"""What the READMEs show is true: their plans load, their rows can be read, their commands exist."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from loracle.cli import app
from loracle.data.reading.dataset import read_examples
from loracle.plan import Plan, load_plan

REPOSITORY = Path(__file__).resolve().parents[1]
READMES = ("README.md", "README.zh.md")
FILE_SECTIONS = {"candidates", "evaluation"}


def text_of(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


def blocks(name: str, language: str) -> list[str]:
    """The code blocks of a README in one language."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text_of(name), re.DOTALL | re.MULTILINE)
    return [block for found, block in fenced if found == language]


def options(name: str) -> set[str]:
    """The options of a subcommand."""
    command: Any = typer.main.get_command(app)
    found = {option for parameter in command.commands[name].params for option in parameter.opts}
    return {option for option in found if option.startswith("--")} - {"--help"}


def loaded(tmp_path: Path, block: str) -> Plan:
    path = tmp_path / "plan.yaml"
    path.write_text(block, encoding="utf-8")
    return load_plan(path)


def test_the_plan_in_the_readme_has_every_key_at_its_default(tmp_path: Path) -> None:
    [block] = blocks("README.md", "yaml")
    shown = yaml.safe_load(block)
    defaults = load_plan(candidates=["a.jsonl"], evaluations=["test.jsonl"])

    assert shown.keys() == Plan.model_fields.keys()
    for section in shown.keys() - FILE_SECTIONS - {"seeds", "holdout", "trackers"}:
        fields = type(getattr(defaults, section)).model_fields
        assert shown[section].keys() == fields.keys(), section
    in_file = loaded(tmp_path, block).model_dump(exclude=FILE_SECTIONS)
    assert in_file == defaults.model_dump(exclude=FILE_SECTIONS)


def test_the_chinese_plan_loads(tmp_path: Path) -> None:
    [block] = blocks("README.zh.md", "yaml")
    assert loaded(tmp_path, block).candidates[1].name == "short-answers"


def test_the_holdout_in_the_readme_is_whole() -> None:
    (shown,) = re.findall(r"\{share: 0\.1, .*\}", text_of("README.md"))
    defaults = load_plan(candidates=["a.jsonl"], overrides=["holdout=0.1"]).held_out
    assert defaults is not None
    assert yaml.safe_load(shown) == defaults.model_dump()


def test_the_readme_names_the_options_of_reading() -> None:
    named = set(re.findall(r"--[a-z-]+", text_of("README.md")))
    for name in ("check", "inspect", "split", "convert"):
        assert options(name) <= named | {"--limit"}, name


@pytest.mark.parametrize("name", READMES)
def test_the_rows_in_a_readme_can_be_read(tmp_path: Path, name: str) -> None:
    [rows] = blocks(name, "json")
    for row in rows.splitlines():
        path = tmp_path / "rows.jsonl"
        path.write_text(row, encoding="utf-8")
        assert len(read_examples(path)) >= 1


def test_the_readme_names_every_option() -> None:
    text = text_of("README.md")
    table = set(re.findall(r"^\| `(--[a-z-]+)", text, re.MULTILINE))
    assert table == options("run")
    for name in ("score", "decide", "compare"):
        assert options(name) <= set(re.findall(r"--[a-z-]+", text)), name


@pytest.mark.parametrize("name", READMES)
def test_the_score_command_of_a_readme_works(
    tmp_path: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    row = {"prediction": "The Broncos", "answers": ["Broncos"]}
    Path("predictions.jsonl").write_text(json.dumps(row), encoding="utf-8")
    [line] = re.findall(r"^loracle (score .*)$", text_of(name), re.MULTILINE)
    app(shlex.split(line), standalone_mode=False)
    assert "mean in percent over 1 row of predictions.jsonl" in capsys.readouterr().out


def modules_in_tree(text: str) -> set[str]:
    """The Python files that the architecture's tree names, as paths in the repository."""
    found: set[str] = set()
    folders: list[str] = []
    for indent, name in re.findall(r"^((?:  )*)([\w/]+(?:/|\.py))(?=\s|$)", text, re.MULTILINE):
        folders = folders[: len(indent) // 2]
        if name.endswith("/"):
            folders.append(name)
        else:
            found.add("".join([*folders, name]))
    return found


def test_the_tree_names_every_module_and_no_other() -> None:
    [tree] = [
        block for block in blocks("docs/architecture.md", "") if block.startswith("loracle/\n")
    ]
    modules = {
        path.relative_to(REPOSITORY).as_posix()
        for path in (REPOSITORY / "loracle").rglob("*.py")
        if path.name != "__init__.py"
    }
    assert modules_in_tree(tree) == modules


@pytest.mark.parametrize("name", READMES)
def test_the_files_that_a_readme_links_to_are_there(name: str) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text_of(name))
    assert len(links) >= 2
    assert [link for link in links if not (REPOSITORY / link).exists()] == []
