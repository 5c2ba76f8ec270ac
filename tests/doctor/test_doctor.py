"""What the doctor says of a machine, by stand-ins for what it looks at."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
import tomllib
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import torch

from loracle.doctor import examination, hardware, hubs, software, torch_build
from loracle.doctor.driver import Driver, driver
from loracle.doctor.examination import examined
from loracle.doctor.result import Examination, Finding
from loracle.doctor.wording import finding_lines
from loracle.model.memory import FreeMemory

PROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
OLD_PROCESSOR = "model name\t: Old Chip\nflags\t\t: fpu sse avx2\n"
NEW_PROCESSOR = "model name\t: New Chip\nflags\t\t: avx2 avx512f avx512_bf16 amx_bf16\n"


def test_a_processor_without_bfloat16_is_a_note(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text(OLD_PROCESSOR)
    old = hardware.processor_finding(info)
    info.write_text(NEW_PROCESSOR)
    new = hardware.processor_finding(info)
    assert (old.state, new.state) == ("note", "good")
    assert "Old Chip" in old.text
    assert "no bfloat16" in old.text
    assert "avx512f, bfloat16 (amx_bf16)" in new.text


def test_little_memory_needs_attention_and_a_containers_limit_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stub = FreeMemory(10**9, "memory within the container's limit")
    monkeypatch.setattr(hardware, "free_memory", lambda device_type: stub)
    found = hardware.memory_finding()
    assert found.state == "attention"
    assert "1.0 GB of free memory within the container's limit" in found.text


def test_a_machine_without_proc_has_a_processor_by_what_torch_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"avx2": True, "avx512_f": True, "avx512_bf16": True, "amx_bf16": False}
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: found)
    assert "avx512_f, bfloat16 (avx512_bf16)" in hardware.processor_finding(tmp_path / "no").text
    arm = tmp_path / "cpuinfo"
    arm.write_text("processor\t: 0\nFeatures\t: fp asimd sve bf16\n")
    text = hardware.processor_finding(arm).text
    assert "sve, no bfloat16" in text
    assert "AVX2" not in text


class Smi:
    """An nvidia-smi that comes before all others."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "nvidia-smi"

    def says(self, script: str) -> Driver:
        self.path.write_text(f"#!/bin/sh\n{script}\n")
        self.path.chmod(0o755)
        return driver(timeout_seconds=1.0)


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Smi:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return Smi(tmp_path)


def test_cards_are_named_with_their_memory(smi: Smi) -> None:
    found = smi.says("echo 'NVIDIA RTX 4090, 24564 MiB, 24000 MiB, 580.65'")
    assert found == Driver(("NVIDIA RTX 4090, 24564 MiB, 24000 MiB free, driver 580.65",))
    shared = smi.says("echo 'NVIDIA GB10, [N/A], [N/A], 580.65'")
    assert shared == Driver(("NVIDIA GB10, does not say its memory, driver 580.65",))


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        (
            "echo 'Failed to initialize NVML'; exit 18",
            "nvidia-smi fails: Failed to initialize NVML",
        ),
        ("echo 'no library' >&2; exit 12", "nvidia-smi fails: no library"),
        ("exit 9", "nvidia-smi fails: it ended with code 9 and said nothing"),
        ("echo 'No devices were found'", "nvidia-smi names no card: No devices were found"),
        ("true", "nvidia-smi names no card: no output"),
        # The shell's child keeps the pipe open when the shell itself is killed.
        ("sleep 60; true", "nvidia-smi did not answer within 1 s"),
    ],
)
def test_a_driver_that_fails_needs_attention(smi: Smi, script: str, problem: str) -> None:
    found = smi.says(script)
    assert found == Driver(problem=problem)
    (card,) = hardware.card_findings(found)
    assert (card.state, card.text) == ("attention", problem)
    assert card.fix


def test_cards_beside_a_message_are_named_and_the_message_is_shown(smi: Smi) -> None:
    found = smi.says("echo 'NVIDIA L4, 1 MiB, 1 MiB, 580.65'; echo 'Unable to reach GPU 1'")
    assert [finding.state for finding in hardware.card_findings(found)] == ["good", "attention"]
    assert found.problem == "nvidia-smi names 1 card and: Unable to reach GPU 1"


def test_a_program_that_cannot_run_is_a_problem(smi: Smi) -> None:
    smi.path.write_bytes(b"\x00\x01")
    smi.path.chmod(0o755)
    assert "cannot be run (Exec format error)" in driver().problem


