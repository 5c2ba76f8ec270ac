"""The check of all data of an experiment: what it contains, what is wrong with it, and what to do.

    Intake --render_all--> FittedSet --counted--> Accounting, Sharing ┐
    [FittedSet] --audited together--> Finding, Leakage ---------------├-> Check

A run trains on exactly the rows that its check rendered, so their counts cannot differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from loracle.data.accounting import Accounting, RowNote, account
from loracle.data.audit import AuditedSet, audited, extractiveness, findings, leakage
from loracle.data.conversation import Example
from loracle.data.following import Reached, tell
from loracle.data.rendering.renderer import Rendered, RenderedPrompt, Renderer
from loracle.data.scripts import all_language_shares, guessed_texts
from loracle.data.sharing import Sharing, character_sharing, sharing_of, with_passage_first
from loracle.data.stored import StoredExamples
from loracle.data.workers import ALONE, Workers
from loracle.data_check.advice import (
    difference_problems,
    finding_problem,
    joined_problem,
    loss_problems,
    metric_problems,
    reference_length_problems,
    sharing_hints,
)
from loracle.data_check.result import (
    Check,
    DatasetReport,
    Intake,
    Kind,
    Problem,
    RenderedSet,
    Severity,
)
from loracle.errors import UserError
from loracle.forest.trie import Sequences


def check(
    datasets: Sequence[Intake],
    renderer: Renderer | None = None,
    max_new_tokens: int = 0,
    workers: Workers = ALONE,
) -> Check:
    """Render, count and audit datasets; every candidate against every evaluation set.

    renderer: None counts characters instead of tokens, and no row is too long.
    max_new_tokens: the room an evaluation prompt needs for its answer.
    """
    return examine(render_all(datasets, renderer, max_new_tokens), renderer, workers)


@dataclass(frozen=True)
class FittedSet:
    """A dataset's rows as a model takes them, or why there are none.

    examples, rows: those that fit; rows is None without a tokenizer. num_joined: replies that
    merge with the template's text. max_new_tokens: the room for an answer to an evaluation prompt.
    """

    dataset: Intake
    examples: Sequence[Example] = ()
    rows: Sequence[Rendered] | Sequence[RenderedPrompt] | None = None
    dropped: Sequence[RowNote] = ()
    shortened: Sequence[RowNote] = ()
    num_joined: int = 0
    error: Sequence[str] = ()
    max_new_tokens: int = 0

    @property
    def ready(self) -> RenderedSet | None:
        """What can be used; None if no row is left."""
        return RenderedSet(self.examples, self.rows) if self.examples else None


def render_all(
    datasets: Sequence[Intake], renderer: Renderer | None, max_new_tokens: int
) -> list[FittedSet]:
    """Render every dataset: the input of training and evaluation. Nothing is judged yet."""
    return [_rendered(dataset, renderer, max_new_tokens) for dataset in datasets]


def ready_sets(fitted: Iterable[FittedSet], kind: Kind) -> dict[str, RenderedSet]:
    """The usable datasets of one kind, by name."""
    return {
        one.dataset.name: ready
        for one in fitted
        if one.dataset.kind == kind and (ready := one.ready) is not None
    }


def _rendered(dataset: Intake, renderer: Renderer | None, max_new_tokens: int) -> FittedSet:
    if dataset.error:
        return FittedSet(dataset, error=dataset.error)
    if renderer is None:
        return FittedSet(dataset, dataset.examples, None, dataset.dropped)
    num_joined = renderer.num_joined
    try:
        fitted = (
            renderer.fit_training(dataset.examples)
            if dataset.kind == "candidate"
            else renderer.fit_prompts(dataset.examples, max_new_tokens)
        )
    except UserError as error:
        return FittedSet(dataset, error=error.problems)
    return FittedSet(
        dataset,
        fitted.examples,
        fitted.rows,
        [*dataset.dropped, *map(RowNote.of, fitted.dropped)],
        [*map(RowNote.of, fitted.shortened)],
        renderer.num_joined - num_joined,
        max_new_tokens=max_new_tokens,
    )


def examine(
    fitted: Sequence[FittedSet], renderer: Renderer | None, workers: Workers = ALONE
) -> Check:
    """Count and audit what was rendered by `renderer`."""
    # Of a few rows all is done before a process has started.
    is_large = any(isinstance(one.examples, StoredExamples) for one in fitted)
    doing = workers if is_large else ALONE
    # One task: the model of languages is large, and one process loads it.
    languages = doing.begin(all_language_shares, [guessed_texts(one.examples) for one in fitted])
    begun = [_sharing(one, renderer, doing) for one in fitted]
    # Before the audit: the two would be in memory at the same time.
    sharings, in_languages = [sharing() for sharing in begun], languages()
    rendered = {
        (one.dataset.kind, one.dataset.name): ready
        for one in fitted
        if (ready := one.ready) is not None
    }
    audits = _audited([one.dataset for one in fitted], rendered, workers)
    evaluations = [audit for (kind, _), audit in audits.items() if kind == "evaluation"]
    reports, leakages = [], []
    for one, sharing, shares in zip(fitted, sharings, in_languages, strict=True):
        dataset = one.dataset
        if is_large:
            tell(Reached("comparing", dataset.name, len(one.examples), 0, 0))
        accounting, problems = _counted(one, shares)
        audit = audits.get((dataset.kind, dataset.name))
        if audit and dataset.kind == "candidate":
            problems += difference_problems(audit, evaluations)
        reports.append(_report(dataset, accounting, sharing, problems, audit))
        if audit and dataset.kind == "candidate":
            leakages += [leakage(audit, evaluation) for evaluation in evaluations]
            audit.forget()
    return Check(
        reports,
        leakages,
        ready_sets(fitted, "candidate"),
        ready_sets(fitted, "evaluation"),
        renderer.max_length if renderer else None,
        renderer.max_length_reason if renderer else None,
        renderer.overlong if renderer else None,
    )


def _counted(
    fitted: FittedSet, languages: Mapping[str, float]
) -> tuple[Accounting | None, list[Problem]]:
    """Count one dataset; if it cannot be rendered, that is an error of the dataset."""
    dataset = fitted.dataset
    if fitted.error:
        return None, [Problem("error", text) for text in fitted.error]
    accounting = account(
        fitted.examples,
        fitted.rows,
        dropped=fitted.dropped,
        shortened=fitted.shortened,
        num_held_out=dataset.num_held_out,
        languages=languages,
    )
    problems = [*dataset.remarks, *loss_problems(dataset, accounting)]
    if fitted.num_joined:
        problems.append(joined_problem(fitted.num_joined))
    if dataset.kind == "evaluation":
        problems += metric_problems(dataset, fitted.examples)
    ready = fitted.ready
    if ready is not None and dataset.kind == "evaluation":
        problems += reference_length_problems(ready, fitted.max_new_tokens)
    if ready is None:
        # An unusable candidate fails alone; without an evaluation set nothing can be compared.
        severity: Severity = "gated" if dataset.kind == "candidate" else "error"
        problems.append(Problem(severity, f"{dataset.path}: no row is left to use"))
    return accounting, problems


def _sharing(
    fitted: FittedSet, renderer: Renderer | None, workers: Workers
) -> Callable[[], Sharing | None]:
    """The sharing ratio, to be waited for; None if no row is left. The hint about the passage is
    only for data that the user can still change."""
    ready, is_candidate = fitted.ready, fitted.dataset.kind == "candidate"
    if ready is None:
        return lambda: None
    if ready.rows is None or renderer is None:
        return character_sharing(ready.examples, try_passage_first=is_candidate, workers=workers)
    swapped = with_passage_first(ready.examples) if is_candidate else None
    better = _sequences(renderer.fit_training(swapped).rows) if swapped else None
    found = sharing_of(_sequences(ready.rows), better)
    return lambda: found


def _sequences(rows: Sequence[Rendered] | Sequence[RenderedPrompt]) -> Sequences:
    weights = [row.weights for row in rows if isinstance(row, Rendered)]
    return Sequences.of([row.token_ids for row in rows], weights or None)


def _audited(
    datasets: Sequence[Intake],
    rendered: Mapping[tuple[Kind, str], RenderedSet],
    workers: Workers,
) -> dict[tuple[Kind, str], AuditedSet]:
    """The kept rows of every dataset, as they were before any was shortened."""
    chosen = [
        (key, _as_read(dataset, rendered[key]))
        for dataset in datasets
        if (key := (dataset.kind, dataset.name)) in rendered
    ]
    sets = audited([(name, examples) for (_, name), examples in chosen], workers)
    return {key: found for (key, _), found in zip(chosen, sets, strict=True)}


def _as_read(dataset: Intake, ready: RenderedSet) -> Sequence[Example]:
    if len(ready.examples) == len(dataset.examples):
        return dataset.examples
    kept = {example.id for example in ready.examples}
    return [example for example in dataset.examples if example.id in kept]


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
        dataset.fields,
        dataset.num_unlearned,
    )
