"""`loracle doctor`: what this machine has and what it lacks, with what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from loracle.doctor import hardware, hubs, software, torch_build
from loracle.doctor.driver import driver
from loracle.doctor.result import Examination, Finding


def examined() -> Examination:
    """Check everything. Connects only to the hubs, and not at all with HF_HUB_OFFLINE.

    A part that cannot be checked is a finding too, and the others are still checked.
    """
    # Asked once: a driver that hangs takes its time.
    found = driver()
    parts: list[tuple[str, str, Callable[[], list[Finding]]]] = [
        (hardware.AREA, "processor", lambda: [hardware.processor_finding()]),
        (hardware.AREA, "memory", lambda: [hardware.memory_finding()]),
        (hardware.AREA, "disk", hardware.disk_findings),
        (hardware.AREA, "cards", lambda: hardware.card_findings(found)),
        (software.AREA, "versions", lambda: [software.versions_finding()]),
        (software.AREA, "torch", lambda: torch_build.torch_findings(found)),
        (software.AREA, "attention", lambda: [software.attention_finding()]),
        (software.AREA, "CPU kernels", lambda: [software.kernels_finding()]),
        (software.EXTRAS_AREA, "extras", software.extra_findings),
        (hubs.AREA, "hubs", hubs.hub_findings),
    ]
    return Examination(tuple(finding for part in parts for finding in _checked(*part)))


def _checked(area: str, name: str, check: Callable[[], list[Finding]]) -> Iterator[Finding]:
    try:
        yield from check()
    # Whatever is broken here is what the reader wants to know.
    except Exception as error:  # noqa: BLE001
        lines = str(error).strip().splitlines()
        said = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
        yield Finding(area, name, "attention", f"cannot be checked ({said})")
