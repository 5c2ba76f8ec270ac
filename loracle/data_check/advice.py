"""What a check says about its findings, and what to do about them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from loracle.data.accounting import Accounting, RowNote
from loracle.data.audit import FINDING_MEANINGS, AuditedSet, Finding, RowReference
from loracle.data.audit.likeness import differences
from loracle.data.conversation import Example
from loracle.data.holdout import Holdout
from loracle.data.reading.notes import Note
from loracle.data.sharing import Sharing
from loracle.data_check.result import Intake, Problem, RenderedSet, Severity
from loracle.metrics import advised_metric, better_metric, get_metric, unreadable_references
from loracle.text import counted, first_few

_NUM_SHOWN_PLACES = 3
_NUM_SHOWN_CHARACTERS = 40
_FIXES = {
    "exact_duplicates": "remove the copies, or keep them if they should count more",
    "duplicates": "remove the copies, or keep them if they should count more",
    "near_rows": "keep one of them, unless they are intended paraphrases",
    "near_passages": "check whether one of them is a revision of the other",
    "conflicting_answers": "choose one answer, or list all of them as `answers`",
    "short_answers": "fill them or leave the rows out",
    "not_in_passage": "check whether these answers belong to another row",
}


def holdout_problems(holdout: Holdout) -> list[Problem]:
    """What to say about an evaluation set that is split off from the candidates."""
    fix = "if you have questions whose answers you trust, use them: --eval FILE"
    text = (
        "the questions come from the candidates: a candidate has an advantage if its answers are "
        "written in the same style as the references"
    )
    problems = [Problem("note", text, fix)]
    if contested := holdout.num_contested:
        text = (
            f"on {contested:,} of {counted(len(holdout.questions), 'question')} the candidates "
            "disagree "
            "about the answer; each candidate's answer counts as right, so the run cannot tell "
            "which candidate is right"
        )
        problems.append(Problem("warning", text, fix))
    without = [name for name, num in holdout.num_held_out.items() if not num]
    if without:
        text = (
            f"no row of {', '.join(without)} is held out: its rows share passages with too many "
            "others"
        )
        problems.append(Problem("warning", text, "choose another holdout.share or holdout.seed"))
    return problems


def note_problem(note: Note) -> Problem:
    """What to say about changes to rows that are kept."""
    return Problem("warning" if note.is_warning else "note", note.message, note.outcome)


def joined_problem(num_replies: int) -> Problem:
    """What to say about replies that merge with the template when tokenized as one text."""
    return Problem(
        "warning",
        f"{counted(num_replies, 'reply', 'replies')} merged with the chat template's text, for "
        "white space at the beginning: tokens are split where the model starts to answer",
        "strip the replies, unless the white space is intended",
    )


def loss_problems(dataset: Intake, accounting: Accounting) -> list[Problem]:
    """What to say about dropped and shortened rows."""
    problems = []
    if accounting.dropped:
        num, share = len(accounting.dropped), accounting.lost_share
        reasons = ", ".join(f"{k} {n:,}" for k, n in accounting.dropped_by_reason.items())
        places = _places([*map(_place, accounting.dropped)])
        part = f"{num / accounting.num_read:.1%}: {reasons}"
        text = f"{num:,} of {counted(accounting.num_read, 'row')} dropped ({part}) {places}"
        limit = dataset.max_dropped
        mend = f"fix the rows: {_first_faults(accounting.dropped)}"
        if limit is not None and share > limit:
            fix = f"{mend}; or raise max_dropped"
            failing: Severity = "gated" if dataset.kind == "candidate" else "error"
            problems.append(Problem(failing, f"{text}, more than max_dropped {limit:g}", fix))
        else:
            severity: Severity = "warning" if share else "note"
            problems.append(Problem(severity, text, mend if share else ""))
    if accounting.shortened:
        places = _places([*map(_place, accounting.shortened)])
        num = len(accounting.shortened)
        text = f"{counted(num, 'row')} shortened in the middle of the passage {places}"
        fix = "raise training.max_length, or set training.overlong"
        problems.append(Problem("warning", text, fix))
    return problems


def _first_faults(dropped: Sequence[RowNote]) -> str:
    """The first row with each kind of fault, and what is wrong with it."""
    first: dict[str, RowNote] = {}
    for note in dropped:
        if not note.by_policy:
            first.setdefault(note.reason, note)
    shown = [f"{_place(note)}: {note.detail}" for note in first.values()]
    more = len(shown) - _NUM_SHOWN_PLACES
    told = shown[:_NUM_SHOWN_PLACES] + ([f"{more} more kinds of fault"] if more > 0 else [])
    return " · ".join(told)


def metric_problems(dataset: Intake, examples: Sequence[Example]) -> list[Problem]:
    """What to say about metrics that cannot read the references, or for which there is a better
    one."""
    references = [example.references for example in examples]
    advised = advised_metric(references)
    problems = []
    for metric in dataset.metrics:
        if unread := unreadable_references(metric, references):
            fix = f"use {advised}, which reads them" if advised else "use another metric for them"
            problems.append(
                _unreadable_problem(dataset, metric, [examples[i] for i in unread], examples, fix)
            )
    misled = [metric for metric in dataset.metrics if better_metric(metric, references)]
    if misled and advised not in dataset.metrics:
        kind = "letters" if advised == "choice" else "worked answers that end in #### and a number"
        text = (
            f"{', '.join(misled)} compare whole texts, but the references are {kind}: a correct "
            "answer in other words would score 0"
        )
        fix = f"use {advised}: metrics: [{advised}], and decision.metric: {advised}"
        problems.append(Problem("warning", text, fix))
    return problems


def _unreadable_problem(
    dataset: Intake,
    metric: str,
    unread: Sequence[Example],
    examples: Sequence[Example],
    fix: str,
) -> Problem:
    places = _places([f"{Path(example.file).name}:{example.line}" for example in unread])
    first = unread[0].references[0][:_NUM_SHOWN_CHARACTERS]
    return Problem(
        "error",
        f"{dataset.path}: {metric} reads no {get_metric(metric).reads_what} in the references of "
        f"{len(unread):,} of {counted(len(examples), 'row')} {places}, as in {first!r}, so every "
        f"answer to them would score 0; {fix}, or fix or remove these rows",
    )


def reference_length_problems(ready: RenderedSet, max_new_tokens: int) -> list[Problem]:
    """What to say about references that are longer than an answer may be."""
    too_long = []
    for example, prompt in zip(ready.examples, ready.prompts, strict=False):
        # The end token is not part of the answer.
        num_tokens = min(map(len, prompt.reference_ids)) - 1
        if num_tokens > max_new_tokens:
            too_long.append((num_tokens, f"{Path(example.file).name}:{example.line}"))
    if not too_long:
        return []
    longest = max(num_tokens for num_tokens, _ in too_long)
    return [
        Problem(
            "warning",
            f"the references of {len(too_long):,} of {counted(len(ready.examples), 'row')} are "
            f"longer than generation.max_new_tokens {max_new_tokens:,} "
            f"{_places([place for _, place in too_long])}: such answers would be cut",
            f"raise generation.max_new_tokens; the longest reference has {longest:,} tokens",
        )
    ]


def finding_problem(finding: Finding) -> Problem:
    """What to say about one of the audit's findings, with the first places."""
    places = _places(
        [" = ".join(map(_place, group[:_NUM_SHOWN_PLACES])) for group in finding.groups]
    )
    text = f"{FINDING_MEANINGS[finding.kind]}: {counted(finding.num_rows, 'row')} {places}"
    return Problem("warning", text, _FIXES[finding.kind], finding.kind)


def difference_problems(candidate: AuditedSet, evaluations: Sequence[AuditedSet]) -> list[Problem]:
    """What to say about answers that are unlike the evaluation sets'."""
    return [
        Problem("warning" if found.serious else "note", found.message, found.fix)
        for evaluation in evaluations
        for found in differences(candidate, evaluation)
    ]


def sharing_hints(sharing: Sharing | None) -> list[Problem]:
    """What to say about rows that could share more than they do."""
    if sharing is None or sharing.possible_gain is None:
        return []
    return [
        Problem(
            "note",
            "the question comes before the passage, so rows about one passage share nothing",
            f"put the passage first: {sharing.possible_gain:.1f} times fewer tokens",
        )
    ]


def _place(row: RowReference | RowNote) -> str:
    """The file's name and the line; the dataset's own path is shown next to it."""
    return f"{Path(row.file).name}:{row.line}"


def _places(places: Sequence[str]) -> str:
    return f"({first_few(places, _NUM_SHOWN_PLACES)})"
