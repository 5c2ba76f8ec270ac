"""`loracle doctor`: what this machine has and lacks, each with what to do."""

from __future__ import annotations

from loracle.doctor.hardware import hardware_findings
from loracle.doctor.hubs import hub_findings
from loracle.doctor.result import Examination
from loracle.doctor.software import software_findings


def examined() -> Examination:
    """Look at everything. Opens connections only to the hubs, and none with HF_HUB_OFFLINE."""
    return Examination((*hardware_findings(), *software_findings(), *hub_findings()))
