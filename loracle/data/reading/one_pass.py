"""One pass over a dataset, with an account of every row.

    location --locations--> files --containers--> Row --a Format--> RowContent --> Example or Drop

A row becomes examples or a Drop with its reason; nothing else can happen to it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from loracle.data.conversation import Conversation, Example
from loracle.data.faults import Fault, Faults, Reason, kind_of
from loracle.data.reading import cells
from loracle.data.reading.containers import Container, open_file
from loracle.data.reading.doubtful_text import note_doubtful_label, note_doubtful_text
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
from loracle.text import counted


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
    examples: Sequence[Example]
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
        parts = [f"{counted(self.num_rows, 'row')} of {self.format}, {self.container}{encoding}"]
        if self.drops:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.num_dropped.items())
            parts.append(f"{len(self.drops):,} dropped ({reasons})")
        if self.num_unanswerable:
            parts.append(
                f"{counted(self.num_unanswerable, 'unanswerable question')} kept, with the "
                "unanswerable "
                "reply"
            )
        if self.ignored:
            parts.append(f"{len(self.ignored)} other files not read")
        return "; ".join(parts)


class Form(NamedTuple):
    """The form of a dataset's rows, and the first row that showed it, as file:line."""

    format: Format
    where: str


class Counts(NamedTuple):
    """What a reading has counted. form: None until a row has shown one, or if it was named."""

    num_rows: int
    num_unanswerable: int
    drops: list[Drop]
    fields: FieldAccount
    notes: Notes
    form: Form | None


class Reading:
    """One pass over a dataset: iterate once, and the account grows with the rows.

    At any time one row is held, and at most 64 bytes for the id of every row; a file may be
    larger than memory. Raises DataError where a file cannot be read on, holds rows of two forms,
    or has no row at all.
    """

    def __init__(
        self,
        location: str | Path | Source,
        options: ReadOptions | None = None,
        form: Form | None = None,
    ) -> None:
        """form: that of the rows before, where only a part of a dataset is read."""
        self.source: Source = (
            location
            if isinstance(location, Source)
            else resolve(location, options or ReadOptions())
        )
        self.options = self.source.options
        named = self.options.format
        self.format: Format | None = None if named is None else format_named(named)
        self.containers: Counter[str] = Counter()
        self.encodings: set[str] = set()
        self.drops: list[Drop] = []
        self.num_rows = 0
        self.num_unanswerable = 0
        self.fields = FieldAccount(self.options)
        self.notes = Notes()
        self._form = form
        if form is not None:
            self.format = form.format
        self._identities = Identities(self.source.stem, self.notes)

    def __iter__(self) -> Iterator[Example]:
        assert self.num_rows == 0, "a reading is one pass; make another for a second one"
        yield from self._examples(islice(self._flat_rows(), self.options.limit))
        self.end()

    def end(self) -> None:
        """Raise DataError where the rows that were read are none, or would lose columns."""
        if self.num_rows == 0:
            place = f"{self.source.files[0]}:1" if not self.source.kind else self.source.location
            raise DataError(f"{place}: found no rows; expected {expected_forms()}")
        self.check_fields(is_whole=self.options.limit is None)

    def part(self, rows: Iterable[Row], identities: Identities) -> Iterator[Example]:
        """The examples of some of the rows. identities: gives them their ids."""
        self._identities = identities
        return self._examples(flat for row in rows for flat in self._flattened(row))

    @property
    def counts(self) -> Counts:
        """What was counted so far."""
        return Counts(
            self.num_rows,
            self.num_unanswerable,
            self.drops,
            self.fields,
            self.notes,
            self._form,
        )

    def take(self, counts: Counts) -> None:
        """Count what another reading counted, of the rows that follow."""
        self.num_rows += counts.num_rows
        self.num_unanswerable += counts.num_unanswerable
        self.drops += counts.drops
        self.fields.take(counts.fields)
        self.notes.take(counts.notes)
        if self._form is None and counts.form is not None:
            self._form, self.format = counts.form, counts.form.format

    def _examples(self, rows: Iterable[Row]) -> Iterator[Example]:
        for row in rows:
            self.num_rows += 1
            example = self._example(row)
            if example is not None:
                yield example

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
        return f"{self.source.kind} of {counted(count, 'file')}: {kinds}"

    def account(self, examples: Sequence[Example]) -> Dataset:
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
            notes=(*self.notes, *self.fields.places.notes),
        )

    def opened(self, path: Path) -> Container:
        """One of the source's files, counted."""
        container = open_file(path, self.options.encoding)
        self.containers[container.description] += 1
        if container.encoding is not None:
            self.encodings.add(container.encoding)
        return container

    def _flat_rows(self) -> Iterator[Row]:
        for path in self.source.files:
            try:
                for row in self.opened(path).rows:
                    yield from self._flattened(row._replace(file=self.source.shown(row.file)))
            except DataError as error:
                raise DataError([self.source.shown(text) for text in error.problems]) from error

    def _flattened(self, row: Row) -> Iterator[Row]:
        """The row under the names of its form's fields, as one row a question."""
        if row.faults or not isinstance(row.value, dict):
            yield row
            return
        value = renamed(self.fields.kept(row.value), self.options.columns)
        if value is not row.value:
            row = row._replace(value=value)
        self._detect(row)
        if self.format is None:
            yield row
        else:
            yield from self.format.flat(row)

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
            self.format, self._form = found[0], Form(found[0], where)
        elif found and found[0] is not self.format:
            assert self.format is not None
            assert self._form is not None
            raise DataError(
                f"{where}: found a {found[0].name} row, but the rows from {self._form.where} on "
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
            text = f"found {kind_of(value)}"
            if isinstance(value, str) and value.lstrip().startswith("{"):
                text += " that is JSON itself, which was encoded twice: write it once"
            faults.add(Reason.WRONG_KIND, f"{text}; expected {expected_forms()}")
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
        self.fields.places.add(content.answer_place, where)
        if faults:
            return None
        content = content._replace(messages=marked(content.messages, marks, faults))
        note_doubtful_text(content.messages, self.notes, where)
        if self.format.name == "prompt_completion":
            note_doubtful_label(value, self.notes, where)
        self.fields.add(value, self.format, found, content, where)
        return content

    def _add_policy_faults(self, content: RowContent, faults: Faults) -> bool:
        """Add a fault where the row is not to be used; whether the user asked for that."""
        if content.is_unanswerable:
            by_policy = self.options.unanswerable == "drop"
            faults += self._unanswerable(by_policy=by_policy)
            return by_policy
        if not any(turn.weight for turn in content.messages if turn.role == "assistant"):
            faults.add(Reason.MARK, "the row marks every reply as not to be learned")
            return True
        return False

    def _unanswerable(self, *, by_policy: bool) -> list[Fault]:
        if self.options.unanswerable == "answer":
            self.num_unanswerable += 1
            return []
        text = "the question is marked as having no answer"
        advice = "" if by_policy else "; leave it out, or set unanswerable to answer or drop"
        return [Fault(Reason.UNANSWERABLE, f"{text}{advice}")]
