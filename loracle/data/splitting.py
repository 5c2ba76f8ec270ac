"""A dataset in two, so that no passage stands on both sides.

Rows that share a passage, nearly or exactly, or that ask the same, belong to one group; groups are
joined where a row belongs to two. A group goes to one side as a whole.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from loracle.data.audit.leakage import (
    MIN_OPEN_QUESTION_WEIGHT,
    PASSAGE_THRESHOLD,
    QUESTION_THRESHOLD,
)
from loracle.data.audit.near import near_texts
from loracle.data.audit.rows import AuditedSet
from loracle.errors import DataError
from loracle.text import counted


@dataclass(frozen=True)
class PassageSplit:
    """Row indices of the two sides, in the dataset's order.

    num_groups, num_held_groups: groups in all, and held out. largest_group: rows of the largest.
    """

    kept: list[int]
    held_out: list[int]
    num_groups: int
    num_held_groups: int
    largest_group: int


def split(dataset: AuditedSet, share: float, seed: int) -> PassageSplit:
    """Hold out about `share` of the rows, by group.

    Groups come in an order drawn from `seed`; one is held out where that brings the held rows
    nearer to the share. The same dataset, share and seed give the same split.

    Raises:
        DataError: the groups are too large to be split so that both sides have rows.
    """
    groups = row_groups(dataset)
    sizes = np.bincount(groups)
    held = drawn_groups(sizes[:, None], share, seed)
    if not held.any() or held.all():
        raise DataError(
            f"{dataset.name}: cannot hold out {share:.0%} of {counted(len(groups), 'row')} by "
            f"passage: found {counted(len(sizes), 'group')} of rows that share one, the largest of "
            f"{counted(int(sizes.max()), 'row')}; choose another share, or give a set of its own"
        )
    out = held[groups]
    return PassageSplit(
        np.flatnonzero(~out).tolist(),
        np.flatnonzero(out).tolist(),
        len(sizes),
        int(held.sum()),
        int(sizes.max()),
    )


def drawn_groups(num_rows: npt.NDArray[np.int64], share: float, seed: int) -> npt.NDArray[np.bool_]:
    """Which groups to hold out, shape (groups,).

    num_rows: the rows of every group in every part of the data, shape (groups, parts). Groups come
    in an order drawn from `seed`; one is held out where that brings the parts' held shares, all
    together, nearer to `share`.
    """
    totals = np.maximum(num_rows.sum(axis=0), 1)
    held = np.zeros(len(num_rows), np.bool_)
    num_held = np.zeros_like(totals)
    distance = float(np.abs(num_held / totals - share).sum())
    for group in np.random.default_rng(seed).permutation(len(num_rows)):
        with_group = num_held + num_rows[group]
        nearer = float(np.abs(with_group / totals - share).sum())
        if nearer < distance:
            held[group], num_held, distance = True, with_group, nearer
    return held


def row_groups(dataset: AuditedSet) -> npt.NDArray[np.int64]:
    """The group of every row, shape (rows,), numbered by their first rows."""
    parents = list(range(dataset.num_rows))

    def root(row: int) -> int:
        while parents[row] != row:
            parents[row] = parents[parents[row]]
            row = parents[row]
        return row

    for rows in _belonging_together(dataset):
        first = root(rows[0])
        for row in rows[1:]:
            other = root(row)
            first, other = min(first, other), max(first, other)
            parents[other] = first
    _, numbers = np.unique([root(row) for row in range(len(parents))], return_inverse=True)
    return numbers.astype(np.int64)


def _belonging_together(dataset: AuditedSet) -> Iterable[Sequence[int]]:
    yield from dataset.rows_of_unit.several()
    yield from dataset.rows_of_prompt.several()
    by_name: dict[str, list[int]] = defaultdict(list)
    for row, example in enumerate(dataset.examples):
        if example.group is not None:
            by_name[example.group].append(row)
    yield from by_name.values()
    alone, units = dataset.rows_without_passage, dataset.rows_of_unit
    yield from alone.several()
    for pair in near_texts(dataset.unit_texts, PASSAGE_THRESHOLD).pairs:
        yield [units[pair.left][0], units[pair.right][0]]
    weights = dataset.texts.weights(dataset.lone_questions.ids)
    for pair in near_texts(dataset.lone_questions, QUESTION_THRESHOLD).pairs:
        left, right = alone[pair.left], alone[pair.right]
        if weights[pair.left] >= MIN_OPEN_QUESTION_WEIGHT or _share_answer(dataset, left, right):
            yield [left[0], right[0]]


def _share_answer(dataset: AuditedSet, left: Sequence[int], right: Sequence[int]) -> bool:
    replies = dataset.rows.replies
    return not set(replies[left].tolist()).isdisjoint(replies[right].tolist())
