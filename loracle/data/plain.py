"""Records as plain bytes, between this program's own processes and in its nameless files.

    value --parts_of--> header: JSON that says what is where; buffers: bytes and arrays as they are

What can be packed: None, booleans, numbers, text, bytes, numpy arrays, paths, lists, tuples, sets,
dictionaries and counters; functions by name, and partial ones; errors; and what Loracle itself
defines: enumerations, NamedTuples, dataclasses and other objects by their attributes. A class
with `as_plain` and `of_plain` says itself what it is made from.

Unpacking runs nothing but `of_plain` and the constructors of Loracle's and Python's own errors.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections import Counter
from collections.abc import Callable, Mapping
from enum import Enum
from functools import partial
from importlib import import_module
from pathlib import Path, PurePath
from types import BuiltinFunctionType, FunctionType
from typing import IO, Any, NamedTuple

import numpy as np

from loracle.errors import StorageError, UserError

_LENGTH_BYTES = 8
_BARE = (type(None), bool, int, float, str)
_ENCODE = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":")).encode


class Parts(NamedTuple):
    """A packed value: a header, and what it points at."""

    header: bytes
    buffers: list[memoryview]

    def write(self, stream: IO[bytes]) -> None:
        """Straight into the stream: large values are never in memory twice."""
        stream.write(len(self.header).to_bytes(_LENGTH_BYTES, "little"))
        stream.write(self.header)
        for buffer in self.buffers:
            stream.write(buffer)


def parts_of(value: object) -> Parts:
    """Pack a value.

    Raises:
        TypeError: it holds something that cannot be packed.
    """
    buffers: list[memoryview] = []
    tree = _tree(value, buffers)
    return Parts(as_json([tree, [buffer.nbytes for buffer in buffers]]), buffers)


def read(stream: IO[bytes]) -> Any:
    """The value that was written next.

    Raises:
        EOFError: the stream ends before the value does.
        ValueError: something else stands there.
    """
    length = int.from_bytes(_read(stream, _LENGTH_BYTES), "little")
    tree, sizes = of_json(_read(stream, length))
    return _value(tree, [_Buffer(stream, size) for size in sizes])


def packed(value: object) -> bytes:
    """A value as bytes."""
    stream = io.BytesIO()
    parts_of(value).write(stream)
    return stream.getvalue()


def unpacked(content: bytes) -> Any:
    """The value that `packed` packed."""
    return read(io.BytesIO(content))


def as_json(value: object) -> bytes:
    """A JSON value as bytes; halves of surrogate pairs stay what they are."""
    return _ENCODE(value).encode("utf-8", "surrogatepass")


def of_json(content: bytes) -> Any:
    """The JSON value of these bytes."""
    return json.loads(content.decode("utf-8", "surrogatepass"))


class _Buffer:
    """The next bytes of a stream, which the header points at in their order."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self._stream = stream
        self._size = size

    def content(self) -> bytes:
        return _read(self._stream, self._size)

    def array(self, dtype: str, shape: list[int]) -> np.ndarray[Any, Any]:
        found = np.empty(shape, np.dtype(dtype))
        view = _bytes_of(found)
        assert view.nbytes == self._size
        while view.nbytes:
            num = self._stream.readinto(view)  # type: ignore[attr-defined]
            if not num:
                raise EOFError("the stream ended inside an array")
            view = view[num:]
        return found


def _bytes_of(array: np.ndarray[Any, Any]) -> memoryview:
    """The memory of an array that lies in one piece."""
    return memoryview(array.reshape(-1).view(np.uint8).data)


def _read(stream: IO[bytes], num_bytes: int) -> bytes:
    content = stream.read(num_bytes)
    if len(content) < num_bytes:
        raise EOFError(f"the stream ended after {len(content)} of {num_bytes} bytes")
    return content


_Build = Callable[[list[Any], list[_Buffer]], Any]


def _tree(value: Any, buffers: list[memoryview]) -> Any:
    """The value's JSON: itself, or a list of a tag and what the tag's builder takes."""
    kind = type(value)
    if kind in _BARE:
        return value
    if kind is bytes:
        buffers.append(memoryview(value))
        return ["bytes"]
    if kind is np.ndarray and value.dtype.kind in "biuf":
        buffers.append(_bytes_of(np.ascontiguousarray(value)))
        return ["array", value.dtype.str, list(value.shape)]
    if kind in _COLLECTIONS:
        return [kind.__name__, *[_tree(one, buffers) for one in value]]
    if kind is dict or kind is Counter:
        return [kind.__name__, *[_tree(one, buffers) for pair in value.items() for one in pair]]
    return _named_tree(value, buffers)


