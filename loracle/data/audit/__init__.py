"""The audit: what is doubtful within a dataset, and what training rows know of an evaluation set.

    [Example] --rows--> AuditedSet --quality--> [Finding]
                        AuditedSet × AuditedSet --leakage--> Leakage

    findings.py     what is found, as plain data     rows.py        rows taken apart and normalised
    leakage.py      training against evaluation      quality.py     within one dataset
    near.py         near-duplicates by MinHash       containment.py many texts within many others
    normalizing.py  width, case, spaces, punctuation

It names and never alters: what to do about a finding is its reader's decision.
"""

from __future__ import annotations

from loracle.data.audit.findings import (
    FINDING_MEANINGS,
    LEAK_MEANINGS,
    Extractiveness,
    Finding,
    Leak,
    Leakage,
    RowReference,
)
from loracle.data.audit.leakage import leakage
from loracle.data.audit.quality import extractiveness, findings
from loracle.data.audit.rows import AuditedSet, audited

__all__ = [
    "FINDING_MEANINGS",
    "LEAK_MEANINGS",
    "AuditedSet",
    "Extractiveness",
    "Finding",
    "Leak",
    "Leakage",
    "RowReference",
    "audited",
    "extractiveness",
    "findings",
    "leakage",
]
