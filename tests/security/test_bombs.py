"""Files made to fill time or memory: each ends within 20 s and 2 GB, with one clear error."""

from __future__ import annotations

import gzip
import json
import lzma
import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from tests import forked, tiny

SECONDS, BYTES = 20, 2 << 30
TURNS = [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "b"}]
ROW = json.dumps({"messages": TURNS})
LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
OUTPUT = (
    "{% set ns = namespace(x='x' * 1000) %}"
    "{% for a in range(40) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}"
)


def bomb_in_template(template: str) -> Callable[[Path], list[str]]:
    def make(folder: Path) -> list[str]:
        tiny.save_model(folder / "model")
        (folder / "model/chat_template.jinja").write_text(template + tiny.CHAT_TEMPLATE)
        (folder / "a.jsonl").write_text(ROW + "\n")
        return ["inspect", "a.jsonl", "--model", "model"]

    return make


def yaml_anchors(folder: Path) -> list[str]:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    (folder / "plan.yaml").write_text("\n".join(lines))
    return ["check", "--plan", "plan.yaml"]


def packed_rows(folder: Path) -> list[str]:
    # A file of many members unpacks as one; each is the same, so it is packed once.
    (folder / "a.jsonl.gz").write_bytes(gzip.compress((ROW + "\n").encode() * 10_000) * 300)
    return ["check", "a.jsonl.gz"]


def packed_line(folder: Path) -> list[str]:
    """As a zip bomb is: nothing but zeros."""
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(bytes(1 << 20)) * 1024)
    return ["check", "a.jsonl.gz"]


def table_of(text: str, num_rows: int) -> pa.Table:
    rows = pa.array([text] * num_rows)
    return pa.table({"prompt": rows, "completion": rows})


def packed_parquet(folder: Path) -> list[str]:
    """Pages of nothing but one letter: 600 MB in 50 kB."""
    table = table_of("x" * 1_000_000, 300)
    parquet.write_table(table, folder / "a.parquet", compression="zstd", use_dictionary=False)
    return ["check", "a.parquet"]


def repeating_parquet(folder: Path) -> list[str]:
    """A dictionary of one text, and a million rows that name it: 10 GB in a few kB."""
    texts = pa.array(["x" * 10_000])
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 1_000_000, pa.int32()), texts)
    table = pa.table({"prompt": column, "completion": column})
    parquet.write_table(table, folder / "a.parquet", compression="zstd")
    return ["check", "a.parquet"]


def nested_parquet(folder: Path) -> list[str]:
    """One row with a list of the smallest objects: 2 GB of them in a few kB."""
    return parquet_list(folder, pa.array(np.zeros(6_000_000, np.int8)))


def repeated_parquet(folder: Path) -> list[str]:
    """As many objects that a few bytes repeat: values of a dictionary of one."""
    places = pa.array(np.zeros(300_000_000, np.int8))
    return parquet_list(folder, pa.DictionaryArray.from_arrays(places, pa.array(["0"])))


def parquet_list(folder: Path, values: pa.Array) -> list[str]:
    num = len(values)
    turns = pa.ListArray.from_arrays([0, num], pa.StructArray.from_arrays([values], ["a"]))
    table = pa.table({"messages": turns, "id": ["a"]})
    parquet.write_table(table, folder / "a.parquet", compression="zstd")
    return ["check", "a.parquet"]


def nested_nulls(folder: Path) -> list[str]:
    """A list of nothing but nulls, which take no memory until they are objects."""
    nulls = pa.ListArray.from_arrays([0, 200_000_000], pa.nulls(200_000_000))
    table = pa.table({"messages": nulls, "id": ["a"]})
    with pa.ipc.new_file(folder / "a.arrow", table.schema) as writer:
        writer.write_table(table)
    return ["check", "a.arrow"]


def packed_arrow(folder: Path, *, stream: bool = False) -> list[str]:
    table = table_of("x" * 1_000_000, 300)
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    new = pa.ipc.new_stream if stream else pa.ipc.new_file
    with new(folder / "a.arrow", table.schema, options=options) as writer:
        writer.write_table(table)
    return ["check", "a.arrow"]


def repeating_arrow(folder: Path) -> list[str]:
    texts = pa.array(["x" * 100_000])
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 100_000, pa.int8()), texts)
    table = pa.table({"prompt": column, "completion": column})
    with pa.ipc.new_file(folder / "a.arrow", table.schema) as writer:
        writer.write_table(table)
    return ["check", "a.arrow"]


def pipe(folder: Path) -> list[str]:
    os.mkfifo(folder / "a.jsonl")
    return ["check", "a.jsonl"]


