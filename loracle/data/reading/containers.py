"""What a file is, and its rows: its first bytes say it, and its name only for CSV and TSV, which
no byte tells from other text.

    JSONL · JSON · CSV · TSV, each also in .gz and .zst        Parquet · Arrow (file or stream)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from loracle.data.reading import json_rows, table_rows, text_files
from loracle.data.reading.rows import Row
from loracle.errors import DataError
from loracle.plan import COMPRESSION_ENDINGS, file_problem

TEXT_ENDINGS = (".json", ".jsonl", ".ndjson", ".csv", ".tsv")
TABLE_ENDINGS = (".parquet", ".arrow", ".feather")

_FOREIGN = {
    b"PK\x03\x04": "a zip archive or an Excel file; unpack it, or save it as CSV in UTF-8",
    b"BZh": "compressed with bzip2; unpack it, or compress it with gzip or zstd",
    b"\xfd7zX": "compressed with xz; unpack it, or compress it with gzip or zstd",
    b"7z\xbc\xaf": "a 7-Zip archive; unpack it",
    b"%PDF": "a PDF; its rows must be written as JSONL",
    b"SQLi": "an SQLite database; export a table as JSONL or CSV",
    b"\xd0\xcf\x11\xe0": "an old Excel or Word file; save it as CSV in UTF-8",
    b"version https://git-lfs": "a Git LFS pointer; fetch the file itself with git lfs pull",
    **dict.fromkeys(
        (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"),
        "a pickle, which is not read because it can run code; save it as JSONL or Parquet",
    ),
    b"\x93NUMPY": "a numpy array; save its rows as JSONL or Parquet",
    b"\x89HDF": "an HDF5 file; save its rows as JSONL or Parquet",
    b"Rar!": "a RAR archive; unpack it",
    b"\x04\x22\x4d\x18": "compressed with lz4; unpack it, or compress it with gzip or zstd",
    b"ORC": "an ORC file; save it as Parquet",
    b"Obj\x01": "an Avro file; save it as Parquet",
    b"\x89PNG": "an image; only text can be used for training",
    b"\xff\xd8\xff": "an image; only text can be used for training",
    b"GIF8": "an image; only text can be used for training",
    **dict.fromkeys(
        (b"<!DOCTYPE", b"<!doctype", b"<html"),
        "a web page, perhaps a login or error page; download the file itself",
    ),
    b"<?xml": "XML; write its rows as JSONL",
}
_FOREIGN_PACKED = {
    b"\x1f\x8b": "compressed twice; unpack it once",
    b"\x28\xb5\x2f\xfd": "compressed twice; unpack it once",
    b"PAR1": "a Parquet file that is compressed as a whole; unpack it",
    b"ARROW1": "an Arrow file that is compressed as a whole; unpack it",
}
_PICKLE_ENDINGS = (".pkl", ".pickle", ".pt", ".pth")
_TAR_MARK, _TAR_MARK_AT = b"ustar", 257
_HEAD_BYTES = 512
_ARROW_STREAM = b"\xff\xff\xff\xff"


class Container(NamedTuple):
    """A file and what it is. description: as it is shown, "JSONL (gz)" say. lines: the text of a
    file that has one JSON row a line."""

    path: Path
    description: str
    encoding: str | None
    rows: Iterator[Row]
    lines: text_files.TextFile | None = None


def has_known_ending(path: Path) -> bool:
    """Whether a file in a folder is taken for data."""
    name = path.name.lower()
    for ending in COMPRESSION_ENDINGS:
        name = name.removesuffix(ending)
    return name.endswith((*TEXT_ENDINGS, *TABLE_ENDINGS))


def open_file(path: Path, encoding: str | None) -> Container:
    """Say what a file is; its rows are read while they are taken.

    Raises DataError where it is missing or of no known kind, and so do the rows.
    """
    if problem := file_problem(path):
        raise DataError(problem)
    start = _start(path)
    if start.startswith(b"PAR1"):
        return Container(path, "Parquet", None, table_rows.rows_of_parquet(path))
    if start.startswith((b"ARROW1", _ARROW_STREAM)):
        return Container(path, "Arrow", None, table_rows.rows_of_arrow(path))
    if path.name.lower().endswith(TABLE_ENDINGS):
        ending = path.suffix.lower()
        _refuse_foreign(path, start)
        raise DataError(
            f"{path}: found {start[:4]!r} instead of the signature of a {ending} file; it is "
            "damaged, empty, or another kind of file: write it again, or give it the right ending"
        )
    _refuse_foreign(path, start)
    source = text_files.look(path, encoding)
    if source.compression:
        # What was packed may be an archive in turn: its parts must not be read as one text.
        head = text_files.packed_head(source, _HEAD_BYTES)
        _refuse_foreign(path, head, {**_FOREIGN, **_FOREIGN_PACKED})
    if path.name.lower().endswith(_PICKLE_ENDINGS):
        raise DataError(f"{path} is {_FOREIGN[bytes((0x80, 4))]}")
    return _text(source)


def _refuse_foreign(path: Path, head: bytes, marks: Mapping[bytes, str] = _FOREIGN) -> None:
    if head[_TAR_MARK_AT:].startswith(_TAR_MARK):
        raise DataError(f"{path} is a tar archive; unpack it, and name the file or the folder")
    for mark, what in marks.items():
        if head.startswith(mark):
            raise DataError(f"{path} is {what}")


def _start(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_HEAD_BYTES)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _text(source: text_files.TextFile) -> Container:
    name = source.path.name.lower()
    for ending in COMPRESSION_ENDINGS:
        name = name.removesuffix(ending)
    packed = f" ({source.compression})" if source.compression else ""
    if name.endswith((".csv", ".tsv")):
        tabs = name.endswith(".tsv")
        delimiter = table_rows.delimiter_of(source, tabs=tabs)
        usual = delimiter == ("\t" if tabs else ",")
        kind = "TSV" if tabs else "CSV"
        kind += "" if usual else f" with {table_rows.DELIMITERS[delimiter]}"
        rows = table_rows.rows_of_csv(source, delimiter)
    else:
        layout = json_rows.layout_of(source)
        kind = {"lines": "JSONL", "array": "JSON", "object": "JSON, rows under data"}[layout]
        rows = json_rows.rows_of(source, layout)
        if layout == "lines":
            return Container(source.path, f"{kind}{packed}", source.encoding, rows, source)
    return Container(source.path, f"{kind}{packed}", source.encoding, rows)
