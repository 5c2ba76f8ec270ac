from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from loracle.errors import MissingExtraError, RunFolderError, UserError
from loracle.server.serving import DEFAULT_PORT, _listen, address_lines, serve
from tests.report.runs import Shape, make_run
from tests.server.site import TOKEN, Site, at_work, served

RUN = f"/{TOKEN}/run/demo/"
STARTED = {"event": "run_started", "time": "t0", "num_trials": 1, "candidates": ["clean"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs, one of them not finished, and something else."""
    folder = tmp_path_factory.mktemp("runs")
    shape = Shape({"base": 0.2, "clean": 0.8}, num_questions=100)
    make_run(folder / "demo", shape)
    unfinished = make_run(folder / "<b>unfinished & odd", shape)
    (unfinished / "results.json").unlink()
    shutil.rmtree(unfinished / "trials")
    (folder / "notes").mkdir()
    return folder


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[Site]:
    with served(folder) as site:
        yield site


def files_of(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_folder_s_runs_are_listed_and_nothing_else(site: Site) -> None:
    page = site.ask(f"/{TOKEN}/").text
    assert 'href="run/demo/"' in page
    assert "Use clean" in page
    assert "&lt;b&gt;unfinished &amp; odd" in page
    assert "notes" not in page


def test_a_finished_run_is_shown_as_its_report(site: Site) -> None:
    answer = site.ask(RUN)
    assert answer.status == 200
    assert "Use clean" in answer.text
    assert 'id="live"' in answer.text


def test_an_unfinished_run_is_shown_as_far_as_it_is(site: Site) -> None:
    answer = site.ask(f"/{TOKEN}/run/%3Cb%3Eunfinished%20%26%20odd/")
    assert answer.status == 200
    assert "<h1" not in answer.text
    assert "Wins and losses" in answer.text


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/wrong/",
        f"/{TOKEN[:-1]}/",
        "/run/demo/",
        f"/{TOKEN}/run/notes/",
        f"/{TOKEN}/plan.json",
    ],
)
def test_without_the_token_or_a_run_s_name_nothing_is_found(site: Site, path: str) -> None:
    assert site.ask(path).status == 404


@pytest.mark.parametrize("path", ["../demo", "..%2Fdemo", "%2e%2e/demo", "demo/../../etc", "."])
def test_no_path_leads_out_of_the_folder(site: Site, path: str) -> None:
    assert site.ask(f"/{TOKEN}/run/{path}/").status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_but_reading_is_allowed(site: Site, method: str) -> None:
    assert site.ask(RUN, method=method).status == 405


@pytest.mark.parametrize(("host", "status"), [("localhost:9", 200), ("evil.example", 400)])
def test_only_this_machine_s_own_names_are_accepted_as_host(
    site: Site, host: str, status: int
) -> None:
    assert site.ask(RUN, host=host).status == status


@pytest.mark.parametrize("path", [RUN, f"/{TOKEN}/", "/nothing"])
def test_every_answer_forbids_framing_sniffing_and_foreign_scripts(site: Site, path: str) -> None:
    headers = site.ask(path).headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"


def test_serving_changes_no_file(site: Site, folder: Path) -> None:
    before = files_of(folder)
    site.ask(RUN)
    next(site.stream(f"{RUN}events"))
    assert files_of(folder) == before


def test_the_stream_tells_of_each_change_and_of_a_new_report(tmp_path: Path) -> None:
    root = make_run(tmp_path / "demo", Shape({"base": 0.2, "clean": 0.8}, num_questions=6))
    with served(root) as site, at_work(root):
        assert site.ask(f"/{TOKEN}/").headers["location"] == RUN
        stream = site.stream(f"{RUN}events")
        first = json.loads(next(stream))
        assert first["status"] == "waiting"
        (root / "events.jsonl").write_text(json.dumps(STARTED) + "\n")
        assert json.loads(next(stream))["status"] == "running"
        (root / "results.json").touch()
        assert json.loads(next(stream))["report"] != first["report"]
        stream.close()


# A process that works in a run folder until it is killed.
WORKING = """
import json, sys
from loracle.run_folder.reporter import Reporter
from loracle.run_folder.views import QuietView
from loracle.run_folder.folder import RunFolder
record = json.load(open(f"{sys.argv[1]}/plan.json"))
with RunFolder.open(sys.argv[1], record["plan"], record["fingerprint"]) as folder:
    with Reporter(folder, QuietView()) as report:
        report.emit("run_started", run="demo", num_trials=1, candidates=["clean"])
        print("at work", flush=True)
        sys.stdin.read()
"""


def test_a_killed_run_is_interrupted_until_it_goes_on(tmp_path: Path) -> None:
    root = make_run(tmp_path / "runs" / "demo", Shape({"base": 0.2, "clean": 0.8}, num_questions=6))

    def work() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", WORKING, str(root)]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "at work\n"
        return process

    with served(root.parent) as site:
        for _ in range(2):
            with work() as process:
                stream = site.stream(f"{RUN}events")
                assert json.loads(next(stream))["status"] == "running"
                assert 'class="tag good">' in site.ask(f"/{TOKEN}/").text
                process.kill()
                process.wait()
                assert json.loads(next(stream))["status"] == "interrupted"
                assert "interrupted</span>" in site.ask(f"/{TOKEN}/").text
                stream.close()


def test_a_run_of_another_machine_is_not_called_interrupted(tmp_path: Path) -> None:
    root = make_run(tmp_path / "demo", Shape({"base": 0.2, "clean": 0.8}, num_questions=6))
    (root / "events.jsonl").write_text(json.dumps(STARTED) + "\n")
    (root / ".lock").touch()
    holder = {"host": "elsewhere", "pid": 7, "since": "2026-01-02T10:00:00+00:00"}
    (root / ".holder.json").write_text(json.dumps(holder))
    with served(root) as site:
        stream = site.stream(f"{RUN}events")
        assert json.loads(next(stream))["status"] == "running"
        stream.close()


def test_a_damaged_run_is_answered_with_its_reason(tmp_path: Path) -> None:
    root = make_run(tmp_path / "demo", Shape({"base": 0.2, "clean": 0.8}, num_questions=6))
    (root / "results.json").write_text("{")
    with served(root) as site:
        answer = site.ask(RUN)
        assert answer.status == 500
        assert "results.json is not valid JSON" in answer.text
        assert answer.headers["content-type"].startswith("text/plain")


# The command


def test_the_address_is_local_and_the_way_through_ssh_is_said() -> None:
    address, tunnel = address_lines(8642, "secret")
    assert address == "http://127.0.0.1:8642/secret/"
    assert "ssh -N -L 8642:127.0.0.1:8642 " in tunnel


def test_a_taken_port_is_named_and_another_found_where_none_was_asked_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} cannot be used .*; choose another"):
            _listen(port)
    with _listen(None) as first, _listen(None) as second:
        ports = {first.getsockname()[1], second.getsockname()[1]}
        assert len(ports) == 2
        assert first.getsockname()[0] == "127.0.0.1"
        assert DEFAULT_PORT not in ports or first.getsockname()[1] == DEFAULT_PORT


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_a_place_without_runs_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunFolderError, match=r"is not a folder|contains none"):
        serve(tmp_path / name, None, print)


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'loracle\[serve\]'"):
        serve(tmp_path, None, print)


def test_the_command_prints_the_address_serves_and_ends_when_interrupted(folder: Path) -> None:
    start = "from loracle.cli import main; main()"
    command = [sys.executable, "-c", start, "serve", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        port, token = address.removeprefix("http://127.0.0.1:").strip("/").split("/")
        assert len(token) == 32
        while True:
            try:
                assert Site(int(port)).ask(f"/{token}/").status == 200
                break
            except ConnectionRefusedError:
                assert process.poll() is None
        process.send_signal(2)
        assert process.wait(timeout=60) == 130
