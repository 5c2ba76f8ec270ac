"""Whether this torch fits the driver and the cards."""

from __future__ import annotations

import warnings
from typing import NamedTuple

from loracle.doctor.driver import Driver
from loracle.doctor.result import Finding
from loracle.doctor.software import AREA
from loracle.text import counted


class Build(NamedTuple):
    """What torch was built for. cuda, hip: a version; None: not built for it."""

    version: str
    cuda: str | None = None
    hip: str | None = None

    @property
    def platform(self) -> str:
        if self.hip is not None:
            return f"ROCm {self.hip}"
        return "the CPU" if self.cuda is None else f"CUDA {self.cuda}"


def torch_findings(driver: Driver) -> list[Finding]:
    """Whether this torch is compatible with this driver and these cards."""
    try:
        import torch
    except (ImportError, OSError) as error:
        fix = "pip install --force-reinstall torch"
        return [Finding(AREA, "torch", "attention", f"cannot be imported ({error})", fix)]
    # torch says in a warning why it cannot use a driver, such as one that is too old.
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        available = torch.cuda.is_available()
    build = Build(torch.__version__, torch.version.cuda, torch.version.hip)
    said = str(warned[0].message).strip().partition("\n")[0] if warned else ""
    findings = [fit_finding(build, available, driver, said)]
    if available and build.hip is None:
        built_for = torch.cuda.get_arch_list()
        for i in range(torch.cuda.device_count()):
            capability = torch.cuda.get_device_capability(i)
            if not has_kernels_for(capability, built_for):
                findings.append(_no_kernels(build, i, capability, built_for))
    return findings


def fit_finding(build: Build, available: bool, driver: Driver, said: str = "") -> Finding:
    """The conclusion from torch's build, its view of the cards and the driver's.

    said: torch's own reason why it finds no card, if it gave one.
    """
    torch = f"{build.version}, built for {build.platform},"
    if available:
        return Finding(AREA, "torch", "good", f"{torch} uses the cards")
    if not driver.cards:
        if driver.problem:
            text = f"{torch} finds no card; the driver does not say whether there is one"
            return Finding(AREA, "torch", "note", text)
        return Finding(AREA, "torch", "good", f"{torch} runs on the CPU; the driver shows no card")
    shows = f"the driver shows {counted(len(driver.cards), 'card')}"
    if build.cuda is None:
        text = f"{torch} cannot use NVIDIA cards, but {shows}"
        fix = f"pip install --force-reinstall torch=={build.version.partition('+')[0]}"
        return Finding(AREA, "torch", "attention", text, fix)
    text = f"{torch} finds no card, but {shows}{f' ({said})' if said else ''}"
    fix = (
        f"update the NVIDIA driver to one that supports CUDA {build.cuda}, or install a torch for "
        "an older CUDA; if CUDA_VISIBLE_DEVICES is set, unset it"
    )
    return Finding(AREA, "torch", "attention", text, fix)


def has_kernels_for(capability: tuple[int, int], built_for: list[str]) -> bool:
    """Whether torch's kernels run on a card: those for its generation (sm_90), if not for a later
    member of it, and PTX for any earlier card (compute_90).

    built_for: as torch.cuda.get_arch_list() gives it.
    """
    for architecture in built_for:
        kind, _, digits = architecture.rstrip("af").partition("_")
        if not digits.isdecimal():
            continue
        generation, member = divmod(int(digits), 10)
        if kind == "compute" and (generation, member) <= capability:
            return True
        if kind == "sm" and generation == capability[0] and member <= capability[1]:
            return True
    return False


def _no_kernels(
    build: Build, index: int, capability: tuple[int, int], built_for: list[str]
) -> Finding:
    text = (
        f"{build.version} has no kernels for card {index} (sm_{capability[0]}{capability[1]}); "
        f"it is built for {', '.join(built_for)}"
    )
    fix = "install the torch for this card: https://pytorch.org/get-started/locally names it"
    return Finding(AREA, f"torch on card {index}", "attention", text, fix)