def endless(folder: Path) -> list[str]:
    with (folder / "a.jsonl").open("wb") as file:
        file.truncate(1 << 40)
    return ["check", "a.jsonl"]


def deep(folder: Path) -> list[str]:
    (folder / "a.json").write_text("[" * 5_000_000)
    return ["check", "a.json"]


def merge_keys(folder: Path) -> list[str]:
    """As YAML anchors are, by `<<`: every mapping takes the pairs of nine others."""
    pairs = ", ".join(f"k{i}: x" for i in range(9))
    lines = [f"a0: &a0 {{{pairs}}}"]
    lines += [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, 12)]
    (folder / "plan.yaml").write_text("\n".join(lines))
    return ["check", "--plan", "plan.yaml"]


def zstd_zeros(folder: Path) -> list[str]:
    with pa.CompressedOutputStream(str(folder / "a.jsonl.zst"), "zstd") as file:
        for _ in range(1024):
            file.write(bytes(1 << 20))
    return ["check", "a.jsonl.zst"]


def xz_zeros(folder: Path) -> list[str]:
    with lzma.open(folder / "a.jsonl.xz", "wb", preset=0) as file:
        file.write(bytes(64 << 20))
    return ["check", "a.jsonl.xz"]


def circle_of_links(folder: Path) -> list[str]:
    """A folder that holds itself, and a link to itself in place of data."""
    (folder / "data").mkdir()
    (folder / "data/again").symlink_to(folder / "data")
    (folder / "data/a.jsonl").symlink_to("a.jsonl")
    return ["check", "data"]


def endless_device(folder: Path) -> list[str]:
    (folder / "a.jsonl").symlink_to("/dev/zero")
    return ["check", "a.jsonl"]


BOMBS = {
    "YAML merge keys": (merge_keys, "its aliases (*name) expand to more than 200,000 values"),
    "zstd": (zstd_zeros, "unpacks to more than 100 times"),
    "xz": (xz_zeros, "compressed with xz; unpack it"),
    "links in a circle": (circle_of_links, "data"),
    "device": (endless_device, "is not a regular file"),
    "template loop": (bomb_in_template(LOOP), "runs for more than 5 seconds on one row"),
    "template output": (bomb_in_template(OUTPUT), "chat template cannot be used: it "),
    "YAML anchors": (yaml_anchors, "its aliases (*name) expand to more than 200,000 values"),
    "gz": (packed_rows, "unpacks to more than 100 times"),
    "zip-like": (packed_line, "unpacks to more than 100 times"),
    "Parquet pages": (packed_parquet, "unpacks to more than 100 times"),
    "Parquet dictionary": (repeating_parquet, "unpacks to more than 1000 times"),
    "Parquet list": (nested_parquet, "row's values take more than 256 MiB as objects"),
    "Parquet repeats": (repeated_parquet, "unpacks to more than 1000 times"),
    "Arrow nulls": (nested_nulls, "row's values take more than 256 MiB as objects"),
    "Arrow file": (packed_arrow, "unpacks to more than 100 times"),
    "Arrow stream": (partial(packed_arrow, stream=True), "unpacks to more than 100 times"),
    "Arrow dictionary": (repeating_arrow, "unpacks to more than 1000 times"),
    "FIFO": (pipe, "is not a regular file"),
    "endless file": (endless, "more than 1 GiB without an end"),
    "deep JSON": (deep, "nested too deeply"),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_ends_soon_and_small_with_one_clear_error(bomb: str, tmp_path: Path) -> None:
    make, message = BOMBS[bomb]
    arguments = make(tmp_path)
    measured = tmp_path / "measured"
    program = (
        "import pathlib, resource\n"
        "from loracle.cli import main\n"
        "try: main()\n"
        "finally:\n"
        "    used = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))\n"
        "    seconds = sum(u.ru_utime + u.ru_stime for u in used)\n"
        "    status = pathlib.Path('/proc/self/status').read_text()\n"
        f"    pathlib.Path({str(measured)!r}).write_text(f'{{seconds}} {{status}}')\n"
    )
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    done = forked.run(program, *arguments, folder=tmp_path, environment=environment)
    # The card of a dataset is the result of `check`, and says what is wrong with it.
    said = done.stdout + done.stderr
    assert done.returncode == 2, said[-2000:]
    assert message in " ".join(said.split())
    assert "Traceback" not in said
    processor_seconds, status = measured.read_text().split(" ", 1)
    # The processor's time: how long it takes beside others says nothing.
    assert float(processor_seconds) < SECONDS
    [peak_kilobytes] = re.findall(r"VmHWM:\s+(\d+) kB", status)
    assert int(peak_kilobytes) * 1024 < BYTES
