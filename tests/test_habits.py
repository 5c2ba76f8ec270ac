"""What the project's workflows, hooks, templates and Dockerfile call is there."""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

import loracle

REPOSITORY = Path(__file__).resolve().parents[1]
GITHUB = REPOSITORY / ".github"


def text_of(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


def parsed(name: str) -> Any:
    return yaml.safe_load(text_of(name))


def project() -> dict[str, Any]:
    return tomllib.loads(text_of("pyproject.toml"))


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", text_of("Makefile"), re.MULTILINE))


def targets_called(text: str) -> set[str]:
    return set(re.findall(r"\bmake ([a-z]+)", text))


def commands(workflow: str) -> list[str]:
    """What the steps of a workflow run."""
    jobs = parsed(workflow)["jobs"].values()
    return [step["run"] for job in jobs for step in job["steps"] if "run" in step]


def docker_lines(instruction: str) -> list[str]:
    joined = text_of("Dockerfile").replace("\\\n", " ")
    return [
        line.partition(" ")[2] for line in joined.splitlines() if line.startswith(f"{instruction} ")
    ]


def test_the_workflow_runs_make_check_on_every_python_that_is_named() -> None:
    workflow = parsed(".github/workflows/test.yml")
    named = [
        classifier.rpartition(" ")[2]
        for classifier in project()["project"]["classifiers"]
        if re.search(r":: 3\.\d+$", classifier)
    ]

    assert workflow["jobs"]["check"]["strategy"]["matrix"]["python"] == named
    assert project()["project"]["requires-python"] == f">={named[0]}"
    assert "make check PYTHON=python" in commands(".github/workflows/test.yml")


def test_every_make_target_that_is_called_exists() -> None:
    ran = " ".join(commands(".github/workflows/test.yml"))
    called = targets_called(f"{ran} {text_of('CONTRIBUTING.md')}")
    called |= targets_called((GITHUB / "pull_request_template.md").read_text(encoding="utf-8"))

    assert {"check", "install"} <= called
    assert called <= make_targets()


def test_the_hooks_call_the_programs_of_make_lint() -> None:
    [repository] = parsed(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    entries = [hook["entry"] for hook in repository["hooks"] if hook["language"] == "system"]
    programs = {Path(shlex.split(entry)[0]) for entry in entries}
    linted = set(re.findall(r"^\t\$\(BIN\)/([\w-]+)", make_rule("lint"), re.MULTILINE))

    assert {program.parent.as_posix() for program in programs} == {".venv/bin"}
    assert {program.name for program in programs} == linted
    for program in programs:
        assert (Path(sys.executable).parent / program.name).is_file(), program


def make_rule(target: str) -> str:
    found = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", text_of("Makefile"), re.MULTILINE)
    assert found is not None
    return found[1]


@pytest.mark.parametrize(
    ("message", "fits"),
    [
        ("feat: a plan is written from a script", True),
        ("fix(cli)!: an option is gone", True),
        ("Merge branch 'main'", True),
        ("A plan is written", False),
        ("feature: a plan is written", False),
        ("feat:", False),
    ],
)
def test_a_commit_message_begins_with_a_word_of_the_list(message: str, fits: bool) -> None:
    hooks = parsed(".pre-commit-config.yaml")["repos"][0]["hooks"]
    [pattern] = [hook["entry"] for hook in hooks if hook["id"] == "commit-words"]

    assert bool(re.search(pattern, message)) is fits


def test_contributing_names_the_commit_words_of_the_hook() -> None:
    hooks = parsed(".pre-commit-config.yaml")["repos"][0]["hooks"]
    [pattern] = [hook["entry"] for hook in hooks if hook["id"] == "commit-words"]
    listed = re.findall(r"^\| `(\w+):` \|", text_of("CONTRIBUTING.md"), re.MULTILINE)

    assert f"({'|'.join(listed)})" in pattern


def test_contributing_names_files_that_exist() -> None:
    text = text_of("CONTRIBUTING.md")
    links = re.findall(r"\]\(([^)]+)\)", text)
    paths = re.findall(r"`((?:[\w.]+/)+(?:[\w.]+)?|[\w.]+\.(?:toml|md|txt))`", text)

    assert len(links) + len(paths) > 5
    assert [name for name in (*links, *paths) if not (REPOSITORY / name).exists()] == []


@pytest.mark.parametrize("name", ["bug.yml", "feature.yml"])
def test_an_issue_template_has_what_github_asks_for(name: str) -> None:
    template = parsed(f".github/ISSUE_TEMPLATE/{name}")
    questions = template["body"]
    ids = [question["id"] for question in questions]

    assert {"name", "description", "body"} <= set(template)
    assert len(ids) == len(set(ids))
    assert all(question["type"] in ("textarea", "input", "dropdown") for question in questions)
    assert all(question["attributes"]["label"] for question in questions)


def test_the_dockerfile_copies_what_is_there_and_what_is_sent() -> None:
    ignored = [line for line in text_of(".dockerignore").splitlines() if line[:1] not in ("", "#")]
    sources = [name for line in docker_lines("COPY") for name in line.split()[:-1]]
    sent = [pattern[1:] for pattern in ignored if pattern.startswith("!")]

    assert ignored[0] == "*"
    assert [name for name in sources if not (REPOSITORY / name).exists()] == []
    assert [name for name in sources if not any(fnmatch(name, part) for part in sent)] == []
    needed = [project()["project"]["readme"], *project()["project"]["license-files"]]
    assert set(needed) <= set(sources)
    packages = {
        pattern.rstrip("*")
        for pattern in project()["tool"]["setuptools"]["packages"]["find"]["include"]
    }
    assert packages <= set(sources)


def test_the_dockerfile_installs_extras_and_the_model_as_make_does() -> None:
    cpu, cuda = (
        set(extras.split(",")) for extras in re.findall(r"\bEXTRAS=([\w,]+)", text_of("Dockerfile"))
    )
    [model] = re.findall(r"^EMBEDDED_MODEL := (\S+)$", text_of("Makefile"), re.MULTILINE)

    assert cpu < cuda <= set(project()["project"]["optional-dependencies"])
    assert {"quant", "cuda", "ray"} <= cuda
    assert '".[$EXTRAS]"' in text_of("Dockerfile")
    assert f"--no-deps {model}" in text_of("Dockerfile")


def test_the_dockerfiles_device_is_an_argument() -> None:
    assert "DEVICE=cpu" in docker_lines("ARG")
    assert "--build-arg DEVICE=cuda" in text_of("Dockerfile")


def test_the_version_and_the_addresses_are_set() -> None:
    urls = project()["project"]["urls"]

    assert re.fullmatch(r"\d+\.\d+\.\d+", loracle.__version__)
    assert all(url.startswith("https://github.com/loracle/loracle") for url in urls.values())


def test_black_and_ruff_have_one_width() -> None:
    tools = project()["tool"]

    assert tools["black"]["line-length"] == tools["ruff"]["line-length"]
