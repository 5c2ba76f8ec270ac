"""Forms of rows, how they are told apart, and how a row's value becomes messages and answers.

    messages            {"messages": [{"role": "user", "content": ...}, ...]}
    sharegpt            {"conversations": [{"from": "human", "value": ...}, ...]}
    alpaca              {"instruction": ..., "input": ..., "output": ...}
    prompt_completion   {"prompt": ..., "completion": ...}
    question_answer     {"context": ..., "question": ..., "answers": [...]}
    squad               {"paragraphs": [{"context": ..., "qas": [...]}]}

The keys that have a value say which form a row has. A row that fits two forms, and a file that
holds two, are refused: only the user can know what was meant. A further form is one more entry of
FORMATS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from loracle.data.faults import Faults, Reason, show
from loracle.data.reading.chat_rows import TURN_COLUMNS, parse_messages, parse_sharegpt, turns_of
from loracle.data.reading.options import ReadOptions
from loracle.data.reading.question_rows import parse_alpaca, parse_prompt_completion, parse_question
from loracle.data.reading.row_content import RowContent, RowValue, filled, keys_found
from loracle.data.reading.rows import Row
from loracle.data.reading.squad_nesting import NESTING_KEYS, flat_rows
from loracle.plan import FormatName, nearest


def _one_row(row: Row) -> Iterator[Row]:
    yield row


class Format(NamedTuple):
    """A form of rows.

    fields: its keys, each group of which needs one with a value.
    others: keys that it takes where they are there, and that another form needs.
    parse: takes what the row holds, and adds what is wrong with it to the faults that it is given;
        the content counts only where it added nothing.
    flat: a row of the file as rows of one question each.
    """

    name: FormatName
    example: str
    fields: tuple[tuple[str, ...], ...]
    parse: Callable[[RowValue, Faults, ReadOptions], RowContent]
    flat: Callable[[Row], Iterator[Row]] = _one_row
    others: tuple[str, ...] = ()

    def matched(self, keys: AbstractSet[str]) -> AbstractSet[str]:
        """The keys by which a row with `keys` has this form; none where it has not."""
        groups = [keys & set(group) for group in self.fields]
        return set().union(*groups) if all(groups) else set()


_OF_TURNS = ("question", "answers")

FORMATS: tuple[Format, ...] = (
    Format(
        "messages",
        '{"messages": [{"role": ..., "content": ...}, ...]}',
        (TURN_COLUMNS,),
        parse_messages,
        others=_OF_TURNS,
    ),
    Format(
        "sharegpt",
        '{"conversations": [{"from": ..., "value": ...}, ...]}',
        (TURN_COLUMNS,),
        parse_sharegpt,
        others=_OF_TURNS,
    ),
    Format(
        "alpaca",
        '{"instruction": ..., "input": ..., "output": ...}',
        (("instruction",), ("output",)),
        parse_alpaca,
    ),
    Format(
        "prompt_completion",
        '{"prompt": ..., "completion": ...}',
        (("prompt",), ("completion",)),
        parse_prompt_completion,
    ),
    Format(
        "question_answer",
        '{"question": ..., "answer": ...}',
        (("question",), ("answer", "answers")),
        parse_question,
    ),
    Format(
        "squad",
        '{"paragraphs": [{"context": ..., "qas": [...]}]}',
        (tuple(sorted(NESTING_KEYS)),),
        parse_question,
        flat_rows,
    ),
)


def format_named(name: FormatName) -> Format:
    return next(known for known in FORMATS if known.name == name)


def formats_of(row: RowValue) -> list[Format]:
    """The forms that a row has every key of, without those whose keys another one takes too."""
    keys = set(filled(row))
    other = "messages" if _has_sharegpt_turns(row) else "sharegpt"
    matching = [known for known in FORMATS if known.matched(keys) and known.name != other]
    taken = {key for known in matching for key in known.others}
    return [known for known in matching if not known.matched(keys) <= taken]


def _has_sharegpt_turns(row: RowValue) -> bool:
    """Whether the turns are {"from": ..., "value": ...}, by the first of them."""
    turns = turns_of(row)
    if isinstance(turns, str):
        # A cell of a table: JSON, which the parser reads.
        return '"from"' in turns and '"role"' not in turns
    first = turns[0] if isinstance(turns, list) and turns else None
    return isinstance(first, dict) and "from" in first and "role" not in first


def no_format(row: RowValue, faults: Faults, options: ReadOptions) -> None:
    """Say why a row has no known form: what is missing of the one it is nearest to."""
    keys = set(filled(row))
    partial = [
        known for known in FORMATS if any(keys.intersection(group) for group in known.fields)
    ]
    if partial:
        # It has a key of this form: the form's own parser says what is missing.
        partial[0].parse(row, faults, options)
        if faults:
            return
    names = [key for known in FORMATS for group in known.fields for key in group]
    near = {key: nearest(key, names) for key in list(row)[:8]}
    hints = [f"did you mean {name!r} by {show(key)}?" for key, name in near.items() if name]
    advice = hints[0] if hints else f"expected {expected_forms()}, or name the columns"
    faults.add(Reason.MISSING, f"no known format (keys found: {keys_found(row)}); {advice}")


def expected_forms() -> str:
    """What a row may look like, as messages say it."""
    return "a row like " + " or ".join(known.example for known in FORMATS)


def ambiguous(found: list[Format]) -> str:
    """What to do where a row has the keys of several forms."""
    names = " and ".join(known.name for known in found)
    return f"the row has the keys of {names}; name the one that is meant, format: {found[0].name}"


def renamed(row: RowValue, columns: Mapping[str, str]) -> RowValue:
    """The row with the fields of its form in place of the columns that hold them."""
    if not columns:
        return row
    replaced = {*columns, *columns.values()}
    kept = {key: value for key, value in row.items() if key not in replaced}
    named = {field: row[column] for field, column in columns.items() if column in row}
    return {**kept, **named}