CARD = Driver(("NVIDIA L4",))
BROKEN = Driver(problem="nvidia-smi fails")


@pytest.mark.parametrize(
    ("build", "available", "seen", "state", "words"),
    [
        (("2.13.0", "12.8"), True, CARD, "good", "built for CUDA 12.8, uses the cards"),
        (("2.13.0", None, "7.0"), True, Driver(), "good", "built for ROCm 7.0, uses the cards"),
        (("2.13.0+cpu",), False, Driver(), "good", "runs on the CPU"),
        (("2.13.0+cpu",), False, BROKEN, "note", "the driver does not say whether there is one"),
        (("2.13.0+cpu",), False, CARD, "attention", "but the driver shows 1 card"),
        (("2.13.0", "13.0"), False, CARD, "attention", "built for CUDA 13.0, finds no card"),
    ],
)
def test_whether_torch_fits_the_driver(
    build: tuple[str, ...], available: bool, seen: Driver, state: str, words: str
) -> None:
    found = torch_build.fit_finding(torch_build.Build(*build), available, seen)
    assert found.state == state
    assert words in found.text
    assert bool(found.fix) == (state == "attention")


def test_torchs_own_reason_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_old() -> bool:
        warnings.warn("CUDA initialization: The NVIDIA driver is too old\nmore", stacklevel=1)
        return False

    monkeypatch.setattr("torch.cuda.is_available", too_old)
    monkeypatch.setattr("torch.version.cuda", "13.0")
    (found,) = torch_build.torch_findings(CARD)
    assert "1 card (CUDA initialization: The NVIDIA driver is too old)" in found.text


@pytest.mark.parametrize(
    ("capability", "built_for", "fits"),
    [
        ((8, 9), ["sm_80", "sm_90"], True),
        ((12, 0), ["sm_80", "sm_90a"], False),
        ((12, 0), ["sm_80", "compute_90"], True),
        ((12, 1), ["sm_120"], True),
        ((7, 0), ["sm_75", "sm_80", "compute_90"], False),
    ],
)
def test_whether_torch_has_kernels_for_a_card(
    capability: tuple[int, int], built_for: list[str], fits: bool
) -> None:
    assert torch_build.has_kernels_for(capability, built_for) == fits


def test_a_card_newer_than_torch_needs_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.version.cuda", "12.4")
    monkeypatch.setattr("torch.cuda.get_arch_list", lambda: ["sm_80", "sm_90"])
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda i: [(9, 0), (12, 0)][i])
    uses, lacks = torch_build.torch_findings(CARD)
    assert (uses.state, lacks.state) == ("good", "attention")
    assert "no kernels for card 1 (sm_120); it is built for sm_80, sm_90" in lacks.text


def test_the_attention_of_a_gpu_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loracle.model.placement.preferred_device", lambda: torch.device("cuda"))
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: True)
    assert "the first of triton, flex, dense" in software.attention_finding().text
    monkeypatch.setattr("loracle.forest.attention.backends.find_spec", lambda name: None)
    without = software.attention_finding()
    assert without.state == "note"
    assert "the first of dense that passes" in without.text
    assert "not triton: the package triton is not installed" in without.text


def test_a_part_that_cannot_be_checked_does_not_hide_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken() -> Finding:
        raise RuntimeError("no such file\nand more")

    monkeypatch.setattr(hubs, "is_offline", lambda: True)
    monkeypatch.setattr(software, "attention_finding", broken)
    found = examination.examined()
    (attention,) = [f for f in found.findings if f.name == "attention"]
    assert attention.text == "cannot be checked (RuntimeError: no such file)"
    assert found.findings[-1].area == "hubs"
    assert found.needs_attention


def test_the_extras_are_those_of_the_project() -> None:
    listed = tomllib.loads(PROJECT.read_text())["project"]["optional-dependencies"]
    named = {extra.name for extra in software.EXTRAS if not extra.command}
    assert named == set(listed) - {"dev"}


def test_a_missing_extra_comes_with_what_it_enables_and_its_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    extra = software.Extra("quant", ("no_such_module",), "a base in 4 bits")
    monkeypatch.setattr(software, "EXTRAS", (extra,))
    (found,) = software.extra_findings()
    assert found.text == "not installed; it enables a base in 4 bits"
    assert found.fix == "pip install 'loracle[quant]'"
    half = software.Extra("quant", ("json", "no_such_module"), "a base in 4 bits")
    monkeypatch.setattr(software, "EXTRAS", (half,))
    (found,) = software.extra_findings()
    assert found.text == "not installed (no_such_module); it enables a base in 4 bits"


