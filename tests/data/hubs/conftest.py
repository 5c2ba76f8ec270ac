"""The stand-in hubs, and the commands of a user whose machine knows no others."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from tests import forked
from tests.data.hubs.huggingface_server import HuggingFaceHandler
from tests.data.hubs.modelscope_server import ModelScopeHandler
from tests.data.hubs.served import Repo, State, serving

GITATTRIBUTES = {".gitattributes": b"*.parquet filter=lfs\n"}

# Runs a command with every socket forbidden: making one already ends it.
WITHOUT_SOCKETS = """
import sys

def forbid(event, arguments):
    if event.startswith("socket."):
        raise RuntimeError(f"a socket was used: {event}{arguments}")

sys.addaudithook(forbid)
"""

# Imports once what reads its settings from the environment, and forks for every command line.
SEVERAL = """
import json, os, sys
import peft, transformers
from loracle.cli import main

for arguments in json.loads(sys.argv[1]):
    written = [os.memfd_create(name) for name in ("out", "err")]
    if os.fork() == 0:
        for stream, descriptor in enumerate(written, start=1):
            os.dup2(descriptor, stream)
        sys.argv[1:] = arguments
        main()
        sys.exit()
    code = os.waitstatus_to_exitcode(os.wait()[1])
    texts = [os.pread(descriptor, 1 << 24, 0).decode() for descriptor in written]
    print(json.dumps([arguments, code, *texts]), flush=True)
"""


@dataclass
class User:
    """Someone with caches of their own, and the settings of their shell."""

    home: Path
    environment: dict[str, str]

    def run(
        self, *arguments: object, sockets: bool = True, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """`loracle ARGUMENTS` in the user's home."""
        program = forked.LORACLE if sockets else WITHOUT_SOCKETS + forked.LORACLE
        return forked.run(
            program,
            *arguments,
            folder=self.home,
            environment={**self.environment, **environment},
        )

    def run_several(
        self, commands: Sequence[Sequence[str]]
    ) -> list[subprocess.CompletedProcess[str]]:
        """`loracle` for every command line, each in a process of its own, one after the other."""
        done = forked.run(
            SEVERAL, json.dumps(commands), folder=self.home, environment=self.environment
        )
        assert done.returncode == 0, done.stderr
        ended = map(json.loads, done.stdout.splitlines())
        return [subprocess.CompletedProcess(*one) for one in ended]


@dataclass
class Served:
    """A stand-in hub and its user."""

    state: State
    url: str
    user: User


def rows(start: int, stop: int) -> list[dict[str, str]]:
    return [
        {"context": f"Box {n // 4} holds {n // 4 + 3} pens.", "question": f"How many in {n}?",
         "answer": f"{n} of 9"}
        for n in range(start, stop)
    ]  # fmt: skip


def jsonl(start: int, stop: int) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows(start, stop)).encode()


def parquet(start: int, stop: int) -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows(start, stop)), sink)
    return bytes(sink.getvalue())


def boxes(repo: Repo, branch: str) -> str:
    """A small dataset in the common layout: a file a split; returns the commit."""
    files = {"train.jsonl": jsonl(0, 12), "test.jsonl": jsonl(12, 18)}
    return repo.commit({**GITATTRIBUTES, "README.md": b"# Boxes\n", **files}, branch)


CARD = b"""---
configs:
- config_name: english
  data_files:
  - {split: train, path: en/first.jsonl}
  - {split: validation, path: en/second.jsonl}
  default: true
- config_name: shards
  data_files: [{split: train, path: "shards/train-*.parquet"}]
---
# Two configurations
"""


def configured(repo: Repo, branch: str) -> str:
    """A dataset whose card says which files are which split of two configurations."""
    files = {
        "en/first.jsonl": jsonl(0, 8),
        "en/second.jsonl": jsonl(8, 12),
        "shards/train-00000-of-00002.parquet": parquet(0, 5),
        "shards/train-00001-of-00002.parquet": parquet(5, 9),
        "notes/unrelated.csv": b"a,b\n1,2\n",
    }
    return repo.commit({**GITATTRIBUTES, "README.md": CARD, **files}, branch)


def user_of(home: Path, **settings: str) -> User:
    hidden = ("HF_", "HUGGING", "MODELSCOPE_", "TRANSFORMERS_", "XDG_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(hidden)}
    return User(
        home,
        {
            **kept,
            "HOME": str(home),
            "HF_HOME": str(home / "hf"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "MODELSCOPE_CACHE": str(home / "ms"),
            "MODELSCOPE_HOME": str(home / "ms-home"),
            # A proxy of the machine would be asked for 127.0.0.1 too.
            "NO_PROXY": "127.0.0.1,localhost",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            **settings,
        },
    )


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Served]:
    """A Hugging Face hub with nothing on it, and a user who has fetched nothing."""
    with serving(HuggingFaceHandler) as (state, url):
        yield Served(state, url, user_of(tmp_path, HF_ENDPOINT=url))


@pytest.fixture
def modelscope(tmp_path: Path) -> Iterator[Served]:
    """A ModelScope hub with nothing on it, and a user who has fetched nothing."""
    if importlib.util.find_spec("modelscope_hub") is None:
        pytest.skip("ModelScope's library is not installed: pip install 'loracle[modelscope]'")
    with serving(ModelScopeHandler) as (state, url):
        yield Served(state, url, user_of(tmp_path, MODELSCOPE_ENDPOINT=url))
