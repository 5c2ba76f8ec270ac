"""Forms of rows, how they are told apart, and how a row's value becomes messages and answers.

    messages            {"messages": [{"role": "user", "content": ...}, ...]}
    sharegpt            {"conversations": [{"from": "human", "value": ...}, ...]}
    alpaca              {"instruction": ..., "input": ..., "output": ...}
    prompt_completion   {"prompt": ..., "completion": ...}
    question_answer     {"context": ..., "question": ..., "answers": [...]}
    choice              {"question": ..., "options": [...], "answer": "B"}
    squad               {"paragraphs": [{"context": ..., "qas": [...]}]}

The keys that have a value say which form a row has. A row that fits two forms, and a file that
holds two, are refused: only the user can know what was meant. A further form is one more entry of
FORMATS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from types import MappingProxyType

from loracle.data.faults import Faults, Reason, show
from loracle.data.reading.chat_rows import TURN_COLUMNS, parse_messages, parse_sharegpt, turns_of
from loracle.data.reading.choice_answers import ANSWER_COLUMNS
from loracle.data.reading.choice_rows import (
    CHOICE_COLUMNS,
    LIST_COLUMNS,
    SECOND_COLUMNS,
    flat_questions,
    parse_choice,
)
from loracle.data.reading.names import likely_meant
from loracle.data.reading.options import ReadOptions
from loracle.data.reading.other_shapes import other_shape
from loracle.data.reading.passages import PASSAGE_FIELDS
from loracle.data.reading.question_rows import parse_alpaca, parse_prompt_completion, parse_question
from loracle.data.reading.row_content import RowContent, RowValue, filled, is_blank, keys_found
from loracle.data.reading.rows import Row
from loracle.data.reading.squad_nesting import NESTING_KEYS, flat_rows
from loracle.data.reading.tool_calls import TOOL_KEYS
from loracle.plan import FormatName


def _one_row(row: Row) -> Iterator[Row]:
    yield row


_ALWAYS = frozenset({"id", "group", "system", *TOOL_KEYS})


_NUM_KNOWN_KEYS = 1024


@dataclass(frozen=True, eq=False)
class Format:
    """A form of rows.

    fields: its keys, each group of which needs one with a value.
    more: further keys that it reads.
    synonyms: names by which a field is known too, where the row does not have the field itself.
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
    more: tuple[str, ...] = ()
    synonyms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    others: tuple[str, ...] = ()

    def as_plain(self) -> tuple[FormatName]:
        """In another process it is the form of this name."""
        return (self.name,)

    @classmethod
    def of_plain(cls, name: FormatName) -> Format:
        """The form of this name."""
        return format_named(name)

    @cached_property
    def reads(self) -> frozenset[str]:
        """Every key that is read of a row of this form, synonyms aside."""
        return frozenset({*_ALWAYS, *self.more, *self.others, *(k for g in self.fields for k in g)})

    @cached_property
    def _names(self) -> Mapping[str, tuple[str, ...]]:
        """Every field with the further names that it is known by, the spreadsheet's among them."""
        fields = dict.fromkeys((*(key for group in self.fields for key in group), *self.more))
        names = {key: (*self.synonyms.get(key, ()), key.capitalize()) for key in fields}
        return {
            key: tuple(name for name in known if name not in self.reads)
            for key, known in names.items()
            if key.islower() and key.isascii()
        }

    @cached_property
    def _groups(self) -> tuple[frozenset[str], ...]:
        known = self._names
        return tuple(
            frozenset({*group, *(name for key in group for name in known.get(key, ()))})
            for group in self.fields
        )

    @lru_cache(_NUM_KNOWN_KEYS)  # noqa: B019
    def _present(self, columns: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
        """The fields that columns with these names hold under other names, the likeliest first."""
        return tuple(
            (key, name) for key, names in self._names.items() for name in names if name in columns
        )

    def matched(self, keys: AbstractSet[str]) -> AbstractSet[str]:
        """The keys by which a row with `keys` has this form; none where it has not."""
        groups = [keys & group for group in self._groups]
        return set().union(*groups) if all(groups) else set()

    def num_matched(self, keys: AbstractSet[str]) -> int:
        """How many groups a row with `keys` has a key of."""
        return sum(not group.isdisjoint(keys) for group in self._groups)

    def named(self, row: RowValue) -> tuple[RowValue, Mapping[str, str]]:
        """The row with its synonyms under the form's own keys, and those keys' columns."""
        found: dict[str, str] = {}
        for key, name in self._present(tuple(row)):
            if key not in found and is_blank(row.get(key)) and row[name] is not None:
                found[key] = name
        if not found:
            return row, _NOTHING_RENAMED
        columns = set(found.values())
        kept = {key: value for key, value in row.items() if key not in columns and key not in found}
        return {**kept, **{key: row[name] for key, name in found.items()}}, found


_NOTHING_RENAMED: Mapping[str, str] = MappingProxyType({})
_OF_TURNS = ("question", "answers")

FORMATS: tuple[Format, ...] = (
    Format(
        "messages",
        '{"messages": [{"role": ..., "content": ...}, ...]}',
        (TURN_COLUMNS,),
        parse_messages,
        more=("context",),
        others=_OF_TURNS,
    ),
    Format(
        "sharegpt",
        '{"conversations": [{"from": ..., "value": ...}, ...]}',
        (TURN_COLUMNS,),
        parse_sharegpt,
        more=("context",),
        others=_OF_TURNS,
    ),
    Format(
        "alpaca",
        '{"instruction": ..., "input": ..., "output": ...}',
        (("instruction",), ("output",)),
        parse_alpaca,
        more=("input", "history", "answers"),
        # Dolly's names.
        synonyms={
            "instruction": ("指令",),
            "output": ("response", "输出"),
            "input": ("context", "输入"),
        },
    ),
    Format(
        "prompt_completion",
        '{"prompt": ..., "completion": ...}',
        (("prompt",), ("completion",)),
        parse_prompt_completion,
        more=("history", "answers"),
        # ms-swift's names.
        synonyms={"prompt": ("query",), "completion": ("response",)},
    ),
    Format(
        "question_answer",
        '{"question": ..., "answer": ...}',
        (("question",), ("answer", "answers")),
        parse_question,
        more=(*PASSAGE_FIELDS, "history", "is_impossible"),
        synonyms={
            "question": ("问题", "题目", "提问"),
            "answer": ("答案", "回答", "标准答案"),
        },
    ),
    Format(
        "choice",
        '{"question": ..., "options": [...], "answer": "B"}',
        (("question", "questions"), (*LIST_COLUMNS, *SECOND_COLUMNS), ANSWER_COLUMNS),
        parse_choice,
        flat_questions,
        more=(*PASSAGE_FIELDS, "history", *CHOICE_COLUMNS),
        synonyms={
            "question": (
                *("question_stem", "stem", "query", "sentence", "ctx", "goal", "problem"),
                *("prompt", "instruction", "题目", "问题", "题干"),
            ),
            "context": ("article", "passage", "Passage", "背景", "材料", "文章"),
        },
    ),
    Format(
        "squad",
        '{"paragraphs": [{"context": ..., "qas": [...]}]}',
        (tuple(sorted(NESTING_KEYS)),),
        parse_question,
        flat_rows,
        more=("context", "question", "answer", "answers", "history", "is_impossible"),
    ),
)


def format_named(name: FormatName) -> Format:
    return next(known for known in FORMATS if known.name == name)


def formats_of(row: RowValue) -> Sequence[Format]:
    """The forms that a row has every key of, without those whose keys another one takes too."""
    matching = _matching(tuple(filled(row)))
    if len(matching) < 2:
        return matching
    other = "messages" if _has_sharegpt_turns(row) else "sharegpt"
    return [known for known in matching if known.name != other]


@lru_cache(_NUM_KNOWN_KEYS)
def _matching(names: tuple[str, ...]) -> tuple[Format, ...]:
    """The forms that a row with these keys may have; of turns both, which only a turn tells."""
    keys = set(names)
    matching = [known for known in FORMATS if known.matched(keys)]
    if any(known.name == "choice" for known in matching):
        # Its rows have all that a question and its answer need, and more that is asked.
        matching = [known for known in matching if known.name != "question_answer"]
    taken = {key for known in matching for key in known.others}
    return tuple(known for known in matching if not known.matched(keys) <= taken)


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
    if shape := other_shape(row):
        faults.add(Reason.MISSING, f"no known format (keys found: {keys_found(row)}); {shape}")
        return
    nearest_form = max(FORMATS, key=lambda known: _nearness(known, keys))
    if _nearness(nearest_form, keys) > 0:
        # It has a key of this form: the form's own parser says what is missing.
        nearest_form.parse(nearest_form.named(row)[0], faults, options)
        if not faults:
            text = f"format not certain (keys found: {keys_found(row)}); name it, "
            faults.add(Reason.MISSING, f"{text}format: {nearest_form.name}")
        return
    others = [known for known in FORMATS if known.name != "choice"]
    names = [
        "options",
        "choices",
        *(key for known in others for group in known.fields for key in group),
    ]
    near = {key: likely_meant(key, names) for key in list(row)[:8]}
    hints = [
        f"did you mean {name!r} by {show(key)}?"
        for key, name in near.items()
        if name not in (None, key)
    ]
    advice = hints[0] if hints else f"expected {expected_forms()}, or name the columns"
    faults.add(Reason.MISSING, f"no known format (keys found: {keys_found(row)}); {advice}")


def _nearness(known: Format, keys: AbstractSet[str]) -> float:
    """How many of a form's groups have a key, those by a synonym for a little less."""
    num_own = sum(not keys.isdisjoint(group) for group in known.fields)
    if known.name == "choice" and keys.isdisjoint(known.fields[1]):
        # Its other keys stand for much else.
        return 0
    return known.num_matched(keys) + num_own / 10


def expected_forms() -> str:
    """What a row may look like, as messages say it."""
    return "a row like " + " or ".join(known.example for known in FORMATS)


def ambiguous(found: Sequence[Format]) -> str:
    """What to do where a row has the keys of several forms."""
    names = " and ".join(known.name for known in found)
    return f"the row has the keys of {names}; name the one to use, format: {found[0].name}"


# Columns of objects as pandas flattens them.
_FLATTENED = ("choices", "options", "answers", "answer", "question")


def _nested(row: RowValue) -> RowValue:
    """`choices.text` and `choices.label` as the object that they were."""
    found: dict[str, dict[str, object]] = {}
    for key, value in row.items():
        column, _, name = key.partition(".")
        if column in _FLATTENED and name in ("text", "label", "answer_start", "stem"):
            found.setdefault(column, {})[name] = value
    objects = {column: value for column, value in found.items() if column not in row}
    taken = {f"{column}.{name}" for column, value in objects.items() for name in value}
    return {**{key: row[key] for key in row if key not in taken}, **objects} if objects else row


def renamed(row: RowValue, columns: Mapping[str, str]) -> RowValue:
    """The row with the fields of its form in place of the columns that hold them, and the question
    of ARC's nested form (`{"question": {"stem": ..., "choices": [...]}}`) beside its choices."""
    question = row.get("question")
    if isinstance(question, dict) and "stem" in question and "choices" in question:
        row = {**row, "question": question["stem"], "choices": question["choices"]}
    if any("." in key for key in row):
        row = _nested(row)
    if not columns:
        return row
    replaced = {*columns, *columns.values()}
    kept = {key: value for key, value in row.items() if key not in replaced}
    named = {field: row[column] for field, column in columns.items() if column in row}
    return {**kept, **named}
