"""Examples from what lies on disk, with an account of every row.

    location --locations--> files --containers--> Row --a Format--> RowContent --> Example or Drop

A row becomes examples or a Drop with its reason; nothing else can happen to it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from loracle.data.conversation import Conversation, Example
from loracle.data.faults import Fault, Faults, Reason, kind_of
from loracle.data.reading import cells
from loracle.data.reading.containers import open_file
from loracle.data.reading.fields import FieldAccount, FieldUse
from loracle.data.reading.formats import (
    Format,
    ambiguous,
    expected_forms,
    format_named,
    formats_of,
    no_format,
    renamed,
)
from loracle.data.reading.identity import Identities
from loracle.data.reading.locations import Source, resolve
from loracle.data.reading.marks import marked, row_marks
from loracle.data.reading.notes import Note, Notes
from loracle.data.reading.options import ReadOptions
from loracle.data.reading.row_content import RowContent
from loracle.data.reading.rows import Row
from loracle.errors import DataError

NUM_SHOWN_PROBLEMS = 20
NUM_SHOWN_UNDECODED = 3


@dataclass(frozen=True, slots=True)
class Drop:
    """A row that is not used. The first fault is its reason.

    by_policy: the user asked for it; it is counted, and nothing is wrong with the row.
    """

    file: str
    line: int
    faults: tuple[Fault, ...]
    by_policy: bool = False

    @property
    def reason(self) -> Reason:
        return self.faults[0].reason

    @property
    def problems(self) -> list[str]:
        """Its messages, each with file and line."""
        return [f"{self.file}:{self.line}: {fault.text}" for fault in self.faults]


@dataclass(frozen=True)
class Dataset:
    """What reading gave.

    format, container, encoding: as detected or as named; encoding is None in binary files.
    num_rows: rows read, questions in SQuAD's form; examples and drops together.
    num_unanswerable: examples whose reply says that there is no answer.
    ignored: files in the folder that are not data.
    fields: what every column is used as, or that it is not used. notes: what was done with rows
        that stay.
    """

    location: str
    container: str
    encoding: str | None
    format: str
    examples: list[Example]
    drops: tuple[Drop, ...]
    num_rows: int
    num_unanswerable: int
    files: tuple[Path, ...]
    ignored: tuple[Path, ...]
    fields: tuple[FieldUse, ...] = ()
    notes: tuple[Note, ...] = ()

    @property
    def num_dropped(self) -> dict[str, int]:
        """Dropped rows by reason, most first."""
        return dict(Counter(str(drop.reason) for drop in self.drops).most_common())

    @property
    def description(self) -> str:
        """One line that says what was found: "889 rows of messages, JSON"."""
        encoding = "" if self.encoding in (None, "utf-8") else f", {self.encoding}"
        parts = [f"{self.num_rows:,} rows of {self.format}, {self.container}{encoding}"]
        if self.drops:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.num_dropped.items())
            parts.append(f"{len(self.drops):,} dropped ({reasons})")
        if self.num_unanswerable:
            parts.append(
                f"{self.num_unanswerable:,} unanswerable questions kept, with the unanswerable "
                "reply"
            )
        if self.ignored:
            parts.append(f"{len(self.ignored)} other files not read")
        return "; ".join(parts)


class Reading:
    """One pass over a dataset: iterate once, and the account grows with the rows.

    At any time one row is held, and at most 64 bytes for the id of every row; a file may be
    larger than memory. Raises DataError where a file cannot be read on, holds rows of two forms,
    or has no row at all.
    """

    def __init__(self, location: str | Path, options: ReadOptions | None = None) -> None:
        self.source: Source = resolve(location, options or ReadOptions())
        self.options = self.source.options
        self.format: Format | None = (
            None if self.options.format is None else format_named(self.options.format)
        )
        self.containers: Counter[str] = Counter()
        self.encodings: set[str] = set()
        self.drops: list[Drop] = []
        self.num_rows = 0
        self.num_unanswerable = 0
        self.fields = FieldAccount(self.options)
        self.notes = Notes()
        self._format_from: str | None = None
        self._identities = Identities(self.source.stem, self.notes)

    def __iter__(self) -> Iterator[Example]:
        assert self.num_rows == 0, "a reading is one pass; make another for a second one"
        for row in islice(self._flat_rows(), self.options.limit):
            self.num_rows += 1
            example = self._example(row)
            if example is not None:
                yield example
        if self.num_rows == 0:
            place = f"{self.source.files[0]}:1" if not self.source.kind else self.source.location
            raise DataError(f"{place}: found no rows; expected {expected_forms()}")
        self.check_fields(is_whole=self.options.limit is None)

    def check_fields(self, *, is_whole: bool) -> None:
        """Raise DataError where the rows so far have columns that would be lost, or lack one that
        the user names."""
        if problems := self.fields.problems(self.source.location, is_whole=is_whole):
            raise DataError(problems)

    @property
    def container(self) -> str:
        """What the files are, as it is shown: "folder of 3 files: Parquet"."""
        kinds = ", ".join(self.containers)
        if not self.source.kind:
            return kinds
        count = len(self.source.files)
        return f"{self.source.kind} of {count} {'file' if count == 1 else 'files'}: {kinds}"

    def account(self, examples: list[Example]) -> Dataset:
        """What was read so far, with the examples that the caller kept of it."""
        return Dataset(
            location=self.source.location,
            container=self.container,
            encoding=", ".join(sorted(self.encodings)) or None,
            format="unknown" if self.format is None else self.format.name,
            examples=examples,
            drops=tuple(self.drops),
            num_rows=self.num_rows,
            num_unanswerable=self.num_unanswerable,
            files=self.source.files,
            ignored=self.source.ignored,
            fields=self.fields.uses,
            notes=tuple(self.notes),
        )

    def _flat_rows(self) -> Iterator[Row]:
        for path in self.source.files:
            try:
                container = open_file(path, self.options.encoding)
                self.containers[container.description] += 1
                if container.encoding is not None:
                    self.encodings.add(container.encoding)
                for row in container.rows:
                    yield from self._flattened(row._replace(file=self.source.shown(row.file)))
            except DataError as error:
                raise DataError([self.source.shown(text) for text in error.problems]) from error

    def _flattened(self, row: Row) -> Iterator[Row]:
        """The row under the names of its form's fields, as one row a question."""
        if row.faults or not isinstance(row.value, dict):
            yield row
            return
        row = row._replace(value=renamed(self.fields.kept(row.value), self.options.columns))
        self._detect(row)
        yield from (row,) if self.format is None else self.format.flat(row)

    def _detect(self, row: Row) -> None:
        """Settle the form by the first row that shows one. Raises DataError where rows differ."""
        if self.options.format is not None:
            return
        assert isinstance(row.value, dict)
        found = formats_of(row.value)
        where = f"{row.file}:{row.line}"
        if len(found) > 1:
            raise DataError(f"{where}: {ambiguous(found)}")
        if self.format is None and found:
            self.format, self._format_from = found[0], where
        elif found and found[0] is not self.format:
            assert self.format is not None
            raise DataError(
                f"{where}: found a {found[0].name} row, but the rows from {self._format_from} on "
                f"are {self.format.name}; put each form into a separate file, or name the form to "
                f"use, format: {self.format.name}"
            )

    def _example(self, row: Row) -> Example | None:
        """The row as an example, or None where it is dropped."""
        faults = Faults(row.faults)
        content = None if faults else self._content(row, faults)
        by_policy = False
        if not faults and content is not None:
            by_policy = self._add_policy_faults(content, faults)
        if faults:
            self.drops.append(Drop(row.file, row.line, tuple(faults), by_policy))
            return None
        assert content is not None
        assert isinstance(row.value, dict)
        where = f"{row.file}:{row.line}"
        return Example(
            self._identities.id_of(row.value, self.num_rows, where),
            Conversation(content.messages, content.tools),
            content.answers,
            row.file,
            row.line,
            content.context,
            content.question,
            self._identities.group_of(row.value, where),
        )

    def _content(self, row: Row, faults: Faults) -> RowContent | None:
        value = row.value
        if not isinstance(value, dict):
            faults.add(Reason.WRONG_KIND, f"found {kind_of(value)}; expected {expected_forms()}")
            return None
        if self.format is None:
            self.fields.check(value, None, {}, faults)
            if not faults:
                no_format(value, faults, self.options)
            return None
        where = f"{row.file}:{row.line}"
        named, found = self.format.named(value)
        self.fields.check(value, self.format, found, faults)
        if row.is_cells:
            named = cells.with_lists(named, faults, self.notes, where)
            cells.note_words(value, self.notes, where)
        marks = row_marks(value, faults, kto=self.format.name != "choice")
        if faults:
            return None
        content = self.format.parse(named, faults, self.options)
        if faults:
            return None
        content = content._replace(messages=marked(content.messages, marks, faults))
        self.fields.add(value, self.format, found, content, where)
        return content

    def _add_policy_faults(self, content: RowContent, faults: Faults) -> bool:
        """Add a fault where the row is not to be used; whether the user asked for that."""
        if content.is_unanswerable:
            by_policy = self.options.unanswerable == "drop"
            faults += self._unanswerable(by_policy=by_policy)
            return by_policy
        if not any(turn.weight for turn in content.messages if turn.role == "assistant"):
            faults.add(Reason.MARK, "the row excludes every reply from the loss")
            return True
        return False

    def _unanswerable(self, *, by_policy: bool) -> list[Fault]:
        if self.options.unanswerable == "answer":
            self.num_unanswerable += 1
            return []
        text = "the question is marked as having no answer"
        advice = "" if by_policy else "; leave it out, or set unanswerable to answer or drop"
        return [Fault(Reason.UNANSWERABLE, f"{text}{advice}")]


def read_dataset(
    location: str | Path, options: ReadOptions | None = None, *, strict: bool = False
) -> Dataset:
    """Read a dataset and account for every row: what cannot be used is in `drops`.

    strict: no row may be dropped, but by policy.

    Raises DataError where it cannot be read at all: a missing or damaged file, no rows, rows of
    two forms, or rows that are all of no known form; where strict, also for rows that cannot be
    used, each with file:line, the first 20 problems in words.
    """
    reading = Reading(location, options)
    examples = _all_examples(reading)
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
    return dataset.examples


def _all_examples(reading: Reading) -> list[Example]:
    try:
        return list(reading)
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
