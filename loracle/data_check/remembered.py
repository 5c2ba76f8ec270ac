"""Findings about rows that were examined before, by another run or check of the same rows.

    [FittedSet], Renderer --key_of--> CACHE/checks/KEY.json of then, or examine

The key is the hash of all that `examine` looks at: every row to the letter and to the token, what
was said of every dataset when it was read, how rows are rendered, and Loracle's own source. Where a
run and its data lie, what it trains and under which settings does not count.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from loracle.data import plain
from loracle.data.accounting import RowNote
from loracle.data.rendering.renderer import Rendered, Renderer
from loracle.data.stored import contents_of, measures_of
from loracle.data.workers import Workers
from loracle.data_check.examine import FittedSet, examine, ready_sets
from loracle.data_check.kept import keep, kept_check, program_sha256
from loracle.data_check.places import Places
from loracle.data_check.result import CHECK_VERSION, Check

MIN_KEPT_CHARACTERS = 2 << 20
"""Fewer are examined in a second."""


def examined(
    fitted: Sequence[FittedSet], renderer: Renderer, workers: Workers
) -> tuple[Check, bool]:
    """What `examine` finds, and whether that was known already."""
    num = sum(int(measures_of(one.dataset.examples).characters.sum()) for one in fitted)
    if num < MIN_KEPT_CHARACTERS:
        return examine(fitted, renderer, workers), False
    places = Places([one.dataset.path for one in fitted])
    key = key_of(fitted, renderer, places)
    known = kept_check(key, places)
    if known is None:
        found = examine(fitted, renderer, workers)
        keep(key, found, places)
        return found, False
    return replace(
        known,
        candidates=ready_sets(fitted, "candidate"),
        evaluations=ready_sets(fitted, "evaluation"),
        # The limit may follow free memory; what it did to rows is part of the key.
        max_length=renderer.max_length,
        max_length_reason=renderer.max_length_reason,
    ), True


def key_of(fitted: Sequence[FittedSet], renderer: Renderer, places: Places) -> str:
    """The key under which findings about these rows are kept."""
    digest = hashlib.sha256()
    facts = (CHECK_VERSION, program_sha256(), _renderer_facts(renderer), len(fitted))
    digest.update(plain.packed(facts))
    for one, name in zip(fitted, places.names, strict=True):
        digest.update(plain.packed(_facts(one, name, places)))
        for examples in _looked_at(one):
            for content in contents_of(examples, places.neutral):
                digest.update(content)
        for row in one.rows or ():
            weights = np.array(row.weights if isinstance(row, Rendered) else (), np.float64)
            numbers = np.array([len(row.token_ids), len(weights), *row.token_ids], np.int64)
            digest.update(numbers.tobytes() + weights.tobytes())
    return digest.hexdigest()


def _renderer_facts(renderer: Renderer) -> tuple[Any, ...]:
    """What decides how other texts than these would be rendered."""
    tokenizer = renderer.tokenizer
    return (
        type(tokenizer).__name__,
        len(tokenizer),
        str(tokenizer.chat_template),
        renderer.train_on,
        renderer.overlong,
        dict(renderer.template_kwargs),
        sorted(renderer.end_token_ids),
    )


def _facts(one: FittedSet, name: str, places: Places) -> tuple[Any, ...]:
    """All of a dataset but its rows and the folder that it lies in."""
    dataset = one.dataset
    return (
        dataset.name,
        name,
        dataset.kind,
        places.neutral(dataset.description),
        [_unplaced(note, places) for note in dataset.dropped],
        dataset.max_dropped,
        [*map(places.neutral, dataset.error)],
        dataset.num_held_out,
        [replace(one, message=places.neutral(one.message)) for one in dataset.remarks],
        list(dataset.metrics),
        list(dataset.fields),
        [_unplaced(note, places) for note in one.dropped],
        [_unplaced(note, places) for note in one.shortened],
        one.num_joined,
        [*map(places.neutral, one.error)],
        one.max_new_tokens,
        len(dataset.examples),
        len(one.examples),
    )


def _unplaced(note: RowNote, places: Places) -> RowNote:
    return replace(note, file=places.neutral(note.file), detail=places.neutral(note.detail))


def _looked_at(one: FittedSet) -> list[Sequence[Any]]:
    """The rows as they were read, and those that are used if they are others."""
    read, used = one.dataset.examples, one.examples
    is_same = len(read) == len(used) and all(a is b for a, b in zip(read, used, strict=True))
    return [read] if is_same else [read, used]
