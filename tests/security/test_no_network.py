"""With everything local, a run opens no socket, neither in this process nor in its children."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.small_run import SETTINGS, make_world

ROOT = Path(__file__).parents[2]
# No family of the internet may be opened, whoever asks: also libraries in C and Rust.
SHIM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
int socket(int domain, int type, int protocol) {
  if (domain == AF_INET || domain == AF_INET6) {
    FILE *note = fopen(getenv("SOCKET_NOTES"), "a");
    if (note) fprintf(note, "a socket was opened\\n"), fclose(note);
  }
  return ((__typeof__(&socket))dlsym(RTLD_NEXT, "socket"))(domain, type, protocol);
}
"""


@pytest.mark.long
def test_a_local_run_opens_no_socket(tmp_path: Path) -> None:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs Linux and a C compiler, to see the system's own calls")
    world = make_world(tmp_path / "world")
    (tmp_path / "shim.c").write_text(SHIM)
    library, notes = tmp_path / "shim.so", tmp_path / "notes"
    build = [compiler, "-shared", "-fPIC", "-o", library, tmp_path / "shim.c", "-ldl"]
    subprocess.run(build, check=True)
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    files = [world.root / name for name in ("a.jsonl", "b.jsonl")]
    command = ["run", *files, "--eval", world.root / "test.jsonl", "--model", world.model]
    environment = {
        key: value for key, value in os.environ.items() if key not in ("HF_HUB_OFFLINE",)
    }
    environment |= {"LD_PRELOAD": str(library), "SOCKET_NOTES": str(notes)}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    code = "from loracle.cli import main; main()"
    found = subprocess.run(
        [sys.executable, "-c", code, *map(str, [*command, "--out", world.run, *settings])],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert not notes.exists()
    opened = "import socket; socket.socket()"
    subprocess.run([sys.executable, "-c", opened], env=environment, check=True)
    assert notes.read_text() == "a socket was opened\n", "the test would see one"
