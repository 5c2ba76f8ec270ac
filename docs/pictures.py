"""Draw docs/images/report-{light,dark}.png from the demo run, with headless Chromium.

make demo && .venv/bin/python docs/pictures.py
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
REPORT = REPOSITORY / "runs" / "demo" / "report.html"
WIDTH_PIXELS, HEIGHT_PIXELS = 1200, 1320


def main() -> None:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        sys.exit("Chromium is needed: apt-get install chromium")
    if not REPORT.is_file():
        sys.exit(f"there is no {REPORT}: run `make demo` first")
    for theme in ("light", "dark"):
        draw(program, theme, Path(__file__).with_name("images") / f"report-{theme}.png")


def draw(program: str, theme: str, picture: Path) -> None:
    """One picture of the top of the report."""
    picture.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [
                program,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
                "--disable-background-networking",
                "--hide-scrollbars",
                f"--user-data-dir={folder}",
                *(["--force-dark-mode"] if theme == "dark" else []),
                f"--window-size={WIDTH_PIXELS},{HEIGHT_PIXELS}",
                f"--screenshot={picture}",
                REPORT.as_uri(),
            ],
            check=True,
            timeout=120,
            capture_output=True,
        )


if __name__ == "__main__":
    main()
