"""Marks of what must not be learned, as data writes them.

    {"role": "assistant", "content": ..., "weight": 0}          OpenAI
    {"role": "assistant", "content": ..., "loss": false}        ms-swift
    {"from": "gpt", "value": ..., "train": false}               axolotl
    {"messages": [...], "loss_mask": [0, 1, 0, 1]}              one a turn, or one a reply
    {"prompt": ..., "completion": ..., "label": false}          TRL's KTO, a reply not wanted

A mark is true, false, or a loss weight. Only replies carry loss, so that marks of other turns
change nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from loracle.data.conversation import Message
from loracle.data.faults import Faults, Reason, kind_of
from loracle.data.reading.row_content import RowValue, is_blank
from loracle.text import counted


def _spelled(*names: str) -> frozenset[str]:
    """The names as data has them: train_on_turn, Train_on_turn, trainOnTurn."""
    camel = (re.sub("_([a-z])", lambda found: found[1].upper(), name) for name in names)
    return frozenset({*names, *(name.capitalize() for name in names), *camel})


TURN_MARKS = _spelled(
    *("weight", "loss", "loss_weight", "loss_scale", "loss_mask", "train", "training"),
    *("trainable", "is_trainable", "train_on", "train_on_turn", "trained", "learn", "supervised"),
    *("compute_loss", "calculate_loss", "has_loss", "use_loss", "train_mask", "do_train"),
)
# Of a whole row, a weight may be the weight of anything, and a loss what a model was measured at.
_LIST_MARKS = _spelled("loss_masks", "loss_weights", "train_mask", "train_masks", "turn_weights")
ROW_MARKS = _LIST_MARKS | _spelled(
    *("loss_weight", "loss_scale", "loss_mask", "sample_weight", "train", "training"),
    *("trainable", "is_trainable", "do_train"),
)
KTO_MARKS = frozenset({"label", "kto_tag", "desirable", "is_desirable"})
_UNFOLLOWED = _spelled("train_detail", "training_detail")
# True leaves the turn out.
_OPPOSITES = _spelled(
    *("no_loss", "ignore_loss", "skip_loss", "no_train", "no_training", "skip_train"),
    *("skip_training", "ignore_training", "exclude_from_loss", "exclude_from_training"),
)
# 1 hides in some programs what it shows in others.
_AMBIGUOUS = _spelled("mask", "masked")
# True may leave the turn out of the loss, or of the conversation.
_AMBIGUOUS_IF_TRUE = _spelled("ignore", "ignored", "skip", "skipped", "exclude", "excluded")
_RARE_MARKS = _UNFOLLOWED | _AMBIGUOUS | _AMBIGUOUS_IF_TRUE | _OPPOSITES
READ_MARKS = TURN_MARKS | _OPPOSITES
PART_MARKS = TURN_MARKS | _OPPOSITES | _AMBIGUOUS
_ALL_ROW_MARKS = ROW_MARKS | KTO_MARKS | _OPPOSITES | {"weight", "loss"}
_WORDS = {"true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0}
_MAX_WEIGHT = 1000.0


class RowMarks(NamedTuple):
    """weight: of the whole row. turns: by the place of a turn or of a reply, None where the row
    says nothing of them. is_left_out: the row says that it must not be learned."""

    weight: float = 1.0
    turns: tuple[float, ...] | None = None
    is_left_out: bool = False


_NO_MARKS = RowMarks()


def turn_weight(turn: RowValue, place: str, faults: Faults) -> float:
    """The loss weight of one turn: 1 where it has no mark, 0 where any says so."""
    if TURN_MARKS.isdisjoint(turn) and _RARE_MARKS.isdisjoint(turn):
        return 1.0
    weight = 1.0
    for key in sorted(TURN_MARKS & turn.keys()):
        weight *= _weight(turn[key], f"{place}.{key}", faults)
    for key in sorted(_OPPOSITES & turn.keys()):
        weight *= _opposite(turn[key], f"{place}.{key}", faults)
    for key in sorted(_UNFOLLOWED & turn.keys()):
        if not is_blank(turn[key]):
            text = f"{place}.{key} marks parts of a turn; only whole turns can be marked"
            faults.add(Reason.MARK, f"{text}: split the turn, or remove the key")
    ambiguous = {key for key in _AMBIGUOUS & turn.keys() if not is_blank(turn[key])}
    ambiguous |= {key for key in _AMBIGUOUS_IF_TRUE & turn.keys() if _is_true(turn[key])}
    for key in sorted(ambiguous):
        if not is_blank(turn[key]):
            text = f"{place}.{key} may mean that the turn is used for training or hidden"
            faults.add(Reason.MARK, f"{text}; write weight: 1 to train on it, weight: 0 not to")
    return weight


def row_marks(row: RowValue, faults: Faults, *, kto: bool) -> RowMarks:
    """What a row says of itself. kto: whether `label` may be KTO's mark in this form."""
    if _ALL_ROW_MARKS.isdisjoint(row):
        return _NO_MARKS
    weight, turns = 1.0, None
    for key in sorted(ROW_MARKS & row.keys()):
        value = row[key]
        if isinstance(value, list) and value:
            turns = tuple(_weight(item, f"{key}[{i}]", faults) for i, item in enumerate(value))
        else:
            weight *= _weight(value, key, faults)
    if _is_zero(row.get("weight")) or row.get("loss") is False:
        weight = 0.0
    for key in sorted(_OPPOSITES & row.keys()):
        weight *= _opposite(row[key], key, faults)
    for key in KTO_MARKS & row.keys() if kto else ():
        if _is_false(key, row[key]):
            text = f"{key} is false, KTO's mark for a rejected reply"
            advice = (
                f"leave the row out, or, if it means something else, set ignore_columns: [{key}]"
            )
            faults.add(Reason.MARK, f"{text}; {advice}")
    return RowMarks(weight, turns, is_left_out=weight == 0)


