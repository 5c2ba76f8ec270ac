"""The sections of a plan that name data: a data file, a candidate, an evaluation set, a holdout.
Each field is documented once, under the field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from loracle.plan.messages import is_text_encoding, refuse, show
from loracle.plan.paths import data_name
from loracle.plan.sections import Count, Section, Seed, Share, Text

FormatName = Literal[
    "messages", "sharegpt", "alpaca", "prompt_completion", "question_answer", "choice", "squad"
]
FieldName = Literal[
    "id",
    "group",
    "messages",
    "conversations",
    "tools",
    "system",
    "history",
    "instruction",
    "input",
    "output",
    "prompt",
    "completion",
    "context",
    "question",
    "answer",
    "answers",
    "options",
]
Unanswerable = Literal["answer", "drop", "error"]

UNANSWERABLE_REPLY = "unanswerable"
"""The reply to a question without an answer; FLAN and lm-evaluation-harness use the same word."""

HOLDOUT = "holdout"
"""The name of the evaluation set that is split off from the candidates."""


class DataFilePlan(Section):
    """A data file with a name."""

    path: Text
    """A file (JSON, JSONL, CSV, TSV, Parquet, Arrow), a folder of them or of a saved dataset, an
    entry of LLaMA-Factory's registry, `dataset_info.json#name`, or a dataset on a hub,
    `hf://org/name:config@revision` or `ms://org/name`. In a plan file: relative to the plan file's
    folder."""
    name: str = Field(default_factory=lambda values: data_name(values["path"]))
    """The name in folders and results. None: the file's stem, the folder's, the registry entry's
    or the dataset's name, preceded by the folder or organisation if two clash."""
    limit: Count | None = None
    """How many rows to read, from the start. None: all."""
    split: Text | None = None
    """The split to read if there is more than one. None: the only one."""
    format: FormatName | Literal["auto"] = "auto"
    """The form of the rows. auto: detected from the keys of the rows; two forms in one file are an
    error."""
    columns: dict[FieldName, Text] = Field(default={})
    """Columns under other names: the form's field, then the file's column, `question: query`."""
    ignore_columns: list[Text] = Field(default=[])
    """Columns to leave out on purpose. Otherwise, an unused column whose name suggests that it is
    part of the question (`options`, `passage`, `images`) is an error."""
    encoding: Text | None = None
    """Encoding of text files, by its Python name, such as `gb18030`. None: UTF-8, or as a
    byte-order mark says."""
    unanswerable: Unanswerable = "answer"
    """What to do with questions marked as unanswerable (SQuAD 2.0). answer: `unanswerable_reply` is
    the reply to learn and the reference; drop: left out and counted; error: refused."""
    unanswerable_reply: Text = UNANSWERABLE_REPLY
    """The reply to such a question."""
    max_dropped: Share = 0.05
    """The share of rows that may be dropped because they are unusable or too long. A candidate
    that loses more fails with the reason, and the others continue; an evaluation set that loses
    more stops the run."""

    @field_validator("encoding")
    @classmethod
    def _check_encoding(cls, encoding: str | None) -> str | None:
        if encoding is not None and not is_text_encoding(encoding):
            refuse(
                f"encoding: found {show(encoding)}; expected a text encoding that Python knows, "
                "such as utf-8, utf-16 or gb18030"
            )
        return encoding

    @model_validator(mode="before")
    @classmethod
    def _no_name_is_a_name_to_derive(cls, values: object) -> object:
        if isinstance(values, Mapping) and values.get("name", "") is None:
            return {key: value for key, value in values.items() if key != "name"}
        return values


class CandidatePlan(DataFilePlan):
    """One training dataset under comparison."""


class EvaluationPlan(DataFilePlan):
    """One evaluation dataset and what is measured on it."""

    metrics: list[Text] = Field(default=["em", "f1"], min_length=1)
    """Names of metrics, each computed for every prediction."""


class HoldoutPlan(Section):
    """The evaluation set that is split off from the candidates if none is given."""

    share: Annotated[float, Field(strict=True, gt=0, lt=1)]
    """The approximate share of every candidate's rows to hold out: rows that share a passage stay
    together, across candidates."""
    seed: Seed = 0
    """Seed of the random choice of passages. Not one of `seeds`: every trial gets the same
    questions."""
    metrics: list[Text] = Field(default=["em", "f1"], min_length=1)
    """Names of metrics, each computed for every prediction."""
