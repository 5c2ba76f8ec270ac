"""report.html: one file that needs no network, made from a run folder's files alone.

    RunRecord --sections--> plain values --templates in assets/--> HTML with style, scripts, charts

The page allows itself only its own style and scripts (a Content-Security-Policy with
their hashes). Text of data and models is escaped by the templates, or packed (`answers`) and shown
as text. The same run folder gives the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from loracle import __version__
from loracle.errors import RunFolderError
from loracle.files import write_atomically
from loracle.report import sections
from loracle.report.drawing import drawing
from loracle.report.results import read_results
from loracle.report.run_record import OLDEST_RESULTS, RunRecord, read_run
from loracle.run_folder.folder import RunFolder

if TYPE_CHECKING:
    import jinja2

REPORT_NAME = "report.html"

# Escaped text has no backtick of its own.
_CODE = re.compile(r"`([^`\n]+)`")
_ASSETS = resources.files("loracle.report") / "assets"


class Page(NamedTuple):
    """A page and its Content-Security-Policy, which the page also contains."""

    text: str
    policy: str


def write_report(root: Path | str) -> Path:
    """Write RUN/report.html and return its path.

    Raises RunFolderError if the folder is not a finished run, or is damaged.
    """
    record = read_run(root)
    path = record.root / REPORT_NAME
    # Half of a surrogate pair, which JSON can hold and UTF-8 cannot, becomes a reference that
    # browsers show as a replacement character.
    write_atomically(path, build_page(record).text.encode("utf-8", "xmlcharrefreplace"))
    return path


def build_page(record: RunRecord, *, live_version: str | None = None) -> Page:
    """The whole page.

    live_version: for a page that a server keeps up to date: the server's name for this state of
    the run's files. The run may then be unfinished.
    """
    scripts = ["head", "format", "answers"] + (["live"] if live_version is not None else [])
    with drawing():
        values = sections.all_sections(record) | {"live_version": live_version}
    return _page("report.html.j2", values, scripts)


def decision_of(root: Path) -> tuple[str, str] | None:
    """A run's decision in English and Chinese, or why it cannot be read; None: none yet."""
    path = RunFolder(root).results
    if not path.is_file():
        return None
    try:
        RunFolder(root).require_whole(path)
        decisions = read_results(path, oldest=OLDEST_RESULTS).get("decisions")
    except RunFolderError as error:
        return str(error), str(error)
    if not decisions:
        return None
    sentence = decisions[0]["sentence"]
    return sentence["en"], sentence["zh"]


def build_runs_page(folder: str, runs: Sequence[Mapping[str, Any]]) -> Page:
    """The list of runs in a folder, for a server. runs: name, path, state and decision for each."""
    return _page("runs.html.j2", {"folder": folder, "runs": runs}, ["head"])


def _page(template: str, values: Mapping[str, Any], script_names: Sequence[str]) -> Page:
    style = asset("style.css")
    scripts = {name: asset(f"{name}.js") for name in script_names}
    # A page opened from disk connects to nothing; a served page connects only to its own event
    # stream.
    extra = ("connect-src 'self'",) if "live" in scripts else ()
    policy = content_policy(style, scripts, *extra)
    given = {"style": style, "scripts": scripts, "policy": policy, "version": __version__}
    return Page(render(template, {**values, **given}), policy)


def render(template: str, values: Mapping[str, Any]) -> str:
    """Fill a template from assets/. Every value is escaped except SVG and our own files."""
    return _environment().get_template(template).render(values)


def content_policy(style: str, scripts: Mapping[str, str], *extra: str) -> str:
    """The Content-Security-Policy: nothing but this style and these scripts, by their hashes."""
    return "; ".join(
        (
            "default-src 'none'",
            f"style-src {_source(style)}",
            f"script-src {' '.join(map(_source, scripts.values()))}",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            *extra,
        )
    )


@cache
def asset(name: str) -> str:
    """A file from assets/, marked as our own so that it is not escaped."""
    import markupsafe

    return markupsafe.Markup((_ASSETS / name).read_text(encoding="utf-8"))


@cache
def _environment() -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("loracle.report", "assets"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["code"] = with_code
    return environment


def with_code(text: object) -> str:
    """A sentence as HTML, escaped: what stands between backticks, a command or a key, as code."""
    import markupsafe

    escaped = markupsafe.escape(text)
    return markupsafe.Markup(_CODE.sub(r"<code>\1</code>", str(escaped)))


def _source(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