def _named_tree(value: Any, buffers: list[memoryview]) -> Any:
    """Of what is found by a name."""
    kind = type(value)
    if isinstance(value, PurePath):
        return ["path", str(value)]
    if isinstance(value, FunctionType | BuiltinFunctionType):
        return ["function", _name_of(value)]
    if kind is partial:
        return ["partial", *[_tree(one, buffers) for one in (value.func, *value.args)]]
    if isinstance(value, Exception):
        return ["error", *[_tree(one, buffers) for one in _error_parts(value)]]
    if not _is_own(kind.__module__):
        if isinstance(value, Mapping):
            return _tree(dict(value), buffers)
        raise TypeError(f"a {kind.__module__}.{kind.__qualname__} cannot be packed")
    if isinstance(value, Enum):
        return ["enum", _name_of(kind), value.value]
    if hasattr(value, "as_plain"):
        return ["made", _name_of(kind), *[_tree(one, buffers) for one in value.as_plain()]]
    if isinstance(value, tuple):
        return ["record", _name_of(kind), *[_tree(one, buffers) for one in value]]
    if dataclasses.is_dataclass(value):
        found: Mapping[str, Any] = {
            field.name: getattr(value, field.name) for field in dataclasses.fields(value)
        }
    else:
        found = vars(value)
    return ["object", _name_of(kind), _tree(dict(found), buffers)]


def _value(tree: Any, buffers: list[_Buffer]) -> Any:
    if type(tree) is not list:
        return tree
    return _BUILDERS[tree[0]](tree[1:], buffers)


def _values(trees: list[Any], buffers: list[_Buffer]) -> list[Any]:
    return [_value(tree, buffers) for tree in trees]


def _dict(trees: list[Any], buffers: list[_Buffer]) -> dict[Any, Any]:
    found = _values(trees, buffers)
    return dict(zip(found[::2], found[1::2], strict=True))


def _record(trees: list[Any], buffers: list[_Buffer]) -> Any:
    return tuple.__new__(_own_class(trees[0]), _values(trees[1:], buffers))


def _object(trees: list[Any], buffers: list[_Buffer]) -> Any:
    kind = _own_class(trees[0])
    made = object.__new__(kind)
    for name, value in _value(trees[1], buffers).items():
        object.__setattr__(made, name, value)
    return made


def _partial(trees: list[Any], buffers: list[_Buffer]) -> Any:
    function, *arguments = _values(trees, buffers)
    return partial(function, *arguments)


_COLLECTIONS = (list, tuple, set, frozenset)
_BUILDERS: Mapping[str, _Build] = {
    "bytes": lambda _, buffers: buffers.pop(0).content(),
    "array": lambda trees, buffers: buffers.pop(0).array(*trees),
    "list": _values,
    "tuple": lambda trees, buffers: tuple(_values(trees, buffers)),
    "set": lambda trees, buffers: set(_values(trees, buffers)),
    "frozenset": lambda trees, buffers: frozenset(_values(trees, buffers)),
    "dict": _dict,
    "Counter": lambda trees, buffers: Counter(_dict(trees, buffers)),
    "path": lambda trees, _: Path(trees[0]),
    "function": lambda trees, _: _named(trees[0]),
    "partial": _partial,
    "error": lambda trees, buffers: _error(*_values(trees, buffers)),
    "enum": lambda trees, _: _own_class(trees[0])(trees[1]),
    "made": lambda trees, buffers: _own_class(trees[0]).of_plain(*_values(trees[1:], buffers)),
    "record": _record,
    "object": _object,
}


def _error_parts(error: Exception) -> tuple[str, tuple[Any, ...], bool]:
    """Its class, what that is made from, and whether it may pass."""
    if isinstance(error, UserError):
        is_passing = isinstance(error, StorageError) and error.is_passing
        return _name_of(type(error)), (error.problems,), is_passing
    if isinstance(error, OSError):
        return _name_of(type(error)), (error.errno, error.strerror, error.filename), False
    arguments = tuple(one if type(one) in (*_BARE, bytes) else str(one) for one in error.args)
    return _name_of(type(error)), arguments, False


def _error(name: str, arguments: tuple[Any, ...], is_passing: bool) -> Exception:
    module = name.partition(":")[0]
    kind = _named(name) if module == "builtins" or _is_own(module) else None
    if not (isinstance(kind, type) and issubclass(kind, Exception)):
        return RuntimeError(f"{name.rpartition(':')[2]}: {'; '.join(map(str, arguments))}")
    if issubclass(kind, StorageError):
        return kind(*arguments, is_passing=is_passing)
    return kind(*arguments)


def _name_of(value: Any) -> str:
    name = f"{value.__module__}:{value.__qualname__}"
    if "<" in name or _named(name) is not value:
        raise TypeError(f"{name} cannot be found by this name, so that it cannot be packed")
    return name


def _named(name: str) -> Any:
    module, _, path = name.partition(":")
    found: Any = import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return found


def _is_own(module: str) -> bool:
    return module == "loracle" or module.startswith("loracle.")


def _own_class(name: str) -> Any:
    if not _is_own(name.partition(":")[0]):
        raise ValueError(f"{name} is no class of Loracle's")
    return _named(name)
