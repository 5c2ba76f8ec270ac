"""Files of JSON lines read in blocks, by several processes at once: what comes out, notes and
faults included, is what reading them row by row gives.

    bytes --_blocks--> Block --read_block--> Part --Reading.take--> StoredExamples

Whatever depends on other blocks (a file that turns out to hold two forms, ids that repeat, a file
that cannot be read on) ends the attempt: such files are read row by row, which says what is wrong
with them and where.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from loracle.data.conversation import Example
from loracle.data.following import Reached, tell
from loracle.data.reading.identity import OwnIdentities
from loracle.data.reading.json_rows import rows_of_lines
from loracle.data.reading.locations import Source
from loracle.data.reading.one_pass import Counts, Form, Reading
from loracle.data.reading.rows import MAX_ROW_BYTES
from loracle.data.reading.text_files import Line, TextFile, decoded
from loracle.data.stored import PackedBlock, StoredExamples, pack
from loracle.data.workers import Workers
from loracle.errors import DataError

BLOCK_BYTES = 1 << 20

Digest = Callable[[list[Example]], bytes]
"""What is computed of every block of rows where it is read; a function that can be imported."""


class Block(NamedTuple):
    """Whole lines of a file. line: the number of the first one. is_start, is_end: nothing stands
    before it, or behind it. digest: what else is computed of the rows. form: that of the rows
    before."""

    source: Source
    file: TextFile
    content: bytes
    line: int
    is_start: bool
    is_end: bool
    digest: Digest | None
    form: Form | None = None


class Part(NamedTuple):
    """What reading a block gave. own_ids: hashes of the ids that rows bring. has_made_like: one of
    them is like those that are made for rows without."""

    examples: PackedBlock
    own_ids: npt.NDArray[np.uint64]
    has_made_like: bool
    counts: Counts
    num_bytes: int


class _NotInBlocksError(Exception):
    """The dataset has to be read row by row."""


def read_in_blocks(
    reading: Reading, workers: Workers, digest: Digest | None = None, total_bytes: int = 0
) -> StoredExamples | None:
    """Read all rows, the account going to `reading`; None where that has to be done row by row,
    by another reading.

    total_bytes: about what the files hold, for whoever follows.
    """
    if reading.options.limit is not None:
        return None
    stored = StoredExamples(reading.source.stem, total_bytes)
    try:
        _read(reading, workers, stored, digest, total_bytes)
    except (_NotInBlocksError, DataError):
        return None
    return stored


def _read(
    reading: Reading,
    workers: Workers,
    stored: StoredExamples,
    digest: Digest | None,
    total_bytes: int,
) -> None:
    own_ids, num_bytes = [], 0
    has_made_like = False
    for part in _parts(reading, workers, digest):
        own_ids.append(part.own_ids)
        has_made_like |= part.has_made_like
        stored.add(part.examples, reading.num_rows)
        reading.take(part.counts)
        num_bytes += part.num_bytes
        tell(Reached("reading", reading.source.stem, reading.num_rows, num_bytes, total_bytes))
        if reading.fields.has_many_shapes:
            raise _NotInBlocksError
    ids = np.sort(np.concatenate([np.empty(0, np.uint64), *own_ids]))
    if (ids[1:] == ids[:-1]).any() or (has_made_like and len(ids) < len(stored)):
        raise _NotInBlocksError


def _parts(reading: Reading, workers: Workers, digest: Digest | None) -> Iterator[Part]:
    """What the blocks give, in order. The first one settles the form, before there are several
    readers."""
    blocks = _blocks(reading, digest)
    first = next(blocks, None)
    if first is None:
        return
    part = read_block(first)
    form = part.counts.form
    if form is None and reading.options.format is None:
        raise _NotInBlocksError
    following = (block._replace(form=form) for block in blocks)
    yield from chain([part], workers.map(read_block, following))


def _blocks(reading: Reading, digest: Digest | None) -> Iterator[Block]:
    for path in reading.source.files:
        file = reading.opened(path).lines
        if file is None:
            raise _NotInBlocksError
        yield from _blocks_of(reading.source, file, digest)


def _blocks_of(source: Source, file: TextFile, digest: Digest | None) -> Iterator[Block]:
    """A file's lines. Each block waits for the next one, which says whether it is the last."""
    with file.open() as content:
        line = 1
        waiting: Block | None = None
        rest = b""
        while data := content.read(BLOCK_BYTES):
            rest += data
            cut = rest.rfind(b"\n") + 1
            if not cut and len(rest) > MAX_ROW_BYTES:
                raise _NotInBlocksError
            if cut:
                if waiting is not None:
                    yield waiting
                waiting = Block(source, file, rest[:cut], line, waiting is None, False, digest)
                line += waiting.content.count(b"\n")
                rest = rest[cut:]
        if waiting is not None:
            yield waiting._replace(is_end=not rest)
        if rest:
            yield Block(source, file, rest, line, waiting is None, True, digest)


def read_block(block: Block) -> Part:
    """The rows of a block."""
    reading = Reading(block.source, form=block.form)
    identities = OwnIdentities(block.source.stem, reading.notes)
    rows = rows_of_lines(
        block.file,
        block.source.shown(str(block.file.path)),
        _lines(block),
        is_start=block.is_start,
        is_end=block.is_end,
    )
    examples, numbers = [], []
    for example in reading.part(rows, identities):
        examples.append(example)
        numbers.append(reading.num_rows)
    packed = pack(examples, numbers)
    if block.digest is not None and examples:
        packed = packed._replace(digest=block.digest(examples))
    return Part(
        packed,
        np.array(identities.hashes, np.uint64),
        identities.has_made_like,
        reading.counts,
        len(block.content),
    )


def _lines(block: Block) -> Iterator[Line]:
    lines = block.content.removesuffix(b"\n").split(b"\n")
    return (decoded(number, raw) for number, raw in enumerate(lines, block.line))
