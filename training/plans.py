"""From checked arguments to the plan of an experiment, and its messages back to the arguments."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from loracle.errors import PlanError, TrialError, UserError
from loracle.plan import Plan
from loracle.plan.locations import is_hub_location
from loracle.plan.problems import problems_of
from loracle.plan.root import CANDIDATES_OPTIONAL, EVALUATION_OPTIONAL

# Settings as the plan calls them, and as a caller of these functions knows them.
_NAMES = {
    r"\btraining\.epochs\b": "training_args.num_train_epochs",
    r"\btraining\.schedule\b": "training_args.lr_scheduler_type",
    r"\btraining\.batch_size\b": "training_args.per_device_train_batch_size",
    r"(?<!\S)(--set )?training\.([a-z_]+)": r"training_args.\2",
    r"\bgeneration\.batch_size\b": "batch_size",
    r"(?<!\S)(--set )?generation\.([a-z_]+)": r"generation_kwargs.\2",
    r"\bmodel\.(quantization|device_map)\b": r"\1",
    r"(set )?model\.dtype( to)?": "load the model with dtype",
    r"an evaluation set, --eval FILE": "an evaluation file: (train, eval)",
    r" or seed \(--set holdout\.seed=1\)": "",
    r"choose another share, or name": "name",
    r"choose another folder with --out, or give the same plan": (
        "choose another file or output_dir, or give the same arguments"
    ),
    r"with --out\b": "(result_output_path, output_dir)",
}


def entry_of(name: str, path: str | Path, split: str | None = None) -> dict[str, Any]:
    """A data file's entry in the plan; `PATH#SPLIT` names one of several splits."""
    where, _, after = str(path).rpartition("#")
    if where and (is_hub_location(where) or Path(where).is_dir()):
        return {"name": name, "path": where, "split": split or after}
    return {"name": name, "path": str(path), "split": split}


def plan_of(
    candidates: Sequence[dict[str, Any]], evaluation: Sequence[dict[str, Any]], **sections: Any
) -> Plan:
    """The plan. A section that is None has its defaults. Raises PlanError with all problems."""
    named = {key: value for key, value in sections.items() if value is not None}
    tree = {"candidates": candidates, "evaluation": evaluation, **named}
    try:
        return Plan.model_validate(tree, context={CANDIDATES_OPTIONAL, EVALUATION_OPTIONAL})
    except ValidationError as error:
        raise PlanError([in_our_words(problem) for problem in problems_of(error)]) from error


def in_our_words(message: str) -> str:
    """A message of Loracle, with its settings under the names that they have here."""
    for pattern, name in _NAMES.items():
        message = re.sub(pattern, name, message)
    return message


@contextmanager
def named_as_here() -> Iterator[None]:
    """Let errors of Loracle name the settings of this interface."""
    try:
        yield
    except UserError as error:
        raise type(error)([in_our_words(problem) for problem in error.problems]) from error
    except TrialError as error:
        raise type(error)(in_our_words(str(error))) from error
