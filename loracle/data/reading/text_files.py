"""Text files as UTF-8 bytes: decompressed and transcoded while they are read.

    FILE(.gz, .zst)  --_decompressed-->  bytes  --_Transcoder-->  UTF-8 bytes, line by line

Nothing is held but a buffer: a file may be larger than memory.
"""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from loracle.data.faults import Fault, Reason
from loracle.data.reading.rows import MAX_ROW_BYTES
from loracle.errors import DataError

BUFFER_BYTES = 2**20
# A file that unpacks to more than this, and to more than so many times its size, is no data: text
# of people and models packs to a tenth.
MAX_UNPACKED_BYTES = 64 * 2**20
MAX_UNPACKED_TIMES = 100
# A line that is too large is skipped and counted; one without end is not waited for.
_MAX_SKIPPED_BYTES = 2**30

_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_MARKS = (
    # UTF-32's little-endian mark begins with UTF-16's: the longer one first.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class Line(NamedTuple):
    """A line of text without its end, or None and why it cannot be had."""

    number: int
    text: str | None
    fault: Fault | None = None


class TextFile(NamedTuple):
    """A text file, as its first bytes show it. `compression`: "", "gz" or "zst"."""

    path: Path
    compression: str
    encoding: str

    @contextmanager
    def open(self) -> Iterator[io.BufferedReader]:
        """The content as UTF-8 without a byte-order mark.

        Raises DataError where it cannot be read, decompressed or decoded while it is open.
        """
        content: io.BufferedReader
        with _readable(self.path), _decompressed(self.path, self.compression) as raw:
            if self.encoding == "utf-8":
                content = io.BufferedReader(cast(io.RawIOBase, raw), BUFFER_BYTES)
                if content.peek(3)[:3] == codecs.BOM_UTF8:
                    content.read(3)
            else:
                transcoder = _Transcoder(raw, self.encoding, str(self.path))
                content = io.BufferedReader(transcoder, BUFFER_BYTES)
            yield content

    def lines(self) -> Iterator[Line]:
        """The lines, split at \\n alone: str.splitlines also breaks at U+2028, which JSON strings
        may hold. A line over MAX_ROW_BYTES comes as a fault."""
        with self.open() as content:
            number = 0
            while raw := content.readline(MAX_ROW_BYTES + 1):
                number += 1
                if len(raw) > MAX_ROW_BYTES and not raw.endswith(b"\n"):
                    size = len(raw) + _skip_line(content)
                    if size > _MAX_SKIPPED_BYTES:
                        raise DataError(
                            f"{self.path}:{number}: the line has more than 1 GiB without an end; "
                            "this is not a file of rows"
                        )
                    yield Line(number, None, too_large(size))
                else:
                    yield decoded(number, raw.removesuffix(b"\n"))


def look(path: Path, encoding: str | None) -> TextFile:
    """How a file is compressed and encoded. `encoding` overrides what its first bytes say."""
    with _readable(path):
        with path.open("rb") as file:
            start = file.read(4)
        compression = {_GZIP_MAGIC: "gz", _ZSTD_MAGIC[:2]: "zst"}.get(start[:2], "")
        if compression == "zst" and start != _ZSTD_MAGIC:
            compression = ""
        with _decompressed(path, compression) as raw:
            head = raw.read(4) or b""
    # A larger one is stopped while it is read: looking through it first would cost as much again.
    if compression and path.stat().st_size < MAX_UNPACKED_BYTES:
        _refuse_bomb(path, compression)
    by_mark = next((name for mark, name in _MARKS if head.startswith(mark)), None)
    chosen = encoding or by_mark or "utf-8"
    return TextFile(path, compression, codecs.lookup(chosen).name)


def _refuse_bomb(path: Path, compression: str) -> None:
    """Unpack the file once without looking at it, before its rows fill time and memory."""
    # Damage is said by whoever reads the rows, with what can be read before it.
    with suppress(EOFError, zlib.error, OSError), _decompressed(path, compression) as raw:
        while raw.read(BUFFER_BYTES):
            pass


def packed_head(source: TextFile, num_bytes: int) -> bytes:
    """The first bytes of what is packed in a file."""
    with _readable(source.path), _decompressed(source.path, source.compression) as raw:
        return raw.read(num_bytes) or b""


def too_large(num_bytes: int) -> Fault:
    found = f"{num_bytes / 2**20:.0f} MiB" if num_bytes >= 2**20 else f"{num_bytes} bytes"
    limit = MAX_ROW_BYTES // 2**20
    return Fault(
        Reason.TOO_LARGE,
        f"the row has {found}, the limit is {limit} MiB; split it into rows, or leave it out",
    )


def not_utf8(data: bytes, error: UnicodeDecodeError) -> Fault:
    """The message for bytes that are not UTF-8, `data` being their line: where, and what the
    encoding may be."""
    found = f"byte {error.start + 1} of the line, 0x{data[error.start]:02x}, is not UTF-8"
    advice = "save the file as UTF-8"
    if b"\0" in data:
        advice = "it has NUL bytes: save the file as UTF-8, or name its encoding (encoding: utf-16)"
    elif _could_be_gbk(data):
        advice = "it could be GBK: save the file as UTF-8, or name its encoding (encoding: gb18030)"
    return Fault(Reason.BAD_ENCODING, f"{found}; {advice}")


def _could_be_gbk(data: bytes) -> bool:
    try:
        text = data.decode("gb18030")
    except UnicodeDecodeError:
        return False
    # Nearly any pair of bytes is a character in GBK; common Chinese is in one block.
    foreign = [character for character in text if ord(character) > 127]
    return sum("\u4e00" <= character <= "\u9fff" for character in foreign) > len(foreign) / 2


def decoded(number: int, raw: bytes) -> Line:
    """A line of UTF-8."""
    try:
        return Line(number, raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        return Line(number, None, not_utf8(raw, error))


def _skip_line(content: io.BufferedReader) -> int:
    """Skip to the line's end; how many bytes that were."""
    num_bytes = 0
    while part := content.readline(BUFFER_BYTES):
        num_bytes += len(part)
        if part.endswith(b"\n") or num_bytes > _MAX_SKIPPED_BYTES:
            break
    return num_bytes


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what goes wrong below into a DataError that names the file."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"{path} is damaged: {error}; copy it again, or unpack the intact part"
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


@contextmanager
def _decompressed(path: Path, compression: str) -> Iterator[BinaryIO]:
    if compression == "gz":
        with gzip.open(path, "rb") as file:
            yield cast(BinaryIO, _Bounded(file, path))
    elif compression == "zst":
        import pyarrow as pa

        with pa.input_stream(str(path), compression="zstd") as stream:
            yield cast(BinaryIO, _Bounded(_Readable(stream), path))
    else:
        with path.open("rb", buffering=0) as file:
            yield cast(BinaryIO, file)


class _Readable(io.RawIOBase):
    """A stream of pyarrow, with the one method that io.BufferedReader reads through."""

    def __init__(self, stream: object) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast(bytearray, buffer))
        data: bytes = self._stream.read(len(view))  # type: ignore[attr-defined]
        view[: len(data)] = data
        return len(data)


class _Bounded(io.RawIOBase):
    """What a compressed file unpacks to, up to what data can be."""

    def __init__(self, source: Any, path: Path) -> None:
        self._source = source
        self._path = path
        self._packed_bytes = path.stat().st_size
        self._num_bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        num_bytes: int = self._source.readinto(buffer) or 0
        self._num_bytes += num_bytes
        limit = max(MAX_UNPACKED_BYTES, MAX_UNPACKED_TIMES * self._packed_bytes)
        if self._num_bytes > limit:
            raise DataError(
                f"{self._path} unpacks to more than {MAX_UNPACKED_TIMES} times its "
                f"{self._packed_bytes:,} bytes, which is not plausible for data; if it is "
                "intended, unpack it and name the unpacked file"
            )
        return num_bytes


class _Transcoder(io.RawIOBase):
    """Bytes of one encoding as UTF-8 bytes."""

    def __init__(self, source: BinaryIO, encoding: str, file: str) -> None:
        self._source = source
        self._decoder = codecs.getincrementaldecoder(encoding)("strict")
        self._encoding, self._file = encoding, file
        self._pending = b""
        self._line = 1
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast(bytearray, buffer))
        while not self._pending and not self._ended:
            data = self._source.read(BUFFER_BYTES // 4)
            self._ended = not data
            self._pending = self._transcoded(data or b"")
        part, self._pending = self._pending[: len(view)], self._pending[len(view) :]
        view[: len(part)] = part
        return len(part)

    def _transcoded(self, data: bytes) -> bytes:
        try:
            text = self._decoder.decode(data, final=self._ended)
            result = text.encode("utf-8")
        except UnicodeError as error:
            raise DataError(
                f"{self._file}:{self._line}: found bytes that are not {self._encoding} in this "
                f"line or below ({error.args[-1]}); save the file as UTF-8"
            ) from error
        self._line += text.count("\n")
        return result
