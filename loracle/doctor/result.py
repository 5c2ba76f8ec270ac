"""The results of an examination, as plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

State = Literal["good", "note", "attention"]


@dataclass(frozen=True)
class Finding:
    """One thing checked. note: something could be better; attention: something is wrong.

    fix: what to do, as a command if there is one; "" if there is nothing to do.
    """

    area: str
    name: str
    state: State
    text: str
    fix: str = ""


@dataclass(frozen=True)
class Examination:
    """Everything that was checked, most interesting first."""

    findings: tuple[Finding, ...]

    @property
    def needs_attention(self) -> bool:
        return any(finding.state == "attention" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        return {
            "version": 1,
            "needs_attention": self.needs_attention,
            "findings": [asdict(finding) for finding in self.findings],
        }
