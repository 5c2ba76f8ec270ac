"""Which hubs and mirrors respond."""

from __future__ import annotations

import os
import time
import urllib.request
from threading import Thread
from typing import NamedTuple
from urllib.parse import urlsplit

from loracle.data.hubs.repository import is_offline
from loracle.doctor.result import Finding

AREA = "hubs"
_TIMEOUT_SECONDS = 4.0
_PATIENCE_SECONDS = 12.0
"""For an answer with all that no timeout covers, such as looking up the name."""


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


def wrong_address(place: Place) -> str | None:
    """What is wrong with an address as it is written; None if nothing is."""
    try:
        parts = urlsplit(place.address)
        is_valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_valid = False
    if is_valid and not any(character.isspace() for character in place.address):
        return None
    return f"{place.setting} is {place.address!r}, which is not an address of a hub"


def proxy_findings() -> list[Finding]:
    """The proxies that the environment sets, without their passwords."""
    proxies = urllib.request.getproxies()
    named = [f"{kind}: {_without_password(proxies[kind])}" for kind in sorted(proxies)]
    text = f"the environment sets a proxy ({', '.join(named)})"
    return [Finding(AREA, "proxy", "note", text)] if named else []


def _without_password(proxy: str) -> str:
    credentials, at, host = proxy.rpartition("@")
    scheme, mark, _ = credentials.rpartition("://")
    return f"{scheme}{mark}***@{host}" if at else proxy


def hub_findings() -> list[Finding]:
    """Contact all addresses in parallel, with a short timeout."""
    asked = places()
    wrong = {place: text for place in asked if (text := wrong_address(place)) is not None}
    findings = [
        Finding(AREA, place.name, "attention", text, f"unset {place.setting}, or name a mirror")
        for place, text in wrong.items()
    ]
    # The hub's library cannot even be imported with some of them.
    if not wrong and is_offline():
        text = "offline (HF_HUB_OFFLINE is set): no connection was opened; caches only"
        return [Finding(AREA, "network", "note", text)]
    if wrong:
        return findings
    answers = _answers([place.address for place in asked])
    findings += proxy_findings()
    findings += [
        Finding(AREA, place.name, "good" if ok else "note", f"{place.address}: {text}")
        for place, (ok, text) in zip(asked, answers, strict=True)
    ]
    if not any(ok for ok, _ in answers):
        findings.append(
            Finding(
                AREA,
                "network",
                "attention",
                "no hub responds; models and data must be on this machine",
                "check the proxy (HTTPS_PROXY), or name a mirror: export HF_ENDPOINT=...; to work "
                "without a hub: export HF_HUB_OFFLINE=1",
            )
        )
    return findings


def _answers(addresses: list[str]) -> list[tuple[bool, str]]:
    found: dict[str, tuple[bool, str]] = {}

    def ask(address: str) -> None:
        found[address] = answer_of(address)

    # As daemons, they do not keep the program from ending.
    threads = [Thread(target=ask, args=(address,), daemon=True) for address in addresses]
    deadline = time.monotonic() + _PATIENCE_SECONDS
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    late = (False, f"does not respond within {_PATIENCE_SECONDS:.0f} s")
    return [found.get(address, late) for address in addresses]


def answer_of(address: str) -> tuple[bool, str]:
    """Whether an address responds, and how fast or why not.

    Asked by the session of the hub's library: by the same proxy and certificates as a download.
    """
    from huggingface_hub import get_session

    started = time.perf_counter()
    try:
        code = get_session().head(address, timeout=_TIMEOUT_SECONDS).status_code
    # Its exceptions are those of an HTTP library that differs between versions.
    except Exception as error:  # noqa: BLE001
        lines = str(error).strip().splitlines()
        return False, f"does not respond ({lines[0] if lines else type(error).__name__})"
    # One that rejects this kind of request has responded.
    if code >= 500:
        return False, f"responds with HTTP {code}"
    return True, f"responds in {time.perf_counter() - started:.1f} s"
