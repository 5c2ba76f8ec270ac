"""Programs of the tests that run in forked processes: what is theirs alone, and how they end."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from tests import forked


def test_a_program_has_its_own_arguments_folder_environment_and_streams(tmp_path: Path) -> None:
    program = """
import os, sys
print(sys.argv[1:], os.getcwd(), os.environ["WORD"], "HOME" in os.environ, sys.stdin.read())
print("of errors", file=sys.stderr)
"""
    done = forked.run(program, "a", 1, folder=tmp_path, environment={"WORD": "first"})
    assert done.stdout == f"['a', '1'] {tmp_path} first False \n"
    assert done.stderr == "of errors\n"
    assert done.returncode == 0


def test_a_hubs_client_finds_the_settings_of_its_program(tmp_path: Path) -> None:
    for url in ("http://127.0.0.1:1", "http://127.0.0.1:2"):
        environment = {**os.environ, "HF_ENDPOINT": url}
        program = "from huggingface_hub import constants; print(constants.ENDPOINT)"
        done = forked.run(program, folder=tmp_path, environment=environment)
        assert done.stdout == f"{url}\n", done.stderr


@pytest.mark.parametrize(
    ("program", "code"),
    [
        ("import sys; sys.exit(3)", 3),
        ("raise SystemExit('a reason')", 1),
        ("1 / 0", 1),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
        ("from loracle.cli import main; import sys; sys.argv[1:] = ['--version']; main()", 0),
    ],
)
def test_how_a_program_ends_is_what_a_new_interpreter_would_say(
    tmp_path: Path, program: str, code: int
) -> None:
    assert forked.run(program, folder=tmp_path).returncode == code


def test_a_program_that_still_runs_is_killed_at_the_end(tmp_path: Path) -> None:
    with forked.started("import time; time.sleep(600)", folder=tmp_path) as process:
        pass
    assert process.wait().returncode == -signal.SIGKILL
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


def test_a_script_sees_the_modules_beside_it_and_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("WORD = 'beside'\n")
    script = tmp_path / "script.py"
    script.write_text("import beside, sys\nprint(beside.WORD, sys.argv, __name__)\n")
    done = forked.run(forked.script(script), "x", folder=Path(sys.executable).parent)
    assert done.stdout == f"beside ['{script}', 'x'] __main__\n", done.stderr
