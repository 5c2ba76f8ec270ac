"""Examples of datasets of any size: on disk in blocks, made again when they are looked at.

    [Example] --pack--> PackedBlock --StoredExamples.add--> a Sequence[Example]

The file has no name and belongs to this process alone, so nothing of it outlives a kill.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, TypeVar, overload

import numpy as np
import numpy.typing as npt

from loracle.data.conversation import Conversation, Example, Message, ToolCall
from loracle.data.plain import as_json, of_json
from loracle.data.scratch import ScratchFile
from loracle.data.workers import Workers

I32 = npt.NDArray[np.int32]
Found = TypeVar("Found")

BLOCK_ROWS = 1024


class Measures(NamedTuple):
    """What is counted of every row, shape (rows,): characters of its turns, characters of its
    replies that are learned, and replies that are marked as not to be learned."""

    characters: I32
    supervised: I32
    unlearned: I32

    @classmethod
    def of(cls, examples: Iterable[Example]) -> Measures:
        counts = [_counts(example) for example in examples]
        return cls(*np.array(counts, np.int32).reshape(-1, 3).T)


def _counts(example: Example) -> tuple[int, int, int]:
    characters = supervised = unlearned = 0
    for turn in example.conversation.messages:
        num = len(turn.content)
        characters += num
        if turn.role == "assistant":
            if turn.weight:
                supervised += num
            else:
                unlearned += 1
    return characters, supervised, unlearned


class PackedBlock(NamedTuple):
    """Rows as bytes. sizes: of the rows, in bytes. files: the names of the rows' files.
    numbers: a row's in its reading, from 1 and counted from the block's first one; a row with
    an empty id is called by its number. digest: what whoever packed them computed of them."""

    content: bytes
    sizes: I32
    files: list[str]
    numbers: I32
    measures: Measures
    digest: bytes = b""


def pack(examples: Sequence[Example], numbers: Sequence[int]) -> PackedBlock:
    """Rows as bytes, each as JSON."""
    files: dict[str, int] = {}
    rows = [as_json(_packed(example, files)) for example in examples]
    return PackedBlock(
        b"".join(rows),
        np.array([len(row) for row in rows], np.int32),
        list(files),
        np.array(numbers, np.int32),
        Measures.of(examples),
    )


def _packed(example: Example, files: dict[str, int]) -> Any:
    conversation = example.conversation
    return (
        example.id,
        tuple(map(_packed_turn, conversation.messages)),
        conversation.tools,
        example.answers,
        files.setdefault(example.file, len(files)),
        example.line,
        example.context,
        example.question,
        example.group,
    )


def _packed_turn(turn: Message) -> tuple[Any, ...]:
    rest = (turn.reasoning, turn.tool_call_id, turn.name)
    if turn.weight == 1 and not turn.tool_calls and rest == (None, None, None):
        return (turn.role, turn.content)
    calls = tuple((call.name, call.arguments, call.id) for call in turn.tool_calls)
    return (turn.role, turn.content, calls, *rest, turn.weight)


def _turn(packed: Sequence[Any]) -> Message:
    if len(packed) == 2:
        return Message(*packed)
    role, content, calls, *rest = packed
    return Message(role, content, tuple(ToolCall(*call) for call in calls), *rest)


class Packed(NamedTuple):
    """A block to be unpacked. names: for rows without an id of their own."""

    content: bytes
    sizes: I32
    files: list[str]
    names: list[str]


class PackedBlocks:
    """Blocks that are read when they are unpacked, or when they go to another process; each is
    given up once it was unpacked."""

    def __init__(self, blocks: Iterable[Callable[[], Packed]]) -> None:
        self._blocks = deque(blocks)

    def as_plain(self) -> tuple[Packed, ...]:
        """The blocks' content."""
        return tuple(read() for read in self._blocks)

    @classmethod
    def of_plain(cls, *blocks: Packed) -> PackedBlocks:
        """Blocks that are in memory."""
        return cls([partial(_itself, block) for block in blocks])

    def __iter__(self) -> Iterator[Example]:
        while self._blocks:
            yield from unpack(self._blocks.popleft()())


def _itself(block: Packed) -> Packed:
    return block


def unpack(block: Packed) -> Iterator[Example]:
    """The rows of a block."""
    start = 0
    for size, name in zip(block.sizes.tolist(), block.names, strict=True):
        yield _example(block.content[start : start + size], block.files, name)
        start += size


def _example(content: bytes, files: Sequence[str], name: str) -> Example:
    identifier, turns, tools, answers, file, *rest = of_json(content)
    conversation = Conversation(tuple(map(_turn, turns)), tuple(tools))
    return Example(identifier or name, conversation, tuple(answers), files[file], *rest)


class _Block(NamedTuple):
    """Where a block lies, and how many rows of the reading came before it."""

    position: int
    sizes: I32
    files: list[str]
    num_before: int
    numbers: I32
    digest_bytes: int


