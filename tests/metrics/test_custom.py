"""Metrics of the user's own, from a module in the working folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from loracle.errors import PlanError
from loracle.metrics import check_usable, get_metric, module_hashes, score
from loracle.metrics.custom import load_function
from loracle.plan import difference, fingerprint, freeze, load_plan

MODULE = """
def contains(prediction, references):
    return any(reference in prediction for reference in references)

def words(prediction, references):
    return len(prediction.split())

def unknown(prediction, references):
    return float("nan")

number = 3
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with a module of metrics, and one that fails."""
    (tmp_path / "my_metrics.py").write_text(MODULE)
    (tmp_path / "broken_metrics.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    load_function.cache_clear()
    sys.modules.pop("my_metrics", None)


def test_a_function_scores_with_the_others() -> None:
    assert check_usable("my_metrics:contains").name == "my_metrics:contains"
    found = score("in Denver", ["Denver"], ["my_metrics:contains", "em"])
    assert found == {"my_metrics:contains": 1.0, "em": 0.0}


def test_a_report_knows_the_metric_without_importing_it() -> None:
    metric = get_metric("my_metrics:contains")
    assert (metric.unit, metric.higher_is_better, metric.needs_model) == ("share", True, False)
    assert "my_metrics" not in sys.modules


def test_the_plan_freezes_the_module_that_scores(folder: Path) -> None:
    asked = ["em", "my_metrics:contains", "f1", "my_metrics:contains"]
    found = module_hashes(asked)
    assert list(found) == ["my_metrics:contains"]
    path = folder / "data.jsonl"
    path.write_text("{}\n")
    plan = load_plan(None, candidates=[str(path)], evaluations=[str(path)])
    first = freeze(plan, metric_modules=found)
    (folder / "my_metrics.py").write_text(MODULE.replace("any(", "all("))
    second = freeze(plan, metric_modules=module_hashes(asked))
    assert fingerprint(first) != fingerprint(second)
    (line,) = difference(first, second)
    assert line.startswith("metric_modules.my_metrics:contains: ")
    assert "metric_modules" not in freeze(plan, metric_modules=module_hashes(["em"]))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing_metrics:f", r"cannot be imported from .* \(ModuleNotFoundError"),
        ("broken_metrics:f", r"cannot be imported from .* \(ZeroDivisionError: division by zero"),
        ("my_metrics:f", "my_metrics has no function f"),
        ("my_metrics:number", "my_metrics has no function number"),
        ("my metrics:f", "there is no metric 'my metrics:f'"),
        ("my_metrics:", "there is no metric"),
    ],
)
def test_what_cannot_be_called_is_refused_before_a_run(name: str, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        check_usable(name)


@pytest.mark.parametrize("name", ["words", "unknown"])
def test_a_value_that_is_no_share_is_an_error(name: str) -> None:
    with pytest.raises(PlanError, match=r"returned .* for the prediction 'two words'; expected"):
        score("two words", ["x"], [f"my_metrics:{name}"])
