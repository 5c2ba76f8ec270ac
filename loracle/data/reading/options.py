"""How a dataset is to be read: what the user decided in place of what the rows say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import ValidationError

from loracle.errors import PlanError
from loracle.plan import UNANSWERABLE_REPLY, DataFilePlan, FormatName, Unanswerable
from loracle.plan.problems import problems_of


@dataclass(frozen=True)
class TurnKeys:
    """The keys and role names of `conversations`, where they are not ShareGPT's own."""

    role: str = "from"
    content: str = "value"
    roles: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ReadOptions:
    """What the user decided.

    format: None is detected from the rows.
    columns: a format's field -> the column that holds it, as {"question": "query"}.
    ignore_columns: columns that are meant to be left out, whatever they are called.
    limit: how many rows to read, from the first; None is all.
    split: which one of a folder with several splits is read.
    encoding: of text files, as Python names it. None: UTF-8, or UTF-16 by its byte-order mark.
    unanswerable: what becomes of a question marked as having no answer: `answer` makes
        `unanswerable_reply` its reply and its reference, `drop` leaves it out, `error` refuses it.
    turn_keys: only from LLaMA-Factory's dataset_info.json.
    """

    format: FormatName | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    limit: int | None = None
    split: str | None = None
    encoding: str | None = None
    unanswerable: Unanswerable = "answer"
    unanswerable_reply: str = UNANSWERABLE_REPLY
    turn_keys: TurnKeys = field(default_factory=TurnKeys)
    ignore_columns: tuple[str, ...] = ()


def named_settings(*, columns: Sequence[str] = (), **settings: object) -> dict[str, object]:
    """What the command line says of how files are read, as the keys of a plan's entry.

    columns: "question=query" each. settings: further keys; None is not said.

    Raises PlanError with every column that is not of that form.
    """
    pairs = [column.partition("=") for column in columns]
    wrong = [
        f"--column {name}{mark}{column}: expected field=column, such as question=query"
        for name, mark, column in pairs
        if not (name and mark and column)
    ]
    if wrong:
        raise PlanError(wrong)
    said = {key: value for key, value in settings.items() if value is not None}
    renamed = {"columns": {name: column for name, _, column in pairs}} if pairs else {}
    return {**said, **renamed}


def named_options(path: str, settings: Mapping[str, object]) -> ReadOptions:
    """Options of one file as the command line names them, checked as a plan's entry is.

    Raises PlanError with all problems.
    """
    try:
        return options_of(DataFilePlan.model_validate({"path": path, **settings}))
    except ValidationError as error:
        raise PlanError(problems_of(error)) from error


def options_of(entry: DataFilePlan) -> ReadOptions:
    """What a plan's entry decides."""
    return ReadOptions(
        format=None if entry.format == "auto" else entry.format,
        columns=dict(entry.columns.items()),
        limit=entry.limit,
        split=entry.split,
        encoding=entry.encoding,
        unanswerable=entry.unanswerable,
        unanswerable_reply=entry.unanswerable_reply,
        ignore_columns=tuple(entry.ignore_columns),
    )
