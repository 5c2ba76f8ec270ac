"""An examination as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from loracle.doctor.result import Examination

_MARKS = {"good": "ok  ", "note": "note", "attention": "FIX "}


def finding_lines(found: Examination) -> Iterator[str]:
    """Each area with its findings, then what needs attention as a whole."""
    for area, findings in groupby(found.findings, key=lambda finding: finding.area):
        yield area
        for finding in findings:
            yield f"  {_MARKS[finding.state]}  {finding.name}: {finding.text}"
            if finding.fix:
                yield f"        -> {finding.fix}"
    num = sum(finding.state == "attention" for finding in found.findings)
    yield "nothing needs attention" if not num else f"{num} found that need attention"
