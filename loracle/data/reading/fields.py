"""Every column of a dataset accounted for: what it is used as, or that it is not used.

    asked: question · reply: answer · not used: explanation (3 rows)

A column that is not used, and whose name says that it tells of what is asked (see meanings.py), is
an error, unless its text stands in what is asked anyway, or the user says that it is meant.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from loracle.data.faults import Faults, Reason, listed, named
from loracle.data.reading import field_words
from loracle.data.reading.answer_places import AnswerPlaces
from loracle.data.reading.chat_rows import (
    MESSAGE_KEYS,
    PAIR_KEYS,
    REASONING_KEYS,
    TURN_COLUMNS,
)
from loracle.data.reading.choice_answers import ANSWER_COLUMNS
from loracle.data.reading.choice_rows import CHOICE_COLUMNS
from loracle.data.reading.formats import Format
from loracle.data.reading.marks import KTO_MARKS, READ_MARKS, ROW_MARKS, is_mark
from loracle.data.reading.meanings import Meaning, is_chosen, meaning_of
from loracle.data.reading.options import ReadOptions
from loracle.data.reading.passages import PASSAGE_FIELDS
from loracle.data.reading.row_content import RowContent, RowValue, as_text, is_blank
from loracle.data.reading.squad_nesting import NESTING_KEYS
from loracle.text import counted

_MAX_SHAPES = 4096
_NUM_SHOWN_COLUMNS = 20
_NUM_SHOWN_LOST = 12
_MAX_LABEL_WORDS, _MAX_LABEL_BYTES = 2, 40
_NOT_USED, _IGNORED = "", "ignored"
_ROLES: Mapping[str, tuple[str, ...]] = {
    "turns": TURN_COLUMNS,
    "asked": ("question", "questions", "instruction", "input", "prompt"),
    "choices": tuple(sorted(CHOICE_COLUMNS)),
    "passage": PASSAGE_FIELDS,
    "reply": ("answer", "output", "completion"),
    "references": ("answers",),
    "right choice": ANSWER_COLUMNS,
    "system turn": ("system",),
    "earlier turns": ("history",),
    "tools": ("tools", "functions"),
    "questions": tuple(sorted(NESTING_KEYS)),
    "mark": ("is_impossible", *sorted(ROW_MARKS | KTO_MARKS)),
    "id": ("id",),
    "group": ("group",),
}
_ROLE_OF: dict[str, str] = {}
for _role, _names in _ROLES.items():
    for _name in _names:
        _ROLE_OF.setdefault(_name, _role)
_CHATS = ("messages", "sharegpt")
# Read where they fit what the turns hold, and else not at all.
_SIDE_FIELDS = ("context", "question", "system")


class FieldUse(NamedTuple):
    """A column. used_as: what it is used as; "" where it is not used, "ignored" where the user
    says so. num_rows: the rows that have it, with a value where it is not used."""

    column: str
    used_as: str
    num_rows: int


def columns_line(uses: Sequence[FieldUse]) -> str:
    """What the columns are used as, in a line."""
    by_role: dict[str, list[str]] = {}
    for use in uses:
        rows = f" ({counted(use.num_rows, 'row')})" if use.used_as in (_NOT_USED, _IGNORED) else ""
        by_role.setdefault(use.used_as or "not used", []).append(f"{named(use.column)}{rows}")
    return " · ".join(
        f"{role}: {listed(columns, _NUM_SHOWN_COLUMNS)}" for role, columns in by_role.items()
    )


class _Shape:
    """What rows with the same keys, in one form, use of them. num_rows: how many there were."""

    def __init__(
        self,
        row: RowValue,
        form: Format | None,
        found: Mapping[str, str],
        columns: Mapping[str, str],
        ignored: frozenset[str],
    ) -> None:
        fields = {column: key for key, column in found.items()}
        self.used: list[tuple[str, str]] = []
        self.unused: list[tuple[str, Meaning | None]] = []
        self.chosen = [column for column in row if is_chosen(column)]
        self.num_rows = 0
        for column in row:
            key = fields.get(column, column)
            is_read = form is not None and key in form.reads and column not in found
            if is_read or column in ROW_MARKS:
                self.used.append((columns.get(column, column), _ROLE_OF.get(key, key)))
            elif column not in ignored:
                self.unused.append((column, meaning_of(column)))
        self.is_chat = form is not None and form.name in _CHATS
        self.side_fields = [key for key in _SIDE_FIELDS if self.is_chat and key in row]
        self.refused = [(c, m) for c, m in self.unused if m in ("media", "rejected")]


@dataclass(frozen=True)
class _Lost:
    """Where a column is first lost, and what is asked there."""

    where: str
    meaning: Meaning
    form: Format
    row_keys: frozenset[str]


class FieldAccount:
    """Grows with the rows of a reading."""

    def __init__(self, options: ReadOptions) -> None:
        self._options = options
        self._ignored = frozenset(options.ignore_columns)
        # "messages[].mood": of every turn.
        self._ignored_in_turns: dict[str, set[str]] = {}
        for column, _, key in (name.partition("[].") for name in options.ignore_columns):
            if key:
                ignored = REASONING_KEYS if key in REASONING_KEYS else (key,)
                self._ignored_in_turns.setdefault(column, set()).update(ignored)
        self._displaced = frozenset(options.columns) - set(options.columns.values())
        self._chosen_is_named = any(map(is_chosen, options.columns.values()))
        self._shapes: dict[object, _Shape] = {}
        self._unused: Counter[tuple[str, str]] = Counter()
        self._used: Counter[tuple[str, str]] = Counter()
        self._seen: dict[str, None] = {}
        self._lost: dict[str, _Lost] = {}
        self._num_lost: Counter[str] = Counter()
        self.places = AnswerPlaces()
        keys = options.turn_keys
        self._turn_keys = {
            "messages": MESSAGE_KEYS | PAIR_KEYS,
            "sharegpt": READ_MARKS | {keys.role, keys.content},
        }

    def kept(self, row: RowValue) -> RowValue:
        """The row without the columns that the user says to ignore."""
        if not self._ignored and not self._options.columns:
            return row
        if len(self._seen) < _MAX_SHAPES:
            self._seen.update(dict.fromkeys(row))
        for column in self._displaced & row.keys():
            self._unused[column, _NOT_USED] += not is_blank(row[column])
        ignored = self._ignored & row.keys()
        for column in ignored:
            self._unused[column, _IGNORED] += not is_blank(row[column])
        for column in self._ignored_in_turns.keys() & row.keys():
            row = {**row, column: self._kept_turns(column, row[column])}
        return {key: row[key] for key in row if key not in ignored} if ignored else row

    def _kept_turns(self, column: str, turns: object) -> object:
        """Turns without the keys that the user says to ignore."""
        keys = self._ignored_in_turns[column]
        if not isinstance(turns, list):
            return turns
        for key in keys:
            given = [
                turn for turn in turns if isinstance(turn, dict) and not is_blank(turn.get(key))
            ]
            self._unused[f"{column}[].{key}", _IGNORED] += len(given)
        return [
            {key: turn[key] for key in turn if key not in keys} if isinstance(turn, dict) else turn
            for turn in turns
        ]

    def check(
        self, row: RowValue, form: Format | None, found: Mapping[str, str], faults: Faults
    ) -> None:
        """Add a fault where a row cannot be learned from: it has media, or two replies."""
        shape = self._shape(row, form, found)
        for column, meaning in shape.refused:
            if not is_blank(row[column]) and meaning == "media":
                faults.add(Reason.MEDIA, field_words.media(column))
            elif not is_blank(row[column]) and not self._chosen_is_named:
                chosen = [name for name in shape.chosen if not is_blank(row[name])]
                text = field_words.preference(row, column, chosen, form)
                faults.add(Reason.PREFERENCE, text)
        if shape.is_chat:
            for name, value in self._turn_fields(row, form):
                if meaning_of(name) == "media" and not is_blank(value):
                    faults.add(Reason.MEDIA, field_words.media(name))

    def add(
        self, row: RowValue, form: Format, found: Mapping[str, str], content: RowContent, where: str
    ) -> None:
        """Count what a usable row uses and what not.

        row: under the form's names but for its synonyms; found: those, and their columns.
        """
        shape = self._shape(row, form, found)
        shape.num_rows += 1
        columns = self._options.columns
        for column, meaning in shape.unused:
            value = row[column]
            if is_blank(value):
                continue
            if is_mark(column, value):
                self._used[column, _ROLE_OF["loss_mask"]] += 1
                continue
            name = columns.get(column, column)
            self._unused[name, _NOT_USED] += 1
            if meaning is not None:
                self._lose(name, value, meaning, form, row, content, where)
        for column in shape.side_fields:
            if not is_blank(row[column]) and not _is_taken(column, row, content):
                # A question beside the turns is a record of what they ask.
                is_label = column == "context" and not _says_much(row[column])
                is_record = column == "question" or is_label
                meaning = None if is_record else meaning_of(column)
                self._unused[column, _NOT_USED] += 1
                if meaning is not None:
                    self._lose(column, row[column], meaning, form, row, content, where)
        if shape.is_chat:
            for name, value in self._turn_fields(row, form):
                if not is_blank(value):
                    self._unused[name, _NOT_USED] += 1
                    if (meaning := meaning_of(name)) and meaning not in ("asked", "history"):
                        self._lose(name, value, meaning, form, row, content, where)

    def take(self, later: FieldAccount) -> None:
        """Count what another account counted, of the rows that follow."""
        for key, shape in later._shapes.items():
            known = self._shapes.setdefault(key, shape)
            if known is not shape:
                known.num_rows += shape.num_rows
        for counts, more in ((self._unused, later._unused), (self._used, later._used)):
            for name, num in more.items():
                counts[name] += num
        if len(self._seen) < _MAX_SHAPES:
            self._seen.update(later._seen)
        for column, lost in later._lost.items():
            self._lost.setdefault(column, lost)
        self._num_lost.update(later._num_lost)
        self.places.take(later.places)

    @property
    def has_many_shapes(self) -> bool:
        """Whether the sets of keys are so many that the account may have forgotten some."""
        return len(self._shapes) >= _MAX_SHAPES or len(self._seen) >= _MAX_SHAPES

    @property
    def uses(self) -> tuple[FieldUse, ...]:
        """Every column seen: the used ones in the order of their roles, then the others."""
        used = Counter(self._used)
        for shape in self._shapes.values():
            for column, role in shape.used:
                used[column, role] += shape.num_rows
        order = list(_ROLES)
        in_order = sorted(
            (FieldUse(column, role, num) for (column, role), num in used.items() if num),
            key=lambda use: order.index(use.used_as) if use.used_as in order else len(order),
        )
        others = [FieldUse(column, role, num) for (column, role), num in self._unused.items()]
        return (*in_order, *(use for use in others if use.num_rows))

    def problems(self, location: str, *, is_whole: bool) -> list[str]:
        """What the user must decide before the rows can be used, in words.

        is_whole: all rows were read, so that a column not seen is not there.
        """
        absent = [
            field_words.absent(location, key, column, self._seen)
            for key, column in self._options.columns.items()
            if self._seen and column not in self._seen
        ]
        if not is_whole:
            absent = [text for text in absent if "did you mean" in text]
        lost = [
            f"{lost.where}: "
            + field_words.lost(
                column, self._num_lost[column], lost.meaning, lost.form, lost.row_keys
            )
            for column, lost in islice(self._lost.items(), _NUM_SHOWN_LOST)
        ]
        if len(self._lost) > _NUM_SHOWN_LOST:
            more = list(self._lost)[_NUM_SHOWN_LOST:]
            lost.append(
                f"{location}: so are {len(more):,} more columns: {listed(map(named, more))}"
            )
        return [*absent, *lost, *(self.places.problems if is_whole else ())]

    def _shape(self, row: RowValue, form: Format | None, found: Mapping[str, str]) -> _Shape:
        key = (tuple(row), None if form is None else form.name, tuple(found.items()))
        shape = self._shapes.get(key)
        if shape is None:
            shape = _Shape(row, form, found, self._options.columns, self._ignored)
            if len(self._shapes) >= _MAX_SHAPES:
                self._forget_shapes()
            self._shapes[key] = shape
        return shape

    def _forget_shapes(self) -> None:
        """Keep the counts alone, so that memory is bounded however many sets of keys there are."""
        for shape in self._shapes.values():
            for column, role in shape.used:
                self._used[column, role] += shape.num_rows
        self._shapes.clear()

    def _turn_fields(self, row: RowValue, form: Format | None) -> Iterator[tuple[str, object]]:
        """What the turns have under keys that are not read."""
        assert form is not None, "a form of turns"
        known = self._turn_keys[form.name]
        column = next((name for name in TURN_COLUMNS if row.get(name) is not None), None)
        turns = row[column] if column is not None else None
        for turn in turns if isinstance(turns, list) else ():
            if isinstance(turn, dict) and not turn.keys() <= known:
                for key in turn.keys() - known:
                    name = f"{column}[].{key}"
                    if key not in self._ignored and name not in self._ignored:
                        yield name, turn[key]

    def _lose(
        self,
        column: str,
        value: object,
        meaning: Meaning,
        form: Format,
        row: RowValue,
        content: RowContent,
        where: str,
    ) -> None:
        if meaning in ("media", "rejected"):
            # Refused row by row, or not wanted beside the chosen one.
            return
        if meaning == "asked" and form.name in _CHATS:
            return
        if _is_told(value, meaning, content):
            return
        self._num_lost[column] += 1
        if column not in self._lost:
            keys = frozenset(key for key in row if not is_blank(row[key]))
            self._lost[column] = _Lost(where, meaning, form, keys)


def _is_taken(column: str, row: RowValue, content: RowContent) -> bool:
    """Whether what stands beside the turns is part of the content."""
    if column == "system":
        first = content.messages[0] if content.messages else None
        return first is not None and first.role == "system" and first.content == row[column]
    return (content.context if column == "context" else content.question) is not None


def _says_much(value: object) -> bool:
    """Whether a value is more than a label: "math" beside the turns is no passage."""
    if not isinstance(value, str):
        return True
    return len(value.split()) > _MAX_LABEL_WORDS or len(value.encode()) > _MAX_LABEL_BYTES


def _is_told(value: object, meaning: Meaning, content: RowContent) -> bool:
    """Whether what is asked has the value's texts in it anyway, or the value is a copy of it."""
    if isinstance(value, bool | int | float):
        # A choice may be a number; a passage is none.
        if meaning != "choices":
            return True
        value = str(as_text(value))
    replies = [i for i, message in enumerate(content.messages) if message.role == "assistant"]
    asked = [message.content for message in content.messages[: replies[-1]]]
    whole = "\n".join(asked)
    texts = list(_texts(value, 0))
    if all(text in whole for text in texts):
        return True
    return meaning == "asked" and isinstance(value, str) and asked[-1].strip() in value


def _texts(value: object, depth: int) -> Iterator[str]:
    if isinstance(value, dict | list) and depth < 16:
        parts: Sequence[object] = list(value.values()) if isinstance(value, dict) else value
        for part in parts:
            yield from _texts(part, depth + 1)
    elif isinstance(value, str):
        yield value.strip()
