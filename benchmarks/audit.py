"""What `loracle check` of a training set against 500 evaluation rows takes: time, memory, findings.

    python benchmarks/audit.py [--rows 10000 --rows 100000 --rows 1000000] [--reference FOLDER]

The rows are made (audit_rows.py): 1 kB each, five languages. Every measurement is a process of its
own, started fresh. Peak memory is that of the process and all its children at the same moment,
looked at 20 times a second (PSS: shared pages count once); `base` is a process that has imported
the same and done nothing. The hash is of everything that the check found.

--reference: a folder with another version of Loracle, measured in turn with this one; the hashes
must be equal.

Other work on the machine shows in the wall clock, not in the processor's seconds: quote both.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from audit_rows import write_files
from header import ROOT
from turns import argument_parser, write_result

_SECONDS_BETWEEN_LOOKS = 0.05


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--rows", type=int, action="append", help="of the training set")
    parser.add_argument("--evaluation", type=int, default=500)
    parser.add_argument("--reference", type=Path, help="a folder with another version")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(nothing=arguments.measure == "base")
        return
    sizes = arguments.rows or [10_000, 100_000, 1_000_000]
    figures = {str(size): figures_of(size, arguments) for size in sizes}
    write_result(arguments.name, "audit", {"rows": figures})


def figures_of(size: int, arguments: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        num_bytes = write_files(Path(folder), size, arguments.evaluation)
        figures: dict[str, Any] = {"megabytes": round(num_bytes / 1e6, 1)}
        figures |= _with_memory(run(Path(folder), ROOT), ROOT, Path(folder), size)
        if arguments.reference:
            tree = arguments.reference.resolve()
            found = _with_memory(run(Path(folder), tree), tree, Path(folder), size)
            figures["reference"] = found
            figures["equal_findings"] = found["findings_sha256"] == figures["findings_sha256"]
    print(size, json.dumps(figures, indent=2), flush=True)
    return figures


def _with_memory(found: dict[str, Any], tree: Path, folder: Path, size: int) -> dict[str, Any]:
    base = run(folder, tree, "base")["peak_mb"]
    beyond = found["peak_mb"] - base
    return {
        **found,
        "base_mb": base,
        "beyond_base_mb": round(beyond, 1),
        "beyond_base_bytes_a_row": round(beyond * 2**20 / size),
    }


def run(folder: Path, tree: Path, what: str = "check") -> dict[str, Any]:
    """Check the folder's files by the Loracle in `tree`, in a process of its own."""
    environment = {
        **{name: value for name, value in os.environ.items() if name != "LORACLE_CACHE"},
        "PYTHONPATH": str(tree),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        # Findings that were kept would be no measurement.
        "XDG_CACHE_HOME": str(folder / f"cache-{hashlib.md5(str(tree).encode()).hexdigest()}"),
    }
    command = [sys.executable, str(Path(__file__).resolve()), "--measure", what]
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    )
    peak = num_processes = 0
    while process.poll() is None:
        sizes = [_pss(pid) for pid in _tree(process.pid)]
        peak, num_processes = max(peak, sum(sizes)), max(num_processes, len(sizes))
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    assert process.stdout is not None
    if process.returncode:
        raise SystemExit(f"the measured process ended with status {process.returncode}")
    found: dict[str, Any] = json.loads(process.stdout.read())
    return {**found, "peak_mb": round(peak / 1024, 1), "processes": num_processes}


def _tree(root: int) -> list[int]:
    """The process and all below it."""
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                waiting += map(int, children.read_text().split())
            except OSError:
                continue
    return found


def _pss(pid: int) -> int:
    """Kibibytes in memory; shared ones by the process's share of them."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")), 0)


def measure(*, nothing: bool) -> None:
    """Check train.jsonl against test.jsonl here, and print what it took."""
    from loracle.data_check.datasets import check_files

    if nothing:
        import py3langid
        import scipy.sparse  # noqa: F401

        py3langid.classify("the model of languages is loaded when it is first used")
        time.sleep(3 * _SECONDS_BETWEEN_LOOKS)
        print("{}")
        return
    started = time.perf_counter()
    checked = check_files(["train.jsonl"], ["test.jsonl"])
    seconds = time.perf_counter() - started
    found = json.dumps(checked.to_dict(), sort_keys=True).encode()
    usages = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    figures = {
        "wall_seconds": round(seconds, 2),
        "processor_seconds": round(sum(u.ru_utime + u.ru_stime for u in usages), 2),
        "num_findings": {f.kind: f.num_rows for f in checked.reports[0].findings},
        "num_leaked": len(checked.leakages[0].leaked_ids),
        "findings_sha256": hashlib.sha256(found).hexdigest(),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
