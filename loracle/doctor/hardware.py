"""Processor, memory, disk and cards."""

from __future__ import annotations

import os
import platform
import re
import shutil
from pathlib import Path

from loracle.doctor.driver import Driver
from loracle.doctor.result import Finding
from loracle.files import cache_folder
from loracle.model.memory import free_memory
from loracle.text import counted, size

AREA = "hardware"
_LITTLE_MEMORY_BYTES = 3e9
_LITTLE_DISK_BYTES = 5e9
_BFLOAT16 = ("amx_bf16", "avx512_bf16")
_VECTORS = ("avx512f", "avx512_f", "avx2")
_ARM_VECTORS = ("sve2", "sve", "asimd", "neon")
_X86_FLAGS = {"sse", "sse2", *_VECTORS}
_CPU_INFO = Path("/proc/cpuinfo")


def processor_finding(cpu_info: Path = _CPU_INFO) -> Finding:
    """The processor, and whether it multiplies bfloat16 natively."""
    # Not on every system, and not in every sandbox.
    text = cpu_info.read_text(errors="replace") if os.access(cpu_info, os.R_OK) else ""
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    has = set(flags[1].split()) if flags else _torch_capabilities()
    vectors = next((name for name in _VECTORS if name in has), "no AVX2")
    if not has & _X86_FLAGS:
        vectors = next((name for name in _ARM_VECTORS if name in has), "unknown vector units")
    bfloat16 = next((name for name in _BFLOAT16 if name in has), None)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = model[1].strip() if model else platform.processor() or platform.machine()
    speed = f"bfloat16 ({bfloat16})" if bfloat16 else "no bfloat16, so float32 is used: slower"
    text = f"{name}, {counted(cores or 1, 'core')} for this process, {vectors}, {speed}"
    return Finding(AREA, "processor", "good" if bfloat16 else "note", text)


def _torch_capabilities() -> set[str]:
    """What torch finds in the processor, by the names that Linux uses."""
    try:
        import torch
    except (ImportError, OSError):
        return set()
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return {str(name) for name, there in capabilities.items() if there is True}


def memory_finding() -> Finding:
    """The memory this process may still use, including containers' limits."""
    free = free_memory("cpu")
    if free is None:
        return Finding(AREA, "memory", "note", "this system does not report free memory")
    if free.num_bytes < _LITTLE_MEMORY_BYTES:
        fix = (
            "close other programs, or raise the container's limit: "
            "even the embedded model needs 3 GB"
        )
        return Finding(
            AREA, "memory", "attention", f"{size(free.num_bytes)} of free {free.place}", fix
        )
    return Finding(AREA, "memory", "good", f"{size(free.num_bytes)} of free {free.place}")


def disk_findings() -> list[Finding]:
    """Free space where runs are written and where models are kept."""
    home = os.environ.get("HF_HOME") or "~/.cache/huggingface"
    hub = Path(os.environ.get("HF_HUB_CACHE") or home).expanduser()
    folders = {
        "disk for runs": Path.cwd(),
        "disk for the cache": cache_folder(),
        "disk for hubs": hub,
    }
    findings = []
    for name, folder in folders.items():
        place = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
        free = shutil.disk_usage(place).free
        text = f"{size(free)} free at {folder}"
        if not os.access(place, os.W_OK):
            fix = "choose another folder: --out for runs, LORACLE_CACHE, HF_HOME"
            findings.append(Finding(AREA, name, "attention", f"{folder} cannot be written", fix))
        elif free < _LITTLE_DISK_BYTES:
            fix = "free some space; a 7B model takes 15 GB"
            findings.append(Finding(AREA, name, "attention", text, fix))
        else:
            findings.append(Finding(AREA, name, "good", text))
    return findings


def card_findings(found: Driver) -> list[Finding]:
    """The cards as named by the driver; one note if there is none."""
    findings = [Finding(AREA, f"card {i}", "good", card) for i, card in enumerate(found.cards)]
    if found.problem:
        fix = "repair the driver: nvidia-smi must run and name the cards"
        return [*findings, Finding(AREA, "cards", "attention", found.problem, fix)]
    return findings or [Finding(AREA, "cards", "note", "no NVIDIA card; the CPU is used")]
