"""Which choices of a row are right: told by a letter, a label, a text, a place or a flag.

"C", "(c)", "C. iron", "答案：C"       the letter
"iron"                                the choice that says so
2                                     the place, from 0 as MMLU has it, unless the choices
                                      themselves, or their columns, are labelled with numbers
{"text": "iron", "is_correct": true}  a flag on the choice itself
"AC", "A、C", ["A", "C"], "[0, 2]"     several
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from loracle.data.faults import Faults, Reason, show
from loracle.data.reading.row_content import AnswerPlace, RowValue, as_text, is_blank, keys_found

ANSWER_COLUMNS = (
    *("answer_idx", "answer_index", "answer_key", "answerKey", "correct_option", "correct_idx"),
    *("correct_index", "correct_choice", "correct_answer", "cop", "label", "gold", "target"),
    *("answer", "Answer", "answers", "correct", "Correct", "答案", "正确答案"),
)

LETTERED = re.compile(r"^\s*[(\[（]?\s*([A-Ja-j])\s*[)\]）.．:：、]\s*(.*?)\s*$", re.DOTALL)
_ANNOUNCED = re.compile(
    r"^(?:the\s+)?(?:correct\s+|right\s+)?(?:answer|option|choice|正确答案|答案|选项|应选|故选|选)"
    r"\s*(?:is|为|是)?\s*[:：]?\s*(.+)$",
    re.IGNORECASE,
)
_MARKS = re.compile(r"[\s()\[\]（）.．。:：、,，;；/|&+和与]+")
# What benchmarks write where the answer is kept secret.
_WITHHELD = frozenset({"-1", "?"})


class Choice(NamedTuple):
    """A choice: how the row names it, the letter that it is shown with, its text, and its place in
    the row's list, from 0. is_right: as a flag of its own says; None if it has none. is_named: the
    row itself has the label; else the choice is called by its place."""

    label: str
    letter: str
    text: str
    place: int
    is_right: bool | None = None
    is_named: bool = True


def right_letters(row: RowValue, choices: Sequence[Choice], faults: Faults) -> str | None:
    """The letters of the right choices, in order, joined: "B", or "BD" if there are two."""
    given = _given(row)
    read = {name: letters for name, value in given.items() if (letters := _read(value, choices))}
    flagged = "".join(sorted(choice.letter for choice in choices if choice.is_right))
    if flagged and (read or not given):
        read["the choices' own flags"] = flagged
    if not given and not flagged:
        faults.add(
            Reason.MISSING,
            f"no answer (keys found: {keys_found(row)}); add it, or name its column, "
            "columns: {answer: ...}",
        )
        return None
    if not read:
        name, value = next(iter(given.items()))
        faults.add(Reason.CHOICE, f"{name} is {show(value)}, {_why_none(value, choices)}")
        return None
    if len(set(read.values())) > 1:
        says = " and ".join(
            f"{name} {'say' if name.endswith('flags') else 'says'} {letters}"
            for name, letters in read.items()
        )
        faults.add(Reason.CHOICE, f"{says}; keep the one that is right")
        return None
    return next(iter(read.values()))


def answer_place(row: RowValue, choices: Sequence[Choice]) -> AnswerPlace | None:
    """The number that the row gives as its answer, if it is read as a place."""
    for value in _given(row).values():
        number = _whole(value)
        if number is None or any(choice.label == str(number) for choice in choices):
            continue
        if any(choice.text == str(number) for choice in choices):
            continue
        return AnswerPlace(number, 1 + max(choice.place for choice in choices))
    return None


def _given(row: RowValue) -> dict[str, object]:
    return {name: row[name] for name in ANSWER_COLUMNS if not is_blank(row.get(name))}


def _why_none(value: object, choices: Sequence[Choice]) -> str:
    """Why an answer is none of the choices, and what to do."""
    if str(value).strip() in _WITHHELD:
        return (
            "which stands for an answer that is not published; use a split that has answers, or "
            "leave the row out"
        )
    shown = ", ".join(f"{choice.letter}. {show(choice.text)}" for choice in choices[:4])
    advice = "write the letter, the choice's text, or its index counted from 0"
    return f"which matches none of the choices, or more than one ({shown}); {advice}"


def _whole(value: object) -> int | None:
    """The whole number that an answer is, also as a text of digits."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and value.strip().isdecimal() and len(value.strip()) < 3:
        return int(value)
    return value if isinstance(value, int) else None


def _read(value: object, choices: Sequence[Choice]) -> str | None:
    """The letters that an answer stands for; None where it stands for none, or for several."""
    if isinstance(value, dict) and "text" in value:
        value = value["text"]
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = _listed(value)
    if isinstance(value, list):
        each = [_read(item, choices) for item in value]
        letters = "".join(letter or "?" for letter in each)
        return None if not letters or "?" in letters else "".join(sorted(set(letters)))
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return _by_number(value, choices)
    value = as_text(value)
    return _by_text(value.strip(), choices) if isinstance(value, str) and value.strip() else None


def _listed(text: str) -> object:
    """The list that a text holds as JSON, else the text."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, list) else text


def _at(place: int, choices: Sequence[Choice]) -> str | None:
    return next((choice.letter for choice in choices if choice.place == place), None)


def _by_number(value: int, choices: Sequence[Choice]) -> str | None:
    """The choice labelled so, else the one at that place, else the one that says so."""
    labelled = [choice.letter for choice in choices if choice.label == str(value)]
    if labelled:
        return labelled[0]
    said = [choice.letter for choice in choices if choice.text == str(value)]
    return _at(value, choices) or (said[0] if len(said) == 1 else None)


def _by_text(text: str, choices: Sequence[Choice]) -> str | None:
    labels = {choice.label: choice.letter for choice in choices}
    letters = {choice.letter for choice in choices}
    plain = _plain(text)
    said = [choice.letter for choice in choices if _plain(choice.text) == plain]
    is_other = text in labels and bool(said) and said != [labels[text]]
    if text in labels and not (text.isdigit() and is_other):
        # "A" beside the choices B, A, C may be the first one or the second.
        return None if is_other and not choices[0].is_named else labels[text]
    if len(said) == 1 and not text.isdigit():
        return said[0]
    text = unicodedata.normalize("NFKC", text)
    if text.isdecimal():
        at = _at(int(text), choices) if len(text) < 3 else None
        # "2" beside the choices 1, 2, 3, 4 may be either.
        return said[0] if len(said) == 1 and at in (None, said[0]) else None if said else at
    announced = _ANNOUNCED.match(text)
    bare = _MARKS.sub("", announced[1] if announced else text)
    # "bad" is a word; letters are written large, unless it is one alone.
    is_letters = set(bare.upper()) <= letters and len(set(bare.upper())) == len(bare)
    if is_letters and (bare.isupper() or len(bare) == 1):
        return "".join(sorted(bare.upper()))
    if (match := LETTERED.match(text)) and match[1].upper() in letters:
        letter = match[1].upper()
        if any(c.letter == letter and _plain(c.text) == _plain(match[2]) for c in choices):
            return letter
    return None


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