@pytest.fixture
def hub() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(500 if self.path == "/broken" else 403)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_hub_that_refuses_has_answered_and_one_that_is_broken_has_not(
    hub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    assert hubs.answer_of(hub)[0]
    assert hubs.answer_of(f"{hub}/broken") == (False, "responds with HTTP 500")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        answered, why = hubs.answer_of(f"http://127.0.0.1:{unused.getsockname()[1]}")
    assert not answered
    assert "does not respond" in why


def test_no_hub_at_all_needs_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hubs, "is_offline", lambda: False)
    monkeypatch.setattr(hubs, "answer_of", lambda address: (False, "does not respond (refused)"))
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example")
    found = hubs.hub_findings()
    assert "https://mirror.example" in found[0].text
    assert found[-1].state == "attention"
    assert "HF_HUB_OFFLINE=1" in found[-1].fix


@pytest.mark.parametrize(
    "address",
    ["", "nonsense", "ftp://hub.example", "http://hub:port", "https://[::1", "http://a b.example"],
)
def test_a_wrong_address_is_said_and_nothing_is_asked(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(address: str) -> tuple[bool, str]:
        raise AssertionError("a hub was asked")

    monkeypatch.setattr(hubs, "answer_of", refuse)
    monkeypatch.setenv("HF_ENDPOINT", address)
    (found,) = [f for f in hubs.hub_findings() if f.state == "attention"]
    assert found.text == f"HF_ENDPOINT is {address!r}, which is not an address of a hub"
    assert found.fix.startswith("unset HF_ENDPOINT")


def test_a_proxy_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secret@proxy.example:3128")
    (found,) = hubs.proxy_findings()
    assert found.text == "the environment sets a proxy (https: http://***@proxy.example:3128)"
    monkeypatch.delenv("HTTPS_PROXY")
    assert hubs.proxy_findings() == []


def test_a_proxy_of_a_kind_that_cannot_be_used_is_an_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from huggingface_hub import close_session

    close_session()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HTTP_PROXY", "gopher://127.0.0.1:9")
    responds, why = hubs.answer_of("http://hub.example")
    close_session()
    assert not responds
    assert why.startswith("does not respond (")


def test_a_name_that_is_never_resolved_does_not_hold_the_doctor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hubs, "is_offline", lambda: False)
    monkeypatch.setattr(hubs, "_PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(hubs, "answer_of", lambda address: time.sleep(30))
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    started = time.monotonic()
    found = hubs.hub_findings()
    assert time.monotonic() - started < 10
    assert found[-1].state == "attention"
    assert any("does not respond within 0 s" in finding.text for finding in found)


def test_offline_no_socket_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(hubs, "is_offline", lambda: True)
    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    found = examined()
    assert {finding.area for finding in found.findings} == {
        "hardware",
        "software",
        "extras",
        "hubs",
    }
    (network,) = [finding for finding in found.findings if finding.area == "hubs"]
    assert "no connection was opened" in network.text


def test_the_doctor_runs_where_torch_cannot_be_imported_and_no_hub_has_an_address(
    tmp_path: Path,
) -> None:
    (tmp_path / "torch.py").write_text("raise OSError('libcudart.so.13: cannot open')")
    path = os.pathsep.join([str(tmp_path), str(PROJECT.parent)])
    settings = {**os.environ, "PYTHONPATH": path, "HF_ENDPOINT": "https://[::1"}
    ran = subprocess.run(
        [sys.executable, "-m", "loracle", "doctor", "--json"],
        env=settings,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 1, ran.stderr
    findings = {found["name"]: found for found in json.loads(ran.stdout)["findings"]}
    assert findings["torch"]["text"] == "cannot be imported (libcudart.so.13: cannot open)"
    assert "is not an address of a hub" in findings["Hugging Face"]["text"]
    assert findings["processor"]["text"]


def test_lines_say_what_needs_attention_and_what_to_do() -> None:
    found = Examination(
        (Finding("hubs", "a", "good", "fine"), Finding("hubs", "b", "attention", "bad", "mend it"))
    )
    assert found.needs_attention
    assert list(finding_lines(found)) == [
        "hubs",
        "  ok    a: fine",
        "  FIX   b: bad",
        "        -> mend it",
        "1 finding needs attention",
    ]
    assert found.to_dict()["needs_attention"] is True


def test_missing_kernels_are_told_with_their_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORACLE_NATIVE", "off")
    found = software.kernels_finding()
    assert found.state == "note"
    assert "switched off by LORACLE_NATIVE=off" in found.text
