"""The folder training/ as the description uses it: from within, and without an installation."""

from __future__ import annotations

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "training"


def python(
    *arguments: str | Path, folder: Path = FOLDER, **settings: str
) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**environment, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", **settings},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


IMPORTS = {
    "train_module": "from train_module import train_model_on_dataset_with_progress",
    "evaluate_module": "from evaluate_module import evaluate_model_on_dataset_with_progress",
    "pipeline_module": "from pipeline_module import run_training_evaluation_pipeline, "
    "run_pipeline_with_progress",
    "a library": "from datasets import load_dataset; import train_module",
}
# Each statement in a process in which only libraries were imported, and from that folder.
IMPORTING = """
import os, sys, traceback
import peft, torch, transformers
for statement in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        try:
            exec(statement, {})
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.fixture(scope="module")
def imported() -> tuple[dict[str, int], str]:
    """How each of IMPORTS ends in the folder, and what all of them wrote to standard error."""
    outcome = python("-c", IMPORTING, *IMPORTS.values())
    assert outcome.returncode == 0, outcome.stderr
    codes = map(int, outcome.stdout.split())
    return dict(zip(IMPORTS, codes, strict=True)), outcome.stderr


@pytest.mark.long
@pytest.mark.parametrize("module", ["train_module", "evaluate_module", "pipeline_module"])
def test_a_module_is_imported_from_its_own_folder(
    imported: tuple[dict[str, int], str], module: str
) -> None:
    codes, shown = imported
    assert codes[module] == 0, shown


def test_without_loracle_s_requirements_the_command_to_install_it_is_named(tmp_path: Path) -> None:
    copy = tmp_path / "training"
    shutil.copytree(FOLDER, copy)
    # -S: without the packages of this environment.
    outcome = python("-S", "-c", "import train_module", folder=copy)
    assert outcome.returncode == 1
    assert "Loracle cannot be imported (No module named " in outcome.stderr
    assert f"-m pip install -c {tmp_path / 'constraints.txt'} -e " in outcome.stderr


@pytest.mark.parametrize("package", ["filelock", "torch"])
def test_a_single_package_that_is_missing_is_named_with_the_command(package: str) -> None:
    outcome = python("-c", f"import sys; sys.modules['{package}'] = None; import train_module")
    assert outcome.returncode == 1
    assert f"Loracle cannot be imported (import of {package} halted" in outcome.stderr
    assert "-m pip install -c " in outcome.stderr


def test_the_folder_only_maps() -> None:
    scripts = {"download_qwen.py"}
    modules = [
        path
        for path in FOLDER.glob("*.py")
        if path.name not in scripts and not path.name.startswith("test_")
    ]
    assert sum(len(path.read_text().splitlines()) for path in modules) < 700
    for path in modules:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno + 1 < 60, f"{path.name}: {node.name}"


@pytest.mark.long
def test_no_module_of_the_folder_hides_a_library(imported: tuple[dict[str, int], str]) -> None:
    known = {*packages_distributions(), *sys.stdlib_module_names, "datasets"} - {"training"}
    ours = {path.stem for path in FOLDER.glob("*.py")} - {"__init__"}
    assert not ours & known
    codes, shown = imported
    assert codes["a library"] == 0, shown


@pytest.mark.long
def test_pytest_collects_the_smoke_tests_there_and_they_pass(model_folder: Path) -> None:
    outcome = python(
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_pipeline.py"),
        LORACLE_SMOKE_MODEL=str(model_folder),
    )
    assert outcome.returncode == 0, outcome.stdout
    assert "3 passed" in outcome.stdout


@pytest.mark.parametrize("module", ["black", "flake8"])
def test_the_folder_agrees_with_the_formatters_that_the_description_names(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    command = {"black": ["--check", "."], "flake8": ["."]}[module]
    outcome = python("-m", module, *command)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
