"""From the plan to what is checked: datasets read from disk, and the renderer of the model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import MappingProxyType

from loracle.data.accounting import RowNote
from loracle.data.audit.facts import packed_facts
from loracle.data.holdout import Holdout, hold_out
from loracle.data.reading.dataset import Reading, read_dataset
from loracle.data.reading.options import named_options, options_of
from loracle.data.rendering.renderer import Renderer
from loracle.data.workers import ALONE, Workers, beside
from loracle.data_check.advice import holdout_problems, note_problem
from loracle.data_check.examine import check, render_all
from loracle.data_check.inspection import Inspected, inspect_row
from loracle.data_check.kept import keep, kept_check, key_of
from loracle.data_check.places import Places
from loracle.data_check.remembered import examined
from loracle.data_check.result import Check, Intake, Kind
from loracle.errors import DataError, PlanError, UserError
from loracle.model.max_length import LengthLimit, length_limit, shape_of
from loracle.model.memory import free_memory
from loracle.model.source import model_source
from loracle.model.tokenizer import Tokenizing, load_tokenizing
from loracle.plan import (
    HOLDOUT,
    CandidatePlan,
    DataFile,
    DataFilePlan,
    EvaluationPlan,
    GenerationPlan,
    HoldoutPlan,
    ModelPlan,
    Plan,
    TrainingPlan,
    load_unmeasured_plan,
    named_files,
)
from loracle.plan.locations import is_hub_location


def check_files(
    candidates: Sequence[DataFile],
    evaluations: Sequence[DataFile],
    *,
    model: str | None = None,
    plan: Path | None = None,
    overrides: Sequence[str] = (),
    settings: Mapping[str, object] = MappingProxyType({}),
) -> Check:
    """Check files, or the data of a plan; files and the model's name override the plan's.

    Without a plan and a model no tokenizer is loaded, and lengths are in characters.

    settings: how all the named files are read, as keys of a plan's entry.

    Raises:
        UserError: the plan or the model cannot be used. Problems with the data are in the Check.
    """
    if settings and not (candidates or evaluations):
        raise PlanError(
            f"found {', '.join(settings)} without a file; name the files too, or put the setting "
            "in the plan next to their paths"
        )
    trained = [_with_settings(file, settings) for file in candidates]
    asked = [_with_settings(file, settings) for file in evaluations]
    if plan is None and not overrides and not model:
        return _check_characters(*named_files(trained, asked))
    with beside() as workers:
        if plan is None and not overrides and model:
            files = named_files(trained, asked)
            renderer = load_renderer(ModelPlan(name=model), TrainingPlan())
            datasets = read_datasets(*files, workers)
            fitted = render_all(datasets, renderer, GenerationPlan().max_new_tokens)
            return examined(fitted, renderer, workers)[0]
        loaded = load_unmeasured_plan(
            plan, candidates=trained, evaluations=asked, model=model, overrides=overrides
        )
        datasets, holdout = read_plan_data(loaded, workers)
        renderer = load_renderer(loaded.model, loaded.training)
        fitted = render_all(datasets, renderer, loaded.generation.max_new_tokens)
        checked, _ = examined(fitted, renderer, workers)
    return replace(checked, holdout=holdout, remarks=unused_holdout(loaded))


def _check_characters(
    candidates: Sequence[CandidatePlan], evaluations: Sequence[EvaluationPlan]
) -> Check:
    """Check files without a tokenizer; large ones that were checked before are not read again."""
    places = Places([entry.path for entry in (*candidates, *evaluations)])
    key = key_of(candidates, evaluations)
    if key is not None and (known := kept_check(key, places)) is not None:
        return known
    with beside() as workers:
        checked = check(read_datasets(candidates, evaluations, workers), workers=workers)
    if key is not None:
        keep(key, checked, places)
    return checked


def _with_settings(file: DataFile, settings: Mapping[str, object]) -> dict[str, object]:
    entry = file if isinstance(file, Mapping) else {"path": os.fspath(file)}
    return {**entry, **settings}


def read_plan_data(plan: Plan, workers: Workers = ALONE) -> tuple[list[Intake], Holdout | None]:
    """Read every file of a plan, and hold rows out if the plan says so.

    Nothing is held out while a candidate cannot be read, since it would change the others' split;
    if nothing can be held out, the evaluation set carries the reason.
    """
    datasets = read_datasets(plan.candidates, plan.evaluation, workers)
    if plan.held_out is None or any(dataset.error for dataset in datasets):
        return datasets, None
    try:
        return split_off(datasets, plan.held_out)
    except DataError as error:
        failed = Intake(HOLDOUT, _held_out_of(datasets), "evaluation", error=error.problems)
        return [*datasets, failed], None


def split_off(candidates: Sequence[Intake], settings: HoldoutPlan) -> tuple[list[Intake], Holdout]:
    """The candidates without the rows that are held out, then those as the evaluation set.

    Raises:
        DataError: nothing can be held out so that every candidate has rows on both sides.
    """
    found = hold_out(
        {dataset.name: dataset.examples for dataset in candidates}, settings.share, settings.seed
    )
    left = [
        replace(
            dataset,
            examples=found.kept[dataset.name],
            num_held_out=found.num_held_out[dataset.name],
        )
        for dataset in candidates
    ]
    asked = Intake(
        HOLDOUT,
        _held_out_of(candidates),
        "evaluation",
        [question.example for question in found.questions],
        found.description,
        [RowNote.of_unasked(example) for example in found.unasked],
        DataFilePlan.model_fields["max_dropped"].default,
        remarks=holdout_problems(found),
        metrics=settings.metrics,
    )
    return [*left, asked], found


def _held_out_of(candidates: Sequence[Intake]) -> str:
    return f"held out of {', '.join(dataset.name for dataset in candidates)}"


def unused_holdout(plan: Plan) -> list[str]:
    """What to say about a holdout next to evaluation sets."""
    if plan.holdout is None or plan.held_out is not None:
        return []
    return [f"holdout: {plan.holdout.share:g} is not used, since the plan names evaluation sets"]


def inspect_file(
    path: str,
    row: int,
    *,
    model: str | None = None,
    plan: Path | None = None,
    overrides: Sequence[str] = (),
    settings: Mapping[str, object] = MappingProxyType({}),
) -> Inspected:
    """One row of a file as a model sees it, by the rules of the plan if one is given.

    row: counts the usable rows, from 1. settings: how the file is read, as keys of a plan's entry.

    Raises:
        UserError: the file, the plan or the model cannot be used, or there is no such row.
    """
    chosen, training = ModelPlan(name=model) if model else ModelPlan(), TrainingPlan()
    options = named_options(path, settings)
    if plan is not None or overrides:
        loaded = load_unmeasured_plan(
            plan,
            candidates=[{"path": path, **settings}],
            model=model,
            overrides=overrides,
        )
        chosen, training = loaded.model, loaded.training
        options = options_of(loaded.candidates[0])
    reading = Reading(path, options)
    examples = list(islice(reading, max(row, 1)))
    reading.check_fields(is_whole=False)
    if not examples and reading.drops:
        raise DataError([problem for drop in reading.drops[:20] for problem in drop.problems])
    return inspect_row(examples, row, load_renderer(chosen, training))


def read_datasets(
    candidates: Sequence[CandidatePlan],
    evaluations: Sequence[EvaluationPlan],
    workers: Workers = ALONE,
) -> list[Intake]:
    """Read every file; one that cannot be read carries its problems."""
    return [
        *(_read(entry, "candidate", workers) for entry in candidates),
        *(_read(entry, "evaluation", workers) for entry in evaluations),
    ]


def read_local_datasets(plan: Plan) -> list[Intake]:
    """Read the files of a plan that lie on this machine; those of a hub are left to the run."""
    return read_datasets(
        [entry for entry in plan.candidates if not is_hub_location(entry.path)],
        [entry for entry in plan.evaluation if not is_hub_location(entry.path)],
    )


def _read(entry: CandidatePlan | EvaluationPlan, kind: Kind, workers: Workers) -> Intake:
    try:
        read = read_dataset(entry.path, options_of(entry), workers=workers, digest=packed_facts)
    except UserError as error:
        return Intake(entry.name, entry.path, kind, error=error.problems)
    examples = read.examples
    dropped = [RowNote.of_drop(drop) for drop in read.drops]
    if kind == "evaluation":
        without = [RowNote.of_no_reference(one) for one in examples if not one.has_reference]
        if without:
            dropped += without
            examples = [example for example in examples if example.has_reference]
    return Intake(
        entry.name,
        entry.path,
        kind,
        examples,
        read.description,
        dropped,
        entry.max_dropped,
        remarks=[*map(note_problem, read.notes)],
        fields=read.fields,
        metrics=entry.metrics if isinstance(entry, EvaluationPlan) else (),
    )


def load_renderer(
    model: ModelPlan,
    training: TrainingPlan,
    model_folder: Path | None = None,
    settled: LengthLimit | None = None,
) -> Renderer:
    """The renderer of a plan: its model's tokenizer, its limits and policies. No weights.

    model_folder: where the files of a hub's model are already; None fetches the files it needs.
    settled: the longest row allowed, if that is already decided; None decides it here.
    """
    source = str(model_folder) if model_folder else model_source(model, with_weights=False)
    loaded = load_tokenizing(source, trust_remote_code=model.trust_remote_code)
    return renderer_of(loaded, model, training, settled)


def renderer_of(
    loaded: Tokenizing,
    model: ModelPlan,
    training: TrainingPlan,
    settled: LengthLimit | None = None,
    *,
    in_memory: bool = False,
) -> Renderer:
    """As `load_renderer`, with a tokenizer that is already loaded. in_memory: the weights are
    loaded too."""
    limit = settled or _length_limit(model, training, loaded, in_memory=in_memory)
    return Renderer(
        loaded.tokenizer,
        loaded.end_token_ids,
        train_on=training.train_on,
        max_length=limit.tokens,
        max_length_reason=limit.reason,
        overlong=training.overlong,
        template_kwargs=model.chat_template_kwargs,
    )


def _length_limit(
    model: ModelPlan, training: TrainingPlan, loaded: Tokenizing, *, in_memory: bool
) -> LengthLimit:
    if training.max_length is not None:
        return LengthLimit(training.max_length, "training.max_length")
    from loracle.model.base import chosen_dtype
    from loracle.model.placement import chosen_device
    from loracle.model.quantization import PACKED_SHARE

    device = chosen_device(model.device)
    shape = shape_of(
        loaded.config,
        chosen_dtype(model.dtype, device).itemsize,
        device.type,
        trust_remote_code=model.trust_remote_code,
    )
    free = free_memory(device.type)
    if in_memory and free is not None and shape is not None:
        # Free memory already excludes the weights, but the limit's estimate counts them.
        free = free._replace(num_bytes=free.num_bytes + shape.weight_bytes)
    elif free is not None and shape is not None:
        # The estimate counts unquantised weights; quantised ones take less.
        saved = int(shape.weight_bytes * (1.0 - PACKED_SHARE[model.quantization]))
        free = free._replace(num_bytes=free.num_bytes + saved)
    return length_limit(
        loaded.max_length_tokens,
        shape,
        free,
        # auto turns it on if a row would not fit without it.
        gradient_checkpointing=training.gradient_checkpointing is not False,
    )
