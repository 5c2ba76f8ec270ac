"""Which hubs and mirrors respond."""

from __future__ import annotations

import os
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from loracle.data.hubs.repository import is_offline
from loracle.doctor.result import Finding

_AREA = "hubs"
_TIMEOUT_SECONDS = 4.0


class Place(NamedTuple):
    """An address to check. setting: the environment variable that sets it."""

    name: str
    address: str
    setting: str


def places() -> list[Place]:
    """The configured hubs, and the mirror that most users in China need."""
    hugging_face = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    model_scope = os.environ.get("MODELSCOPE_ENDPOINT", "https://www.modelscope.cn")
    found = [
        Place("Hugging Face", hugging_face, "HF_ENDPOINT"),
        Place("ModelScope", model_scope, "MODELSCOPE_ENDPOINT"),
    ]
    mirror = "https://hf-mirror.com"
    if hugging_face.rstrip("/") != mirror:
        found.append(Place("Hugging Face's mirror", mirror, "HF_ENDPOINT"))
    return found


def hub_findings() -> list[Finding]:
    """Contact all addresses in parallel, with a short timeout."""
    if is_offline():
        text = "offline (HF_HUB_OFFLINE is set): no connection was opened; caches only"
        return [Finding(_AREA, "network", "note", text)]
    asked = places()
    with ThreadPoolExecutor(len(asked)) as pool:
        answers = list(pool.map(lambda place: answer_of(place.address), asked))
    findings = [
        Finding(_AREA, place.name, "good" if ok else "note", f"{place.address}: {text}")
        for place, (ok, text) in zip(asked, answers, strict=True)
    ]
    if not any(ok for ok, _ in answers):
        findings.append(
            Finding(
                _AREA,
                "network",
                "attention",
                "no hub responds; models and data must be on this machine",
                "check the proxy (HTTPS_PROXY), or name a mirror: export HF_ENDPOINT=...; to work "
                "without a hub: export HF_HUB_OFFLINE=1",
            )
        )
    return findings


def answer_of(address: str) -> tuple[bool, str]:
    """Whether an address responds, and how fast or why not."""
    started = time.perf_counter()
    try:
        request = urllib.request.Request(address, method="HEAD")
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS):
            pass
    except urllib.error.HTTPError as error:
        # It responded, although it rejected this kind of request.
        if error.code >= 500:
            return False, f"responds with HTTP {error.code}"
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return False, f"does not respond ({reason})"
    return True, f"responds in {time.perf_counter() - started:.1f} s"
