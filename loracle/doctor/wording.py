"""An examination as lines for the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from loracle.doctor.result import Examination

_MARKS = {"good": "ok  ", "note": "note", "attention": "FIX "}


def finding_lines(found: Examination) -> Iterator[str]:
    """Each area with its findings, then a summary of what needs attention."""
    for area, findings in groupby(found.findings, key=lambda finding: finding.area):
        yield area
        for finding in findings:
            yield f"  {_MARKS[finding.state]}  {finding.name}: {finding.text}"
            if finding.fix:
                yield f"        -> {finding.fix}"
    num = sum(finding.state == "attention" for finding in found.findings)
    need = "finding needs" if num == 1 else "findings need"
    yield "nothing needs attention" if not num else f"{num} {need} attention"
