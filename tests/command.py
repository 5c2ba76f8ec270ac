"""The command line, called in this process."""

from __future__ import annotations

import sys

import pytest

from loracle import cli


def loracle(*arguments: object) -> int:
    """Run a command; returns its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["loracle", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    return int(ended.value.code or 0)
