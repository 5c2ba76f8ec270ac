"""What the READMEs and pages of docs/ show is true: plans load, rows are read, commands exist."""

from __future__ import annotations

import ast
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

import loracle
from loracle.cli import app
from loracle.cli.shell import command_tree
from loracle.data.reading.dataset import read_examples
from loracle.plan import Plan, load_plan

REPOSITORY = Path(__file__).resolve().parents[1]
READMES = ("README.md", "README.zh.md")
PAGES = (*READMES, *sorted(f"docs/{path.name}" for path in (REPOSITORY / "docs").glob("*.md")))
FILE_SECTIONS = {"candidates", "evaluation"}
MAX_README_BYTES = 11_000


def text_of(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


def blocks(name: str, language: str) -> list[str]:
    """The code blocks of a page in one language."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text_of(name), re.DOTALL | re.MULTILINE)
    return [block for found, block in fenced if found == language]


def every_block(language: str) -> list[Any]:
    return [
        pytest.param(block, id=f"{name}-{number}")
        for name in PAGES
        for number, block in enumerate(blocks(name, language))
    ]


def options(name: str) -> set[str]:
    """The options of a subcommand."""
    command: Any = typer.main.get_command(app)
    found = {option for parameter in command.commands[name].params for option in parameter.opts}
    return {option for option in found if option.startswith("--")} - {"--help"}


def loaded(tmp_path: Path, block: str) -> Plan:
    path = tmp_path / "plan.yaml"
    path.write_text(block, encoding="utf-8")
    return load_plan(path)


def test_the_plan_page_has_every_key_at_its_default(tmp_path: Path) -> None:
    [block] = blocks("docs/plan.md", "yaml")
    shown = yaml.safe_load(block)
    defaults = load_plan(candidates=["a.jsonl"], evaluations=["test.jsonl"])

    assert shown.keys() == Plan.model_fields.keys()
    for section in shown.keys() - FILE_SECTIONS - {"seeds", "holdout", "devices", "trackers"}:
        fields = type(getattr(defaults, section)).model_fields
        assert shown[section].keys() == fields.keys(), section
    in_file = loaded(tmp_path, block).model_dump(exclude=FILE_SECTIONS)
    assert in_file == defaults.model_dump(exclude=FILE_SECTIONS)


@pytest.mark.parametrize("block", every_block("yaml"))
def test_every_plan_that_is_shown_loads(tmp_path: Path, block: str) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(block, encoding="utf-8")
    files = {} if "candidates:" in block else {"candidates": ["a", "b"], "evaluations": ["c"]}
    assert len(load_plan(path, **files).candidates) == 2


def test_the_holdout_that_is_shown_is_whole() -> None:
    (shown,) = re.findall(r"\{share: 0\.1, .*\}", text_of("docs/plan.md"))
    defaults = load_plan(candidates=["a.jsonl"], overrides=["holdout=0.1"]).held_out
    assert defaults is not None
    assert yaml.safe_load(shown) == defaults.model_dump()


@pytest.mark.parametrize("block", every_block("json"))
def test_every_row_that_is_shown_can_be_read(tmp_path: Path, block: str) -> None:
    for row in block.splitlines():
        path = tmp_path / "rows.jsonl"
        path.write_text(row, encoding="utf-8")
        assert len(read_examples(path)) >= 1


@pytest.mark.parametrize("block", every_block("python"))
def test_every_program_that_is_shown_calls_what_there_is(block: str) -> None:
    tree = ast.parse(block)
    named = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "loracle"
    }
    assert named <= set(loracle.__all__)
    of_a_run = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "run"
    }
    assert of_a_run <= set(dir(loracle.Run))


def command_lines() -> list[Any]:
    """Every line of a shell block that calls loracle, without its comment."""
    found = []
    for name in PAGES:
        for block in blocks(name, "bash"):
            lines = re.findall(r"^(?:\w+=\S+ )?loracle (.*)$", block, re.MULTILINE)
            found += [pytest.param(line, id=f"{name}: {line}") for line in lines]
    return found


@pytest.mark.parametrize("line", command_lines())
def test_every_command_line_that_is_shown_is_understood(line: str) -> None:
    name, *arguments = shlex.split(line, comments=True)
    command: Any = command_tree("en").commands[name]
    with command.make_context(name, arguments) as context:
        assert context.params


def test_every_make_target_that_is_shown_is_there() -> None:
    shown = {
        target
        for name in PAGES
        for block in blocks(name, "bash")
        for target in re.findall(r"^make (\w+)", block, re.MULTILINE)
    }
    assert shown >= {"demo", "check"}
    targets = set(re.findall(r"^(\w+):", text_of("Makefile"), re.MULTILINE))
    assert shown <= targets


def test_the_pages_name_every_option() -> None:
    named = {option for name in PAGES for option in re.findall(r"--[a-z-]+", text_of(name))}
    command: Any = typer.main.get_command(app)
    known = {name: options(name) for name in command.commands}
    assert {name: own - named for name, own in known.items() if own - named} == {}


@pytest.mark.parametrize("name", ["docs/plan.md"])
def test_the_score_command_that_is_shown_works(
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


def test_a_readme_is_short() -> None:
    for name in READMES:
        assert len(text_of(name).encode()) < MAX_README_BYTES, name


def without_comments(block: str) -> str:
    return re.sub(r"\s*# .*$", "", block, flags=re.MULTILINE)


def test_both_readmes_say_the_same() -> None:
    """Headings by level, code without its comments, links, figures: in the same order."""
    english, chinese = map(text_of, READMES)

    def outline(text: str) -> list[str]:
        prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
        return re.findall(r"^(#+) ", prose, re.MULTILINE)

    assert outline(english) == outline(chinese)
    for language in ("bash", "text", "json", "yaml", "python"):
        shown = [[without_comments(block) for block in blocks(name, language)] for name in READMES]
        assert shown[0] == shown[1], language
    links = [sorted(re.findall(r"\]\(([^)]+)\)", text)) for text in (english, chinese)]
    own = {"README.md", "README.zh.md"}
    assert [link for link in links[0] if link not in own] == [
        link for link in links[1] if link not in own
    ]
    figures = [
        sorted(re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?![\w])", text)) for text in (english, chinese)
    ]
    assert figures[0] == figures[1]


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


def test_every_place_that_the_architecture_names_is_there() -> None:
    _, _, after_tree = text_of("docs/architecture.md").partition("## Six files to read first")
    named = re.findall(r"`((?:[\w-]+/)+[\w.-]*|\w+\.py)`", after_tree)
    assert len(named) > 25
    assert [name for name in named if not (REPOSITORY / "loracle" / name).exists()] == []


@pytest.mark.parametrize("name", PAGES)
def test_what_a_page_links_to_is_there(name: str) -> None:
    folder = (REPOSITORY / name).parent
    text = text_of(name)
    links = re.findall(r"\]\((?!https?:|#)([^)]+)", text) + re.findall(
        r'src(?:set)?="([^"]+)"', text
    )
    missing = []
    for link in links:
        path, _, heading = link.partition("#")
        target = folder / path
        if not target.exists() or (heading and heading not in anchors(target)):
            missing.append(link)
    assert missing == []


def anchors(page: Path) -> set[str]:
    """The headings of a page as links name them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
