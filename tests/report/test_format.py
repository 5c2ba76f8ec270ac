"""The pages write numbers and times as loracle/text.py does."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from loracle.report.page import asset
from loracle.text import NOTHING, count, duration, metric_name, shortened, shown_score
from tests.browser import chromium_program, open_page

RANDOM = random.Random(0)
# Exactly between two numbers, and next to it; what rounds up to another unit.
NUMBERS = [0.0, 1.0, 0.0625, 0.1875, 0.0005, 0.9995, 0.5, 1.5, 2.5, 1.45, 0.1235, 8.345, 2.0625]
NUMBERS += [RANDOM.random() for _ in range(200)] + [RANDOM.uniform(0, 9) for _ in range(50)]
COUNTS = [0, 5, 999, 1000, 12345, 1234567, 0.5, 1.5, 999.5, 1234.4999]
TIMES = [0.4, 1, 59, 59.5, 60, 61, 119.5, 3599, 3599.6, 3600, 3659, 7325, 86399, 1.5, 2.5, 5430]
NAMES = (
    "clean",
    "customer-service-mixed-train-v3",
    "客服对话数据-2024年第三季度-GPT4o-rewritten-v2.1-最终版",
    "ＦＡＱ（全角）とカタカナ、한국어 데이터",
    "données-réécrites-e\u0301te\u0301",
)
WIDTHS = (8, 16, 28, 29)
METRICS = ("em", "f1", "answer_nll", "rouge_l", "my_own")

CASES: list[tuple[str, list[Any], str]] = [
    *(("shownScore", [m, x], shown_score(m, x)) for m in ("f1", "answer_nll") for x in NUMBERS),
    *(("shownLoss", [x], f"{x:.3f}") for x in NUMBERS),
    *(("count", [x], count(x)) for x in COUNTS),
    *(("metricName", [metric], metric_name(metric)) for metric in METRICS),
    *(("duration", [t, "en"], duration(t, "en", tenths=False)) for t in TIMES),
    *(("duration", [t, "zh"], duration(t, "zh", tenths=False)) for t in TIMES),
    *(("shortened", [name, width], shortened(name, width)) for name in NAMES for width in WIDTHS),
    ("count", [None], NOTHING),
    ("shownLoss", [None], NOTHING),
]
CALLS = f"{json.dumps([case[:2] for case in CASES])}.map(([f, args]) => loracleText[f](...args))"


def by_node() -> list[str]:
    program = f"{asset('format.js')}\nconsole.log(JSON.stringify({CALLS}));"
    done = subprocess.run(["node", "-"], input=program, capture_output=True, text=True, check=True)
    found: list[str] = json.loads(done.stdout)
    return found


def by_browser(tmp_path: Path) -> list[str]:
    file = tmp_path / "page.html"
    file.write_text(f"<meta charset=utf-8><script>{asset('format.js')}</script>", encoding="utf-8")
    program = chromium_program()
    assert program is not None
    with open_page(program, tmp_path / "profile") as opened:
        opened.open(file.as_uri())
        found: list[str] = json.loads(str(opened.evaluate(f"JSON.stringify({CALLS})")))
    return found


def test_the_pages_write_numbers_as_every_other_reader_does(tmp_path: Path) -> None:
    if shutil.which("node"):
        found = by_node()
    elif chromium_program():
        found = by_browser(tmp_path)
    else:
        pytest.skip("needs node or Chromium")
    wrong = [(*case, text) for case, text in zip(CASES, found, strict=True) if text != case[2]]
    assert wrong == []


def test_no_page_writes_numbers_of_its_own() -> None:
    for name in ("live", "answers"):
        script = "".join(
            line for line in asset(f"{name}.js").splitlines() if "${x.toFixed" not in line
        )
        assert "toFixed" not in script, name
        assert "toLocaleString" not in script, name
