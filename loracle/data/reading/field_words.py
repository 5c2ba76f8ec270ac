"""What is said of columns that are absent, that would be lost, or that cannot be learned from."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Sequence
from collections.abc import Set as AbstractSet

from loracle.data.faults import named, show
from loracle.data.reading.chat_rows import turns_of
from loracle.data.reading.formats import Format
from loracle.data.reading.meanings import Meaning
from loracle.data.reading.names import likely_meant
from loracle.data.reading.row_content import RowValue, is_blank, keys_found
from loracle.text import counted

_NUM_SHOWN = 12
_NUM_REPLIES = 4
_WHAT: dict[Meaning, str] = {
    "choices": "choices to choose from",
    "passage": "something that the question is about",
    "asked": "a part of what is asked",
    "system": "the system's turn",
    "history": "earlier turns",
    "media": "images, sound or video",
    "rejected": "a rejected reply",
}
# The forms in which a field for a meaning is read, and the field.
_FIELDS: dict[Meaning, dict[str, str]] = {
    "passage": {
        "question_answer": "context",
        "choice": "context",
        "alpaca": "input",
    },
    "asked": {"question_answer": "context", "choice": "context", "alpaca": "input"},
    "system": {
        "*": "system",
    },
    "history": {
        "alpaca": "history",
        "prompt_completion": "history",
        "question_answer": "history",
        "choice": "history",
    },
}
_REPLIES = {
    "alpaca": ("output", "response"),
    "prompt_completion": ("completion", "response", "output"),
}
_REPLY_OF = {
    "prompt": "completion",
    "query": "response",
    "instruction": "output",
    "question": "answer",
}


def absent(location: str, field: str, column: str, seen: Collection[str]) -> str:
    """A column that the user names, and no row has."""
    near = likely_meant(column, seen)
    names = ", ".join(show(name) for name in list(seen)[:_NUM_SHOWN])
    hint = f"did you mean {named(near)}?" if near else f"the columns are {names}"
    found = f"no row has a column {show(column)}, which was named for {named(field)}"
    return f"{location}: {found}; {hint}"


def lost(
    column: str, num_rows: int, meaning: Meaning, form: Format, row_keys: AbstractSet[str]
) -> str:
    """A column that tells of what is asked, and is not used."""
    rows = counted(num_rows, "row")
    text = f"column {named(column)} is not used in {rows}; its name suggests that it holds "
    return f"{text}{_WHAT[meaning]}. {_use(column, meaning, form, row_keys)}{_ignore(column)}"


def _use(column: str, meaning: Meaning, form: Format, row_keys: AbstractSet[str]) -> str:
    """How a column can be used, where the form has a place for it."""
    if "[]." in column or form.name == "squad":
        return "To leave it out: "
    if meaning == "choices" and (
        column.isdigit() or unicodedata.normalize("NFKC", column) != column
    ):
        return "For multiple choice, rename such columns to A, B, ... To leave it out: "
    if meaning == "choices" and form.name in _REPLIES:
        reply = next(name for name in _REPLIES[form.name] if name in (*row_keys, "output"))
        return f"For multiple choice: --format choice --column answer={reply}. To leave it out: "
    if meaning == "choices" and form.name in ("question_answer", "choice"):
        if form.name == "question_answer":
            return (
                "For multiple choice: --format choice, with --column options=NAME if the list of "
                "choices has another name. To leave it out: "
            )
        return "To leave it out: "
    if form.name == "prompt_completion" and meaning in ("passage", "asked"):
        prompt = "prompt" if "prompt" in row_keys else "query"
        reply = "completion" if "completion" in row_keys else "response"
        fields = {"question": prompt, "answer": reply, "context": column}
        if meaning == "asked":
            fields = {"instruction": prompt, "input": column, "output": reply}
        return f"To use it: {_columns(fields)}. To leave it out: "
    known = _FIELDS.get(meaning, {})
    field = known.get(form.name, known.get("*"))
    if field is not None and field not in row_keys and field != column:
        return f"To use it: {_columns({field: column})}. To leave it out: "
    return "To use it, write it into the question. To leave it out: "


def _columns(fields: dict[str, str]) -> str:
    shown = {field: named(column) for field, column in fields.items()}
    pairs = ", ".join(f"{field}: {column}" for field, column in shown.items())
    options = " ".join(f"--column {_quoted(f'{f}={column}')}" for f, column in shown.items())
    return f"{options} (in a plan: columns: {{{pairs}}})"


def _ignore(column: str) -> str:
    column = named(column)
    return f"--ignore-column {_quoted(column)} (in a plan: ignore_columns: [{column}])"


def _quoted(text: str) -> str:
    return f'"{text}"' if set(text) & set(" []()|&;<>*?$") else text


def media(column: str) -> str:
    """A row with a column of media."""
    text = f"{named(column)} holds images, sound or video, and only text can be used for training; "
    return f"{text}leave the row out, or, to train on its text only: {_ignore(column)}"


def _ends_asking(row: RowValue) -> bool:
    """Whether a row has turns of which the last is the user's."""
    turns = turns_of(row)
    last = turns[-1] if isinstance(turns, list) and turns else None
    return isinstance(last, dict) and last.get("role", last.get("from")) in ("user", "human")


def preference(row: RowValue, rejected: str, chosen: Sequence[str], form: Format | None) -> str:
    """A row of two replies, one of which is not wanted."""
    names = " and ".join(map(named, (*chosen[:_NUM_REPLIES], rejected)))
    text = f"preference data ({names}), which cannot be used as it is; "
    if chosen and form is not None and _ends_asking(row):
        return f"{text}append the chosen reply to the turns, which end with what it answers"
    if form is not None or not chosen:
        shown = [named(name) for name in (*chosen[:_NUM_REPLIES], rejected)]
        options = " ".join(f"--ignore-column {_quoted(name)}" for name in shown)
        return (
            f"{text}to train on the other reply: {options} (ignore_columns: [{', '.join(shown)}])"
        )
    asked = next((key for key in _REPLY_OF if not is_blank(row.get(key))), None)
    value = row[chosen[0]]
    if isinstance(value, list) and len(value) > 1:
        field = "messages"
    elif asked is not None:
        field = _REPLY_OF[asked].replace("response", "completion")
    elif isinstance(value, list):
        field = "messages"
    else:
        return f"{text}write the chosen reply after what it answers (keys found: {keys_found(row)})"
    return f"{text}to train on the chosen reply only: {_columns({field: chosen[0]})}"
