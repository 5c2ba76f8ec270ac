"""Examples from what lies on disk, with an account of every row: datasets read as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from loracle.data.conversation import Example
from loracle.data.faults import Reason
from loracle.data.reading.locations import Source
from loracle.data.reading.one_pass import Dataset, Drop, Reading
from loracle.data.reading.options import ReadOptions
from loracle.data.reading.pooled import Digest, read_in_blocks
from loracle.data.stored import StoredExamples
from loracle.data.workers import ALONE, Workers
from loracle.errors import DataError
from loracle.plan import COMPRESSION_ENDINGS

__all__ = ["Dataset", "Drop", "Reading", "read_dataset", "read_examples"]

NUM_SHOWN_PROBLEMS = 20
NUM_SHOWN_UNDECODED = 3
MIN_STORED_BYTES = 24 << 20
"""A smaller dataset is read row by row and stays in memory."""
_PACKED_TIMES = 4
"""A compressed file is taken for so many times its size."""


def read_dataset(
    location: str | Path,
    options: ReadOptions | None = None,
    *,
    strict: bool = False,
    workers: Workers = ALONE,
    digest: Digest | None = None,
) -> Dataset:
    """Read a dataset and account for every row: what cannot be used is in `drops`.

    strict: no row may be dropped, but by policy.
    workers: read the blocks of a large file. digest: computed of them on the way (see pooled.py).

    Raises DataError where it cannot be read at all: a missing or damaged file, no rows, rows of
    two forms, or rows that are all of no known form; where strict, also for rows that cannot be
    used, each with file:line, the first 20 problems in words.
    """
    reading, examples = _read(location, options, workers, digest)
    refused = strict and any(not drop.by_policy for drop in reading.drops)
    if reading.format is None or refused:
        raise _error(reading)
    return reading.account(examples)


def read_examples(
    path: str | Path, *, limit: int | None = None, options: ReadOptions | None = None
) -> list[Example]:
    """Read all examples of a dataset, or the first `limit` rows; none is left out.

    Rows without an `id` are called `STEM-N`, N being the row's number from 1.

    Raises DataError as `read_dataset` does where strict. Rows behind the limit are not looked at.
    """
    assert limit is None or limit > 0, "a plan's limit is positive"
    options = options or ReadOptions()
    if limit is not None:
        options = replace(options, limit=limit)
    dataset = read_dataset(path, options, strict=True)
    if not dataset.examples:
        only = set(dataset.num_dropped) <= {str(Reason.UNANSWERABLE)}
        what = "unanswerable: drop" if only else "the rows' own marks"
        raise DataError(f"{path}: {what} left out every row; no row remains")
    return list(dataset.examples)


def num_bytes_of(source: Source) -> int:
    """About how much text a dataset's files hold."""
    return sum(
        path.stat().st_size * (_PACKED_TIMES if path.suffix in COMPRESSION_ENDINGS else 1)
        for path in source.files
        if path.is_file()
    )


def _read(
    location: str | Path,
    options: ReadOptions | None,
    workers: Workers,
    digest: Digest | None,
) -> tuple[Reading, Sequence[Example]]:
    """All rows: of a large dataset by blocks where its files allow it, and then kept on disk."""
    reading = Reading(location, options)
    total_bytes = num_bytes_of(reading.source)
    if total_bytes < MIN_STORED_BYTES:
        return reading, _all_examples(reading, list)
    stored = read_in_blocks(reading, workers, digest, total_bytes)
    if stored is None:
        reading = Reading(reading.source)
        return reading, _all_examples(reading, lambda rows: StoredExamples.of(rows, total_bytes))
    return reading, _all_examples(reading, lambda reading: _ended(reading, stored))


def _ended(reading: Reading, examples: Sequence[Example]) -> Sequence[Example]:
    reading.end()
    return examples


def _all_examples(
    reading: Reading, collect: Callable[[Reading], Sequence[Example]]
) -> Sequence[Example]:
    try:
        return collect(reading)
    except DataError as error:
        lost = reading.fields.problems(reading.source.location, is_whole=True)
        if lost and list(error.problems) == lost:
            # What to do about columns stands first: rows may be dropped for it.
            raise _error(reading, first=lost) from error
        if not reading.drops:
            raise
        raise _error(reading, error.problems) from error


def _error(reading: Reading, last: Iterable[str] = (), first: Iterable[str] = ()) -> DataError:
    """What is said first, the rows' problems, the first ones in words, what ended the reading."""
    lost = [drop for drop in reading.drops if not drop.by_policy]
    # A wrong encoding breaks most lines of a file in the same way: a few of them say it all.
    undecoded = [drop for drop in lost if drop.reason == Reason.BAD_ENCODING]
    left_out = {(drop.file, drop.line) for drop in undecoded[NUM_SHOWN_UNDECODED:]}
    shown_drops = [drop for drop in lost if (drop.file, drop.line) not in left_out]
    problems = [problem for drop in shown_drops for problem in drop.problems]
    shown = problems[:NUM_SHOWN_PROBLEMS]
    location = reading.source.location
    if left_out:
        shown.append(f"{location}: and {len(left_out):,} more rows {Reason.BAD_ENCODING}")
    if len(problems) > NUM_SHOWN_PROBLEMS:
        shown.append(f"{location}: and {len(problems) - NUM_SHOWN_PROBLEMS} more")
    return DataError([*first, *shown, *last])
