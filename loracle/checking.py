"""The check of all data of an experiment: what is there, what is wrong with it, what to do.

    Intake --rendered, counted--> Accounting, Sharing ┐
    [Intake] --audited together--> Finding, Leakage   ├-> Check (exit code, JSON, rendered rows)

A run trains on exactly the rows that its check rendered, so the counts of the two cannot differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from loracle.advice import (
    difference_problems,
    finding_problem,
    joined_problem,
    loss_problems,
    sharing_hints,
)
from loracle.checked import (
    Check,
    DatasetReport,
    Intake,
    Kind,
    Problem,
    RenderedSet,
    Severity,
)
from loracle.data.accounting import Accounting, RowNote, account
from loracle.data.audit import AuditedSet, audited, extractiveness, findings, leakage
from loracle.data.conversation import Example
from loracle.data.rendering import Rendered, RenderedPrompt, Renderer
from loracle.errors import UserError
from loracle.forest import Sequences
from loracle.sharing import Sharing, characters_of, sharing_of, with_passage_first


def check(
    datasets: Sequence[Intake], renderer: Renderer | None = None, max_new_tokens: int = 0
) -> Check:
    """Render, count and audit datasets; every candidate against every evaluation set.

    renderer: None counts characters instead of tokens, and no row is too long.
    max_new_tokens: the room an evaluation prompt needs for its answer.
    """
    rendered: dict[tuple[Kind, str], RenderedSet] = {}
    parts: list[tuple[Intake, Accounting | None, Sharing | None, list[Problem]]] = []
    for dataset in datasets:
        accounting, sharing, problems, ready = _render(dataset, renderer, max_new_tokens)
        if ready is not None:
            rendered[dataset.kind, dataset.name] = ready
        parts.append((dataset, accounting, sharing, problems))
    audits = _audited(datasets, rendered)
    of_kind = {
        kind: [audit for (found, _), audit in audits.items() if found == kind]
        for kind in ("candidate", "evaluation")
    }
    reports = []
    for dataset, accounting, sharing, problems in parts:
        audit = audits.get((dataset.kind, dataset.name))
        if audit and dataset.kind == "candidate":
            problems += difference_problems(audit, of_kind["evaluation"])
        reports.append(_report(dataset, accounting, sharing, problems, audit))
    leakages = [
        leakage(candidate, evaluation)
        for candidate in of_kind["candidate"]
        for evaluation in of_kind["evaluation"]
    ]
    return Check(
        reports,
        leakages,
        {name: ready for (kind, name), ready in rendered.items() if kind == "candidate"},
        {name: ready for (kind, name), ready in rendered.items() if kind == "evaluation"},
        renderer.max_length if renderer else None,
        renderer.overlong if renderer else None,
    )


def _render(
    dataset: Intake, renderer: Renderer | None, max_new_tokens: int
) -> tuple[Accounting | None, Sharing | None, list[Problem], RenderedSet | None]:
    """Count one dataset; what cannot be rendered is an error of that dataset."""
    if dataset.error:
        return None, None, [Problem("error", text) for text in dataset.error], None
    num_joined = renderer.num_joined if renderer else 0
    dropped = list(dataset.dropped)
    shortened: list[RowNote] = []
    examples: Sequence[Example] = dataset.examples
    rows: Sequence[Rendered] | Sequence[RenderedPrompt] | None = None
    if renderer is not None:
        try:
            fitted = (
                renderer.fit_training(examples)
                if dataset.kind == "candidate"
                else renderer.fit_prompts(examples, max_new_tokens)
            )
        except UserError as error:
            return None, None, [Problem("error", text) for text in error.problems], None
        examples, rows = fitted.examples, fitted.rows
        dropped += map(RowNote.of, fitted.dropped)
        shortened += map(RowNote.of, fitted.shortened)
    accounting = account(
        examples,
        rows,
        dropped=dropped,
        shortened=shortened,
        num_held_out=dataset.num_held_out,
    )
    problems = [*dataset.remarks, *loss_problems(dataset, accounting)]
    if renderer is not None and renderer.num_joined > num_joined:
        problems.append(joined_problem(renderer.num_joined - num_joined))
    if not examples:
        # An unusable candidate fails alone; without an evaluation set nothing can be compared.
        severity: Severity = "gated" if dataset.kind == "candidate" else "error"
        problems.append(Problem(severity, f"{dataset.path}: no row is left to use"))
        return accounting, None, problems, None
    ready = RenderedSet(examples, rows)
    sharing = _sharing(examples, ready, renderer, dataset.kind)
    return accounting, sharing, problems, ready


def _sharing(
    examples: Sequence[Example], ready: RenderedSet, renderer: Renderer | None, kind: Kind
) -> Sharing:
    """The sharing ratio; the hint about the passage is for what the user can still change."""
    swapped = with_passage_first(examples) if kind == "candidate" else None
    if ready.rows is None or renderer is None:
        better = characters_of(swapped) if swapped else None
        return sharing_of(characters_of(ready.examples), better, max_row_tokens=None)
    better = _sequences(renderer.fit_training(swapped).rows) if swapped else None
    return sharing_of(_sequences(ready.rows), better)


def _sequences(rows: Sequence[Rendered] | Sequence[RenderedPrompt]) -> Sequences:
    weights = [row.weights for row in rows if isinstance(row, Rendered)]
    return Sequences.of([row.token_ids for row in rows], weights or None)


def _audited(
    datasets: Sequence[Intake], rendered: Mapping[tuple[Kind, str], RenderedSet]
) -> dict[tuple[Kind, str], AuditedSet]:
    """The kept rows of every dataset, as they were before any was shortened."""
    keys = [(dataset.kind, dataset.name) for dataset in datasets]
    chosen = [
        (dataset, {example.id for example in rendered[key].examples})
        for dataset, key in zip(datasets, keys, strict=True)
        if key in rendered
    ]
    sets = audited(
        (dataset.name, [example for example in dataset.examples if example.id in kept])
        for dataset, kept in chosen
    )
    return {
        (dataset.kind, dataset.name): found
        for (dataset, _), found in zip(chosen, sets, strict=True)
    }


def _report(
    dataset: Intake,
    accounting: Accounting | None,
    sharing: Sharing | None,
    problems: Iterable[Problem],
    audit: AuditedSet | None,
) -> DatasetReport:
    found = findings(audit) if audit else []
    extractive = extractiveness(audit) if audit else None
    return DatasetReport(
        dataset.name,
        dataset.path,
        dataset.kind,
        dataset.description,
        accounting,
        sharing,
        extractive,
        found,
        [*problems, *map(finding_problem, found), *sharing_hints(sharing)],
    )