class StoredExamples(Sequence[Example]):
    """Examples on disk. stem: how rows without an id are called, STEM-N. data_bytes: about what
    their files hold."""

    def __init__(self, stem: str, data_bytes: int = 0) -> None:
        self._stem = stem
        self.data_bytes = data_bytes
        self._file = ScratchFile(data_bytes)
        # A thread that hands blocks to another process reads them beside this one.
        self._lock = threading.Lock()
        self._blocks: list[_Block] = []
        self._measures: list[Measures] = []
        self._bases = [0]
        self._num_bytes = 0

    @classmethod
    def of(cls, examples: Iterable[Example], data_bytes: int = 0) -> StoredExamples:
        """Store examples that have their ids."""
        stored = cls("", data_bytes)
        rows = iter(examples)
        while block := list(islice(rows, BLOCK_ROWS)):
            stored.add(pack(block, [0] * len(block)), 0)
        return stored

    def add(self, block: PackedBlock, num_before: int) -> None:
        """Add rows. num_before: how many rows of the reading came before the block."""
        if not len(block.numbers):
            return
        with self._lock:
            self._file.append(block.content, block.digest)
        self._blocks.append(
            _Block(
                self._num_bytes,
                block.sizes,
                block.files,
                num_before,
                block.numbers,
                len(block.digest),
            )
        )
        self._measures.append(block.measures)
        self._num_bytes += len(block.content) + len(block.digest)
        self._bases.append(self._bases[-1] + len(block.numbers))

    @property
    def measures(self) -> Measures:
        """What is counted of every row."""
        columns = zip(*self._measures, strict=True) if self._measures else ()
        return Measures(*map(np.concatenate, columns)) if columns else Measures.of(())

    def first_blocks(self, num_characters: int) -> PackedBlocks:
        """The blocks of the first rows, which have so many characters together, if there are."""
        num = 0
        for measures in self._measures:
            if num_characters <= 0:
                break
            num += 1
            num_characters -= int(measures.characters.sum())
        return PackedBlocks([partial(self._packed, block) for block in self._blocks[:num]])

    @property
    def digests(self) -> Iterator[bytes] | None:
        """The blocks' digests, in order; None if there are none."""
        if not self._blocks or not all(block.digest_bytes for block in self._blocks):
            return None
        return map(self._digest, self._blocks)

    def _digest(self, block: _Block) -> bytes:
        return self._read(block.position + int(block.sizes.sum()), block.digest_bytes)

    def _read(self, position: int, num_bytes: int) -> bytes:
        with self._lock:
            return self._file.read(position, num_bytes)

    def contents(self, rename: Callable[[str], str]) -> Iterator[bytes]:
        """All that the rows are made of, block by block, their files under other names."""
        for block in self._blocks:
            found = self._packed(block)
            yield found.content
            yield as_json([found.sizes.tolist(), [*map(rename, found.files)], found.names])

    def mapped(
        self, function: Callable[[list[Example]], Found], workers: Workers
    ) -> Iterator[Found]:
        """What the function returns for every block, in order."""
        tasks = ((function, self._packed(block)) for block in self._blocks)
        return workers.map(_of_block, tasks)

    def __len__(self) -> int:
        return self._bases[-1]

    def __iter__(self) -> Iterator[Example]:
        for block in self._blocks:
            yield from unpack(self._packed(block))

    @overload
    def __getitem__(self, place: int) -> Example: ...
    @overload
    def __getitem__(self, place: slice) -> list[Example]: ...
    def __getitem__(self, place: int | slice) -> Example | list[Example]:
        if isinstance(place, slice):
            return [self[row] for row in range(*place.indices(len(self)))]
        row = place + len(self) if place < 0 else place
        if not 0 <= row < len(self):
            raise IndexError(place)
        number = bisect_right(self._bases, row) - 1
        block, at = self._blocks[number], row - self._bases[number]
        content = self._read(block.position + int(block.sizes[:at].sum()), int(block.sizes[at]))
        return _example(content, block.files, self._name(block, int(block.numbers[at])))

    def _packed(self, block: _Block) -> Packed:
        content = self._read(block.position, int(block.sizes.sum()))
        names = [self._name(block, number) for number in block.numbers.tolist()]
        return Packed(content, block.sizes, block.files, names)

    def _name(self, block: _Block, number: int) -> str:
        return f"{self._stem}-{block.num_before + number}"


def _of_block(task: tuple[Callable[[list[Example]], Found], Packed]) -> Found:
    function, block = task
    return function(list(unpack(block)))


def measures_of(examples: Sequence[Example]) -> Measures:
    """What is counted of every row."""
    return examples.measures if isinstance(examples, StoredExamples) else Measures.of(examples)


def contents_of(examples: Sequence[Example], rename: Callable[[str], str] = str) -> Iterator[bytes]:
    """All that the rows are made of, as bytes to be hashed. rename: of their files."""
    if isinstance(examples, StoredExamples):
        yield from examples.contents(rename)
        return
    files: dict[str, int] = {}
    for example in examples:
        yield as_json(_packed(example, files))
    yield as_json([*map(rename, files)])
