"""What the doctor says of a machine, by stand-ins for what it looks at."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from loracle.doctor import hardware, hubs, software
from loracle.doctor.examination import examined
from loracle.doctor.result import Examination, Finding
from loracle.doctor.wording import finding_lines
from loracle.model.memory import FreeMemory

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


def test_a_driver_that_fails_needs_attention(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'Failed to initialize NVML'\nexit 18\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (found,) = hardware.card_findings()
    assert (found.state, found.text) == ("attention", "nvidia-smi fails: Failed to initialize NVML")
    smi.write_text("#!/bin/sh\necho 'NVIDIA RTX 4090, 24564 MiB, 24000 MiB, 580.65'\n")
    (card,) = hardware.card_findings()
    assert card.text == "NVIDIA RTX 4090, 24564 MiB, 24000 MiB free, driver 580.65"


@pytest.mark.parametrize(
    ("cuda", "available", "num_cards", "state", "words"),
    [
        ("12.8", True, 1, "good", "uses the cards"),
        (None, False, 0, "good", "on the CPU"),
        (None, False, 2, "attention", "is built for the CPU, but the driver shows 2 cards"),
        ("13.0", False, 1, "attention", "is built for CUDA 13.0 and finds no card"),
    ],
)
def test_whether_torch_fits_the_driver(
    cuda: str | None, available: bool, num_cards: int, state: str, words: str
) -> None:
    found = software.fit_finding("2.13.0", cuda, available, num_cards)
    assert found.state == state
    assert words in found.text
    assert bool(found.fix) == (state == "attention")


def test_a_missing_extra_comes_with_what_it_enables_and_its_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    extra = software.Extra("quant", "no_such_module", "a base in 4 bits")
    monkeypatch.setattr(software, "EXTRAS", (extra,))
    (found,) = software.extra_findings()
    assert found.text == "not installed; it enables a base in 4 bits"
    assert found.fix == "pip install 'loracle[quant]'"


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


def test_a_hub_that_refuses_has_answered_and_one_that_is_broken_has_not(hub: str) -> None:
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