def marked(messages: Sequence[Message], marks: RowMarks, faults: Faults) -> tuple[Message, ...]:
    """The turns with the row's marks on their own."""
    if marks.turns is None and marks.weight == 1:
        return tuple(messages)
    replies = [i for i, message in enumerate(messages) if message.role == "assistant"]
    weights = dict.fromkeys(replies, marks.weight)
    if marks.turns is not None:
        if len(marks.turns) == len(messages):
            weights = {i: marks.weight * marks.turns[i] for i in replies}
        elif len(marks.turns) == len(replies):
            named = zip(replies, marks.turns, strict=True)
            weights = {i: marks.weight * weight for i, weight in named}
        else:
            text = f"the row marks {counted(len(marks.turns), 'turn')} and has {len(messages)}, "
            text += f"{len(replies)} of them replies; give one mark per turn, or one per reply"
            faults.add(Reason.MARK, text)
    return tuple(
        replace(message, weight=message.weight * weights.get(i, 1.0))
        for i, message in enumerate(messages)
    )


def _weight(value: object, place: str, faults: Faults) -> float:
    if is_blank(value):
        return 1.0
    if isinstance(value, str):
        text = value.strip().lower()
        try:
            value = _WORDS[text] if text in _WORDS else float(text)
        except ValueError:
            value = text
    if isinstance(value, bool | int | float) and 0 <= value <= _MAX_WEIGHT:
        return float(value)
    expected = f"true, false, or a loss weight from 0 to {_MAX_WEIGHT:g}"
    faults.add(Reason.MARK, f"{place} is {kind_of(value)}; expected {expected}")
    return 1.0


def _opposite(value: object, place: str, faults: Faults) -> float:
    """The weight that a mark gives which says what is not to be learned."""
    if is_blank(value):
        return 1.0
    weight = _weight(value, place, faults)
    if weight not in (0.0, 1.0):
        faults.add(Reason.MARK, f"{place} is {kind_of(value)}; expected true or false")
    return 1.0 - min(weight, 1.0)


def _is_true(value: object) -> bool:
    if isinstance(value, str):
        return value.strip().lower() in ("true", "yes", "1")
    return isinstance(value, bool | int | float) and value == 1


def is_mark(column: str, value: object) -> bool:
    """Whether a column that is a mark with some values only is one with this value."""
    if column in _OPPOSITES:
        return True
    if column in KTO_MARKS:
        return isinstance(value, bool)
    return (column == "weight" and _is_zero(value)) or (column == "loss" and value is False)


def _is_zero(value: object) -> bool:
    if isinstance(value, str):
        return value.strip() in ("0", "0.0")
    return isinstance(value, bool | int | float) and value == 0


def _is_false(key: str, value: object) -> bool:
    if key != "label" and _is_zero(value):
        return True
    return value is False or (isinstance(value, str) and value.strip().lower() == "false")
