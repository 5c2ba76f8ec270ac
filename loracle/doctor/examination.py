"""`loracle doctor`: what this machine has and what it lacks, with what to do about it."""

from __future__ import annotations

from loracle.doctor.hardware import hardware_findings
from loracle.doctor.hubs import hub_findings
from loracle.doctor.result import Examination
from loracle.doctor.software import software_findings


def examined() -> Examination:
    """Check everything. Connects only to the hubs, and not at all with HF_HUB_OFFLINE."""
    return Examination((*hardware_findings(), *software_findings(), *hub_findings()))
