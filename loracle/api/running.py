"""`loracle.run` and `loracle.resume`: train on every candidate from the same base, evaluate all,
rank them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from loracle.api.files import Data, listed
from loracle.api.quiet import quiet_libraries
from loracle.api.run import Run
from loracle.language import LanguageChoice, chosen_language
from loracle.run_folder.views import Progress, choose_view

if TYPE_CHECKING:
    from loracle.model.base import BaseModel


class LoadedBase(NamedTuple):
    """A base that the caller has loaded: a causal language model of transformers, wherever its
    layers are, and its tokenizer. The model is frozen; no run changes its weights."""

    model: Any
    tokenizer: Any


def run(
    candidates: Data | Sequence[Data] = (),
    evaluation: Data | Sequence[Data] = (),
    *,
    model: str | os.PathLike[str] | None = None,
    base: LoadedBase | tuple[Any, Any] | None = None,
    out: str | os.PathLike[str] | None = None,
    plan_file: str | os.PathLike[str] | None = None,
    overrides: Sequence[str] = (),
    progress: Progress = "auto",
    language: LanguageChoice = "auto",
    base_only: bool = False,
    **plan: object,
) -> Run:
    """Train on every candidate from the same base, evaluate all, and rank them.

    The same call again resumes: finished trials are not run again.

    Args:
        candidates: Training sets to compare.
        evaluation: Evaluation sets; may be omitted with `holdout=0.1`.
        model: A model folder, a hub id, or `embedded`. With `base`, its name in reports.
        base: A (model, tokenizer) that is already loaded, instead of the plan's model. The same
            call with the same weights resumes; `resume` cannot.
        out: The run folder, or a URL such as s3://bucket/run. None: in `runs/`, named by date.
        plan_file: A plan in YAML; everything given here overrides it.
        overrides: Single keys, such as "training.epochs=2"; these override everything else.
        progress: On standard error: `auto` is bars on a terminal, else lines; `plain` is lines;
            `quiet` is only warnings and failures; `verbose` is a line for every event.
        language: Of the progress; `auto` follows the locale.
        base_only: Evaluate the base alone; `resume` trains the candidates.
        **plan: Sections of the plan: `training={"epochs": 2}`, `lora={"r": 16}`, `seeds=[0, 1]`.

    Returns:
        The finished run. A candidate that failed is in its `failures`.

    Raises:
        UserError: The plan, the data, the model or the run folder cannot be used.
    """
    from loracle.plan import BASE_NAME, load_plan
    from loracle.run_folder.mirror import mirrored

    name, only = None if model is None else os.fspath(model), BASE_NAME if base_only else None
    loaded = load_plan(
        plan_file,
        candidates=listed(candidates),
        evaluations=listed(evaluation),
        model=name if base is None else name or _name_of(base),
        settings=plan,
        overrides=overrides,
    )
    view = choose_view(progress, chosen_language(language))
    with nullcontext() if progress == "verbose" else quiet_libraries():
        from loracle.experiment.run import run as run_experiment
        from loracle.experiment.selection import Selection

        given = None if base is None else _wrapped(loaded.model.name, base)
        with mirrored(None if out is None else Path(out), view) as (root, shown):
            results = run_experiment(loaded, root, shown, given, Selection(only))
    return Run(results["run"], was_finished=False)


def resume(
    folder: str | os.PathLike[str],
    *,
    candidate: str | None = None,
    retry_failed: bool = False,
    devices: str | int | Sequence[int] | None = None,
    ray_address: str | None = None,
    progress: Progress = "auto",
    language: LanguageChoice = "auto",
) -> Run:
    """Finish a run from its folder, whatever state it is in.

    One that is finished and whole loads no model: its `was_finished` is true then, and `notes`
    say what one should know.

    Args:
        folder: The run folder, or its URL.
        candidate: Run only this candidate's trials; None means all.
        retry_failed: Also run failed trials again.
        devices: As of a plan, in place of the run's. None: the run's.
        ray_address: As `ray.address` of a plan, in place of the run's. None: the run's.
        progress, language: As for `run`.

    Returns:
        The finished run.

    Raises:
        UserError: It is not a run folder, is damaged, or its inputs have changed.
    """
    from loracle.experiment.resuming import resume as resume_run
    from loracle.run_folder.mirror import mirrored

    with ExitStack() as stack:

        def before_loading() -> None:
            if progress != "verbose":
                stack.enter_context(quiet_libraries())

        view = choose_view(progress, chosen_language(language))
        root, shown = stack.enter_context(mirrored(Path(folder), view, must_exist=True))
        assert root is not None, "a folder was given"
        resumed = resume_run(
            root,
            shown,
            candidate=candidate,
            retry_failed=retry_failed,
            devices=devices,
            ray_address=ray_address,
            before_loading=before_loading,
        )
    return Run(root, was_finished=resumed.was_finished, notes=resumed.notes)


def _name_of(base: LoadedBase | tuple[Any, Any]) -> str:
    """What a loaded model calls itself: the folder or hub id that it came from."""
    return str(getattr(base[0].config, "name_or_path", "") or type(base[0]).__name__)


def _wrapped(name: str, base: LoadedBase | tuple[Any, Any]) -> BaseModel:
    from loracle.model.base import wrap_base

    model, tokenizer = base
    return wrap_base(name, model, tokenizer)
