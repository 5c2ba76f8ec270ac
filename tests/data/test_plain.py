"""What is packed as plain bytes comes back as it was, and nothing else can be packed or built."""

from __future__ import annotations

import io
import math
from collections import Counter
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from loracle.data import plain
from loracle.data.audit.facts import Facts, facts_of
from loracle.data.conversation import Message, ToolCall
from loracle.data.faults import Fault, Reason
from loracle.data.reading.formats import format_named
from loracle.data.reading.notes import NoteKind, Notes
from loracle.data.reading.options import ReadOptions
from loracle.errors import DataError, StorageError


def again(value: object) -> Any:
    return plain.unpacked(plain.packed(value))


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -(2**70),
        0.1,
        math.inf,
        "天气 \ud83d alone, \ud83d\ude00 a pair of halves, \u2028",
        b"\x00\xff",
        [],
        [1, [2, (3, "a")]],
        ("list", 1),
        {"a": {1, 2}, 3: frozenset({"b"})},
        {("a", None): [b"one", b"two"]},
        Counter({("a", "b"): 2}),
        Path("a/b.jsonl"),
        math.sqrt,
        facts_of,
        Fault(Reason.ROLE, "x"),
        ReadOptions(columns={"question": "q"}),
        Message("assistant", "", (ToolCall("f", {"x": [1, None]}),), weight=0.0),
        format_named("squad"),
    ],
)
def test_a_value_comes_back_with_its_types(value: object) -> None:
    found = again(value)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("dtype", ["u8", "i4", "f4", "?", ">i2"])
def test_an_array_comes_back_and_can_be_written(dtype: str) -> None:
    array = np.arange(12).reshape(3, 4).astype(dtype)
    for value in (array, array.T, array[:0], array[::2]):
        found = again([value, "behind"])[0]
        np.testing.assert_array_equal(found, value)
        assert found.dtype == value.dtype
        found[...] = 0


def test_objects_come_back_by_their_attributes() -> None:
    notes = Notes()
    notes.add(NoteKind("kind", "kinds"), "a.jsonl:1", "detail", "outcome", is_warning=True)
    assert [str(note) for note in again(notes)] == [str(note) for note in notes]
    assert again(MappingProxyType({"a": 1})) == {"a": 1}
    assert again(partial(math.pow, 2))(3) == 8
    facts = again(facts_of([]))
    assert type(facts) is Facts


@pytest.mark.parametrize(
    "error",
    [
        DataError(["one", "two"]),
        StorageError("full", is_passing=True),
        ValueError("math domain error"),
        FileNotFoundError(2, "No such file", "a.jsonl"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
    ],
)
def test_errors_come_back_with_their_message(error: Exception) -> None:
    found = again(error)
    assert type(found) is type(error)
    assert str(found) == str(error)
    assert getattr(found, "is_passing", None) == getattr(error, "is_passing", None)


def test_an_error_of_another_library_comes_back_by_its_name() -> None:
    found = again(np.exceptions.AxisError("axis 2"))
    assert type(found) is RuntimeError
    assert str(found) == "AxisError: axis 2"


class NotOfLoracle:
    pass


@pytest.mark.parametrize("value", [NotOfLoracle(), lambda: 0, math, np.array([None]), 1j])
def test_what_cannot_be_packed_is_refused_before_a_byte_is_written(value: object) -> None:
    with pytest.raises(TypeError, match="cannot be packed"):
        plain.parts_of(["before", value])


def test_bytes_build_no_class_of_another_program() -> None:
    tree = ["object", "subprocess:Popen", ["dict"]]
    content = plain.as_json([tree, []])
    with pytest.raises(ValueError, match="no class of Loracle"):
        plain.unpacked(len(content).to_bytes(8, "little") + content)


def test_a_stream_that_ends_early_is_told() -> None:
    content = plain.packed([np.arange(5), b"abc"])
    for end in (0, 3, 10, len(content) - 20, len(content) - 1):
        with pytest.raises(EOFError):
            plain.read(io.BytesIO(content[:end]))


def test_values_follow_each_other_in_a_stream() -> None:
    stream = io.BytesIO()
    for value in (b"a" * 100_000, {"b": np.arange(3)}, "c"):
        plain.parts_of(value).write(stream)
    stream.seek(0)
    assert plain.read(stream) == b"a" * 100_000
    assert plain.read(stream)["b"].tolist() == [0, 1, 2]
    assert plain.read(stream) == "c"
