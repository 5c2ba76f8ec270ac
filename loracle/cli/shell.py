"""What all commands share: the application, its options, exit codes, and how things are printed.

Every command takes --language, --quiet and --verbose; they are added when `command_tree` is built,
and the user's choices are in `session`.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
import typer.main

from loracle.cli.catalogue import help_in, say, set_typers_words
from loracle.cli.metavars import show_metavars
from loracle.language import Language, LanguageChoice, chosen_language
from loracle.run_folder.views import Progress
from loracle.safety.secrecy import without_secrets
from loracle.text import without_repeats, wrapped

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2

START, DATA, RESULTS, SHARE, MESSAGES = "Start", "Data", "Results", "Share", "Messages"
"""The panels of --help."""

_PROGRAM = "loracle"
_SUMMARY = "Tells which dataset is worth fine-tuning on."

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@dataclass
class Session:
    """What the user asked for with the options of this call."""

    language: Language = "en"
    progress: Progress = "auto"


session = Session()


class LanguageName(StrEnum):
    """Values of --language."""

    auto = "auto"
    en = "en"
    zh = "zh"


def _show_version(asked: bool) -> None:
    if asked:
        print(f"{_PROGRAM} {version(_PROGRAM)}")
        raise typer.Exit


@app.callback(help=_SUMMARY, epilog=f"{_PROGRAM} run a.jsonl b.jsonl --eval test.jsonl")
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", callback=_show_version),
    ] = False,
) -> None:
    _prepare_stderr()


def _take_language(choice: LanguageName) -> LanguageName:
    # `auto` after an earlier choice (such as a command's default after the group's option) changes
    # nothing.
    if choice is not LanguageName.auto:
        session.language = "zh" if choice is LanguageName.zh else "en"
    return choice


def _take_quiet(asked: bool) -> bool:
    if asked:
        session.progress = "quiet"
    return asked


def _take_verbose(asked: bool) -> bool:
    if asked:
        session.progress = "verbose"
    return asked


def _shared_options(
    language: Annotated[
        LanguageName,
        typer.Option(
            help="Language of messages and help; auto follows LANG.",
            callback=_take_language,
            expose_value=False,
            rich_help_panel=MESSAGES,
        ),
    ] = LanguageName.auto,
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet",
            "-q",
            help="Show only warnings, failures and the result.",
            callback=_take_quiet,
            expose_value=False,
            rich_help_panel=MESSAGES,
        ),
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            "-v",
            help="Show every event, and the libraries' own messages.",
            callback=_take_verbose,
            expose_value=False,
            rich_help_panel=MESSAGES,
        ),
    ] = False,
) -> None:
    """The options of every command."""


def asked_language(arguments: Sequence[str]) -> Language:
    """The language chosen on the command line, read before parsing because --help needs it."""
    names = [argument.partition("=") for argument in arguments]
    values = [value for name, equals, value in names if name == "--language" and equals]
    values += [following for argument, following in pairwise(arguments) if argument == "--language"]
    known = [choice for choice in get_args(LanguageChoice) if choice in values]
    return chosen_language(known[0] if known else "auto")


def command_tree(language: Language) -> Any:
    """The program with all its commands, with help in the given language."""
    set_typers_words(language)
    tree: Any = typer.main.get_command(app)
    for command in (tree, *tree.commands.values()):
        command.params += _fresh_shared_options()
        show_metavars(command)
        help_in(language, command)
    return tree


def _fresh_shared_options() -> list[Any]:
    holder = typer.Typer(add_completion=False)
    holder.command()(_shared_options)
    return list(typer.main.get_command(holder).params)


def start_session(arguments: Sequence[str]) -> Any:
    """The program, ready to run with these arguments."""
    session.language, session.progress = asked_language(arguments), "auto"
    return command_tree(session.language)


def prepare_streams() -> None:
    """Make the standard streams usable, whatever this process was started with.

    A closed one would let the next file that is opened take its number, and messages go into that
    file. An encoding that lacks a character must not end the program: it is escaped.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # It takes the lowest free number, which is this one.
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 -- for good
            setattr(sys, name, nowhere)
        elif not _is_unicode(stream) and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _is_unicode(stream: Any) -> bool:
    return (stream.encoding or "").lower().replace("-", "").startswith("utf")


def print_json(value: Any) -> None:
    """Print JSON to standard output, indented."""
    print(json.dumps(value, ensure_ascii=not _is_unicode(sys.stdout), indent=2))


def print_lines(lines: Sequence[str], width: int) -> None:
    """Print sentences to standard output; on a terminal broken between words."""
    on_terminal = sys.stdout.isatty()
    for line in lines:
        print(wrapped(line, width) if on_terminal else line)


def print_problems(problems: tuple[str, ...], label: str = "error") -> None:
    """Print each problem on a line of its own, with its label in the session's language."""
    for problem in without_repeats(problems):
        print(f"{say(session.language, label)}{without_secrets(problem)}", file=sys.stderr)


def print_note(text: str) -> None:
    """Print a note for people; not with --quiet."""
    if session.progress != "quiet":
        print_problems((text,), "note")


def _prepare_stderr() -> None:
    """Show Loracle's own messages, and the hubs' progress bars if the output is a terminal."""
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("TQDM_DISABLE", "1")
    logger = logging.getLogger("loracle")
    logger.setLevel(logging.INFO)
    # On the root logger, it would repeat what the libraries' own handlers show.
    logger.handlers = [logging.StreamHandler()]
