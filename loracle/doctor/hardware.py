"""Processor, memory, disk and cards."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

from loracle.doctor.result import Finding
from loracle.files import cache_folder
from loracle.model.memory import free_memory
from loracle.text import counted, size

_AREA = "hardware"
_LITTLE_MEMORY_BYTES = 3e9
_LITTLE_DISK_BYTES = 5e9
_SMI_TIMEOUT_SECONDS = 20
_CPU_INFO = Path("/proc/cpuinfo")


def hardware_findings() -> list[Finding]:
    """The hardware of this machine."""
    return [processor_finding(), memory_finding(), *disk_findings(), *card_findings()]


def processor_finding(cpu_info: Path = _CPU_INFO) -> Finding:
    """The processor, and whether it multiplies bfloat16 natively."""
    text = cpu_info.read_text() if cpu_info.is_file() else ""
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    flags = re.search(r"^flags\s*:\s*(.+)$", text, re.MULTILINE)
    has = set(flags[1].split()) if flags else set()
    vectors = next((n for n in ("avx512f", "avx2") if n in has), "no AVX2")
    bfloat16 = next((name for name in ("amx_bf16", "avx512_bf16") if name in has), None)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = model[1].strip() if model else platform.processor() or platform.machine()
    speed = f"bfloat16 ({bfloat16})" if bfloat16 else "no bfloat16, so float32 is used: slower"
    text = f"{name}, {counted(cores or 1, 'core')} for this process, {vectors}, {speed}"
    return Finding(_AREA, "processor", "good" if bfloat16 else "note", text)


def memory_finding() -> Finding:
    """The memory this process may still use, including containers' limits."""
    free = free_memory("cpu")
    if free is None:
        return Finding(_AREA, "memory", "note", "this system does not report free memory")
    if free.num_bytes < _LITTLE_MEMORY_BYTES:
        fix = (
            "end other programs, or raise the container's limit: even the embedded model needs 3 GB"
        )
        return Finding(
            _AREA, "memory", "attention", f"{size(free.num_bytes)} of free {free.place}", fix
        )
    return Finding(_AREA, "memory", "good", f"{size(free.num_bytes)} of free {free.place}")


def disk_findings() -> list[Finding]:
    """Free space where runs are written and where models are kept."""
    hub = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
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
            findings.append(Finding(_AREA, name, "attention", f"{folder} cannot be written", fix))
        elif free < _LITTLE_DISK_BYTES:
            fix = "free some space; a 7B model takes 15 GB"
            findings.append(Finding(_AREA, name, "attention", text, fix))
        else:
            findings.append(Finding(_AREA, name, "good", text))
    return findings


def card_findings() -> list[Finding]:
    """The cards as named by the driver; one note if there is none."""
    lines = smi_lines()
    if isinstance(lines, str):
        if not lines:
            return [Finding(_AREA, "cards", "note", "no NVIDIA card; the CPU is used")]
        fix = "repair the driver: nvidia-smi must run"
        return [Finding(_AREA, "cards", "attention", lines, fix)]
    return [Finding(_AREA, f"card {i}", "good", line) for i, line in enumerate(lines)]


def smi_lines() -> list[str] | str:
    """Name, memory and driver of every card; else why they are unknown, "" without a driver."""
    if shutil.which("nvidia-smi") is None:
        return ""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,memory.free,driver_version"]
    try:
        asked = subprocess.run(
            [*query, "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=_SMI_TIMEOUT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"nvidia-smi does not respond ({error})"
    if asked.returncode:
        said = (asked.stdout + asked.stderr).strip().splitlines()
        return f"nvidia-smi fails: {said[0] if said else asked.returncode}"
    return [_card(line) for line in asked.stdout.splitlines() if line.strip()]


def _card(line: str) -> str:
    name, total, free, driver = (part.strip() for part in (line.split(",") + [""] * 4)[:4])
    return f"{name}, {total}, {free} free, driver {driver}"
