"""The import layers of pyproject.toml hold, and the command line starts without torch."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

# What takes seconds to import and is not needed to check a plan or to score a file.
HEAVY_PACKAGES = ("torch", "transformers", "peft", "datasets", "accelerate")

LIGHT_MODULES = (
    "loracle.cli",
    "loracle.plan",
    "loracle.data.reading.dataset",
    "loracle.metrics",
    "loracle.metrics.score_file",
    "loracle.run_folder.folder",
    "loracle.run_folder.reporter",
    "loracle.data.clusters",
    "loracle.statistics",
    "loracle.decision.rule",
    "loracle.report.results",
    "loracle.report.table",
    "loracle.decision.judge",
    "loracle.decision.compare",
    "loracle.report.decision_text",
)


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter in `folder`, on its pyproject.toml."""
    return subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as main; main()"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_imports_go_one_way() -> None:
    outcome = lint_imports(REPOSITORY)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


@pytest.fixture(scope="module")
def empty_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose imports are in order."""
    folder = copy_of_the_modules(tmp_path_factory.mktemp("modules"))
    assert lint_imports(folder).returncode == 0
    return folder


def copy_of_the_modules(folder: Path) -> Path:
    """`folder` with every module of loracle and training empty, and the same contracts."""
    (folder / "pyproject.toml").write_text((REPOSITORY / "pyproject.toml").read_text())
    for package in ("loracle", "training"):
        for module in (REPOSITORY / package).rglob("*.py"):
            empty = folder / module.relative_to(REPOSITORY)
            empty.parent.mkdir(parents=True, exist_ok=True)
            empty.write_text("")
    return folder


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("loracle/errors.py", "import loracle.plan"),
        ("loracle/forest/trie.py", "import loracle.forest.attention.interface\nimport torch"),
        ("loracle/metrics/texts.py", "import torch"),
        ("loracle/statistics/scope.py", "import torch"),
        ("loracle/report/table.py", "def late() -> None:\n    import transformers"),
        ("loracle/experiment/trial.py", "import loracle.experiment.run"),
        ("loracle/experiment/run.py", "import training"),
        ("loracle/in_no_layer.py", ""),
    ],
)
def test_an_import_against_the_layers_is_found(
    empty_modules: Path, tmp_path: Path, module: str, line: str
) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(empty_modules, folder)
    (folder / module).write_text(line)
    outcome = lint_imports(folder)
    assert outcome.returncode != 0
    assert Path(module).stem in outcome.stdout + outcome.stderr


# Forks for every module, from an interpreter that has imported only what is light.
IN_FORKS = """
import importlib, json, os, sys
import numpy, pydantic, typer, yaml

modules, heavy = json.loads(sys.argv[1])
assert not set(heavy) & set(sys.modules)
for module in modules:
    if os.fork() == 0:
        importlib.import_module(module)
        print(json.dumps([module, [name for name in heavy if name in sys.modules]]), flush=True)
        sys.exit()
    assert os.wait()[1] == 0, module
"""


@pytest.fixture(scope="module")
def imported_with() -> dict[str, list[str]]:
    """The heavy packages that each light module imports."""
    asked = json.dumps([LIGHT_MODULES, HEAVY_PACKAGES])
    command = [sys.executable, "-c", IN_FORKS, asked]
    outcome = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert outcome.returncode == 0, outcome.stderr
    return dict(json.loads(line) for line in outcome.stdout.splitlines())


@pytest.mark.parametrize("module", LIGHT_MODULES)
def test_a_light_module_starts_without_the_heavy_packages(
    module: str, imported_with: dict[str, list[str]]
) -> None:
    assert imported_with[module] == []


MAX_MODULE_LINES, MAX_FUNCTION_LINES = 400, 60


def too_long(root: Path) -> list[str]:
    """Modules and functions below a folder that are longer than allowed."""
    found = []
    for path in sorted(root.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        num_lines = len(text.splitlines())
        if num_lines > MAX_MODULE_LINES:
            found.append(f"{path.relative_to(root)}: {num_lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > MAX_FUNCTION_LINES:
                    found.append(f"{path.relative_to(root)}: {node.name}: {length} lines")
    return found


@pytest.mark.parametrize("folder", ["loracle", "benchmarks"])
def test_modules_and_functions_are_short(folder: str) -> None:
    assert too_long(REPOSITORY / folder) == []


def test_what_is_too_long_is_found(tmp_path: Path) -> None:
    line = "    pass\n"
    body = line * MAX_FUNCTION_LINES
    (tmp_path / "a.py").write_text(f"def f():\n{body}")
    (tmp_path / "b.py").write_text("x = 1\n" * (MAX_MODULE_LINES + 1))
    (tmp_path / "c.py").write_text(f"def g():\n{body.removeprefix(line)}")
    assert too_long(tmp_path) == ["a.py: f: 61 lines", "b.py: 401 lines"]
