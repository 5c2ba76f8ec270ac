"""The live page in a real browser; skipped if there is none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from loracle.files import read_json, write_json
from tests.browser import chromium_program, open_page
from tests.report.runs import Shape, make_run
from tests.server.site import TOKEN, at_work, served

PROGRAM = chromium_program()
pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="no chromium on this machine: the page is not looked at in a browser"
)
STATUS_WORDS = "document.querySelector('[data-part=status]')"
ATTACK = "<img src=x onerror=alert(1)>"


def append(root: Path, **event: Any) -> None:
    with (root / "events.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"time": "2026-01-02T10:00:00.000+00:00", **event}) + "\n")


def test_a_run_is_watched_from_its_start_to_its_report(tmp_path: Path) -> None:
    assert PROGRAM is not None
    root = make_run(tmp_path / "demo", Shape({"base": 0.2, "clean": 0.9}, num_questions=100))
    results = read_json(root / "results.json")
    (root / "results.json").unlink()
    shutil.move(root / "trials", tmp_path / "trials")
    status = "document.getElementById('live').dataset.status"
    with served(root) as site, open_page(PROGRAM, tmp_path / "p") as page:
        page.open(site.address)
        page.wait_for(f"{status} === 'waiting'")
        with at_work(root):
            append(root, event="run_started", num_trials=1, candidates=["clean"])
            append(root, event="trial_started", trial="clean", num_steps=3)
            for step in (1, 2):
                append(
                    root, event="step", trial="clean", step=step, num_steps=3, loss=3 / step,
                    tokens_read=100, seconds=1,
                )  # fmt: skip
            append(root, event="warning", message=ATTACK)
            page.wait_for("document.querySelector('[data-trial=clean] progress')?.value === 2")
            warnings = page.evaluate("document.querySelector('.warnings').textContent")
            assert warnings.strip() == ATTACK
            assert page.evaluate("document.querySelectorAll('img').length") == 0
            page.evaluate("document.querySelector('[data-set-language=zh]').click()")
            assert page.evaluate(f"{STATUS_WORDS}.innerText") == "运行中"
            page.evaluate("document.querySelector('[data-set-language=en]').click()")
        # Its process is gone.
        page.wait_for(f"{status} === 'interrupted'")
        assert page.evaluate(f"{STATUS_WORDS}.innerText").startswith("Interrupted")
        with at_work(root):
            # Another one continues.
            page.wait_for(f"{status} === 'running'")
            # The run ends: the page becomes its report by itself.
            shutil.move(tmp_path / "trials", root / "trials")
            write_json(root / "results.json", results)
            append(root, event="run_finished", num_failed=0)
            decision = "document.querySelector('.decision h1')"
            page.wait_for(f"{decision}?.innerText.startsWith('Use clean')")
            page.wait_for("document.getElementById('answers').dataset.ready")
            # It starts again.
            page.wait_for(f"{status} === 'finished'")
            append(root, event="run_started", num_trials=1, candidates=["clean"])
            page.wait_for(f"{status} === 'running'")
        assert page.complaints == []
        assert page.dialogs == []
        here = f"http://127.0.0.1:{site.port}/{TOKEN}/"
        assert all(url.startswith((here, "data:,")) for url in page.requests)
