"""Whoever knows a behaviour from CHANGELOG finds its module with a few words of that line.

The words are looked up in docs/architecture.md: in the tree and in the table "to change X, open Y".
The lines that have most of them may name three modules at most, and one of these must define what
the behaviour is made of.
"""

from __future__ import annotations

import ast
import random
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
MAX_WORDS = 6
MAX_MODULES = 3
SMALL_WORDS = {"an", "and", "as", "at", "by", "for", "from", "in", "is", "it", "its", "no", "not"}
SMALL_WORDS |= {"of", "on", "or", "that", "the", "to", "what", "with"}


class Behaviour(NamedTuple):
    """line: how its line in CHANGELOG begins. words: a reader's search. symbol: what does it."""

    line: str
    words: str
    symbol: str


# random.Random(10).sample(lines_of_changelog(), 12), on the day of 0.1.0.
BEHAVIOURS = (
    Behaviour("`loracle decide` states a finished run's", "decision with its reasons", "reasons"),
    Behaviour("Help, messages, report and documentation", "the drop reason", "Reason"),
    Behaviour("The card of a check says what is wrong", "what a check says", "_first_faults"),
    Behaviour("`loracle check` tells in seconds", "training evaluation know", "leakage"),
    Behaviour("`rouge_l`, `bleu`, `chrf`, `numeric`", "own module function", "custom_metric"),
    Behaviour("`loracle init` writes a plan with a", "plan with comment", "plan_text"),
    Behaviour(
        "`answer_nll` and drafts follow the empty", "empty think block", "without_empty_block"
    ),
    Behaviour(
        "Tools and tool calls reach the model's", "the model's chat template", "_check_tools"
    ),
    Behaviour("`loracle inspect` shows a row as the", "row as the model sees", "inspect_row"),
    Behaviour("The load-time self-test compares", "self-test gradients logits", "run_self_test"),
    Behaviour("`choice` reads announced letters in", "letters", "choice"),
    Behaviour("`loracle serve` says of a run whose", "serve interrupted", "_RunView"),
    # Two that a later draw of ten did not find.
    Behaviour("A Parquet file whose damage makes Arrow", "damage aborts Arrow", "column_parts"),
    Behaviour("The report of many candidates with long", "long names fit", "short_names"),
)


def text_of(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


def lines_of_changelog() -> list[str]:
    found = re.findall(r"^- (.*?)(?=^- |^\S|^$|\Z)", text_of("CHANGELOG.md"), re.M | re.S)
    return [" ".join(line.split()) for line in found]


def words_of(text: str) -> set[str]:
    """In lower case, without the s of a plural and without small words."""
    found = set(re.findall(r"[a-z]{2,}", text.lower())) - SMALL_WORDS
    return {word.removesuffix("s") for word in found}


def described_places() -> list[tuple[set[str], tuple[str, ...]]]:
    """Every line of the architecture that says what is where: its words and its modules."""
    page = text_of("docs/architecture.md")
    found: list[tuple[set[str], tuple[str, ...]]] = []
    folders: list[str] = []
    [tree] = re.findall(r"^```\n(loracle/\n.*?)^```$", page, re.M | re.S)
    for indent, name, what in re.findall(r"^((?:  )*)([\w/]+(?:/|\.py))(?: +(.*))?$", tree, re.M):
        folders = folders[: len(indent) // 2]
        if name.endswith("/"):
            folders.append(name)
        else:
            place = "".join([*folders, name])
            found.append((words_of(f"{Path(name).stem} {what}"), (place,)))
    for what, named in re.findall(r"^\| (.*?) \| (`.*) \|$", page, re.M):
        modules = re.findall(r"`([\w/]+\.py)`", named)
        found.append((words_of(what), tuple(f"loracle/{module}" for module in modules)))
    return found


def modules_for(words: str) -> set[str]:
    """The modules on the lines that have most of the words."""
    places, asked = described_places(), words_of(words)
    most = max(len(asked & line) for line, _ in places)
    assert most > 0, f"no line of docs/architecture.md has any of: {words}"
    return {module for line, named in places if len(asked & line) == most for module in named}


def symbols_in(module: str) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse(text_of(module)))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }


@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=lambda behaviour: behaviour.symbol)
def test_a_behaviour_is_found_with_a_few_words_of_its_changelog_line(behaviour: Behaviour) -> None:
    [line] = [line for line in lines_of_changelog() if line.startswith(behaviour.line)]
    assert len(behaviour.words.split()) <= MAX_WORDS
    assert words_of(behaviour.words) <= words_of(line), "the reader has no other words"
    modules = modules_for(behaviour.words)
    assert len(modules) <= MAX_MODULES, modules
    assert any(behaviour.symbol in symbols_in(module) for module in modules), modules


def test_a_word_that_is_everywhere_finds_no_module() -> None:
    assert len(modules_for("run")) > MAX_MODULES


def test_the_search_tells_modules_apart() -> None:
    """Most behaviours are not found by another one's words."""
    pairs = [(a, b) for a in BEHAVIOURS for b in BEHAVIOURS if a is not b]
    wrong = [
        (a, b)
        for a, b in random.Random(0).sample(pairs, 30)
        if any(b.symbol in symbols_in(module) for module in modules_for(a.words))
    ]
    assert len(wrong) <= 2, wrong


@cache
def packages_of_the_tree() -> tuple[str, ...]:
    """The packages of loracle in the order of the tree, with the modules that stand alone."""
    page = text_of("docs/architecture.md")
    [tree] = re.findall(r"^```\nloracle/\n(.*?)^training/", page, re.M | re.S)
    return tuple(re.findall(r"^  (\w+)(?:/|\.py)", tree, re.M))


def imported_packages(path: Path) -> set[str]:
    """The packages of loracle that a module imports, anywhere in it."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    found = {name.split(".")[1] for name in names if name.startswith("loracle.")}
    return found & set(packages_of_the_tree())


def test_a_package_imports_only_from_packages_above_it_in_the_tree() -> None:
    order = packages_of_the_tree()
    wrong = set()
    for path in (REPOSITORY / "loracle").rglob("*.py"):
        own = path.relative_to(REPOSITORY / "loracle").parts[0].removesuffix(".py")
        if own in ("__init__", "__main__"):
            continue
        above = order[: order.index(own) + 1]
        wrong |= {f"{own} imports {name}" for name in imported_packages(path) if name not in above}
    assert wrong == set()
