"""The script and the notebook run as they are, on copies, with the embedded model."""

from __future__ import annotations

import runpy
import shutil
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.mark.slow
def test_the_script_compares_two_datasets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    arguments = ["--out", str(out), "--steps", "2", "--questions", "20"]
    monkeypatch.setattr(sys, "argv", ["compare_two_datasets.py", *arguments])
    runpy.run_path(str(EXAMPLES / "compare_two_datasets.py"), run_name="__main__")
    shown = capsys.readouterr().out
    assert f"Report: {out}/report.html" in shown
    assert "candidate" in shown
    assert (out / "report.html").is_file()


@pytest.mark.slow
def test_the_notebook_runs_from_its_first_cell_to_its_last(tmp_path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    folder = shutil.copytree(EXAMPLES, tmp_path / "examples")
    notebook = nbformat.read(folder / "which_dataset.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "commit it without outputs"
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=1200, kernel_name="python3", resources=resources).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    pages = [
        output["data"]["text/html"] for output in outputs if "text/html" in output.get("data", {})
    ]
    # The run itself, then three frames.
    assert len(pages) == 4
    assert "<td>clean</td>" in pages[0]
    assert (folder / "runs/notebook/report.html").is_file()
