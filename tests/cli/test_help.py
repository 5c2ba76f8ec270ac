"""The commands, their flags and their help, in both languages."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest

from loracle import __version__, cli
from loracle.cli.catalogue import _COMMANDS, _PANELS, _PARAMETERS, MESSAGES
from loracle.cli.metavars import METAVARS
from loracle.cli.shell import asked_language, command_tree
from loracle.language import chosen_language
from loracle.text import cell_width

READING = {"--format", "--column", "--ignore-column", "--split", "--encoding", "--unanswerable"}
SHARED = {"--language", "--quiet", "-q", "--verbose", "-v"}
FORESEEN = {"--set", "--device", "--memory", "--count", "--price", "--probe", "--json"}
FLAGS = {
    "init": {"candidates", "--eval", "--from", "--out"},
    "run": {
        "candidates",
        "--eval",
        "--model",
        "--out",
        "--plan",
        "--set",
        "--devices",
        "--ray-address",
        "--json",
        "--strict",
        "--base-only",
        "--dry-run",
    },
    "plan": {"candidates", "--eval", "--model", "--out", "--plan"} | FORESEEN,
    "recommend": {"model", "dataset"} | FORESEEN,
    "doctor": {"--json"},
    "resume": {
        "run_folder",
        "--candidate",
        "--retry-failed",
        "--devices",
        "--ray-address",
        "--json",
    },
    "status": {"folder", "--json"},
    "verify": {"run_folder", "--json"},
    "fetch": {"targets", "--hub"},
    "check": {"candidates", "--eval", "--model", "--plan", "--set", "--json"} | READING,
    "inspect": {"path", "--row", "--model", "--ids", "--plan", "--set"} | READING,
    "split": {"path", "--holdout", "--seed", "--out", "--json"} | READING,
    "convert": {"path", "--out", "--limit"} | READING,
    "decide": {"run_folder", "--metric", "--confidence", "--why", "--json"},
    "compare": {"run_a", "run_b", "--metric", "--confidence", "--json"},
    "report": {"run_folder", "--open"},
    "serve": {"folder", "--port"},
    "score": {"file", "--metrics", "--per-row", "--column", "--json"},
    "export": {"run_folder", "name", "--predictions", "--to", "--out", "--dtype"},
}


def flags(command: Any) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts}


def loracle(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["loracle", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_the_commands_and_their_flags_are_these() -> None:
    tree = command_tree("en")
    assert {name: flags(command) for name, command in tree.commands.items()} == {
        name: own | SHARED for name, own in FLAGS.items()
    }
    assert flags(tree) == {"--version", "--install-completion", "--show-completion"} | SHARED


def test_commands_stand_in_groups() -> None:
    groups: dict[str, list[str]] = {}
    for name, command in command_tree("en").commands.items():
        groups.setdefault(command.rich_help_panel, []).append(name)
    assert groups == {
        "Start": ["init", "plan", "recommend", "doctor", "run", "resume"],
        "Data": ["fetch", "check", "inspect", "split", "convert"],
        "Results": ["status", "verify", "decide", "compare", "report", "serve", "score"],
        "Share": ["export"],
    }


@pytest.mark.parametrize("name", FLAGS)
def test_a_command_has_a_short_first_line_and_an_example(name: str) -> None:
    command = command_tree("en").commands[name]
    # The frame of the list of commands, and its first column, take 14 of 80 columns.
    assert len(command.help.split("\n\n")[0]) <= 66
    assert command.epilog.startswith(f"Example: loracle {name} ")
    assert len(command.epilog) <= 78


def test_every_help_text_is_there_in_chinese() -> None:
    tree = command_tree("en")
    for command in (tree, *tree.commands.values()):
        assert set(command.help.split("\n\n")) <= set(_COMMANDS), command.name
        assert {parameter.help for parameter in command.params} <= set(_PARAMETERS), command.name
        panels = {getattr(parameter, "rich_help_panel", None) for parameter in command.params}
        assert panels - {None} <= set(_PANELS)
    assert all(set(texts) == {"en", "zh"} for texts in MESSAGES.values())


def test_the_chinese_catalogue_has_nothing_that_is_not_said() -> None:
    tree = command_tree("en")
    commands = (tree, *tree.commands.values())
    said = {part for command in commands for part in command.help.split("\n\n")}
    assert set(_COMMANDS) == said
    helps = {parameter.help for command in commands for parameter in command.params}
    assert set(_PARAMETERS) - helps == {"Show this message and exit."}


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_fits_80_columns_in_both_languages(
    option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    assert loracle(option, monkeypatch=monkeypatch) == 0
    english = capsys.readouterr().out
    assert "Fine-tune on every candidate and say which one to use.  " in english
    assert loracle("--language", "zh", option, monkeypatch=monkeypatch) == 0
    chinese = capsys.readouterr().out
    assert "在每个候选数据集上微调" in chinese
    assert "显示本帮助并退出" in chinese
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    assert loracle(option, monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out == chinese
    assert loracle("run", "--language=en", option, monkeypatch=monkeypatch) == 0
    assert "Training sets to compare" in capsys.readouterr().out
    assert max(map(len, english.splitlines())) <= 80


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("name", FLAGS)
def test_every_help_fits_80_columns_and_names_values_for_people(
    name: str,
    language: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert loracle(name, "--help", "--language", language, monkeypatch=monkeypatch) == 0
    text = capsys.readouterr().out
    assert max(map(cell_width, text.splitlines())) <= 80
    # Not a type of Python's, and no name cut in the middle.
    assert not re.search(r"<\w+[\[\]\w|]*>|…", text)


def test_there_is_no_metavar_without_a_parameter() -> None:
    commands = [command_tree("en"), *command_tree("en").commands.values()]
    known = {
        parameter.name if parameter.param_type_name == "argument" else parameter.opts[0]
        for command in commands
        for parameter in command.params
    }
    assert set(METAVARS) <= known


def test_the_version_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert loracle("--version", monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out == f"loracle {__version__}\n"


def test_python_finds_the_command_line_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "loracle", "--version"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, f"loracle {__version__}\n")


def test_without_a_command_help_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert loracle(monkeypatch=monkeypatch) == 2
    shown = capsys.readouterr()
    assert "Usage: loracle" in shown.out + shown.err


def test_errors_have_their_frame_in_the_language(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert loracle("decide", "nowhere", "--language", "zh", monkeypatch=monkeypatch) == 2
    assert capsys.readouterr().err.startswith("错误：")
    assert loracle("decide", "nowhere", "--language", "en", monkeypatch=monkeypatch) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_the_shell_can_complete_commands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_LORACLE_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "loracle dec")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert loracle(monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out.split() == ["decide"]


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({}, "en"),
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "en_US.UTF-8"}, "en"),
        ({"LANG": "en_US.UTF-8", "LC_MESSAGES": "zh_TW"}, "zh"),
        ({"LANG": "C"}, "en"),
    ],
)
def test_the_language_follows_the_locale(environment: dict[str, str], language: str) -> None:
    assert chosen_language("auto", environment) == language


def test_the_flag_decides_over_the_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    assert asked_language(["run", "a.jsonl"]) == "zh"
    assert asked_language(["run", "--language", "en", "a.jsonl"]) == "en"
    assert asked_language(["--language=en", "run"]) == "en"
    assert asked_language(["--language", "fr"]) == "zh"
