"""Lets the modules of this folder be imported from it, without an installation: `cd training`."""

from __future__ import annotations

import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.append(str(REPOSITORY))

try:
    import loracle.experiment.alone  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"Loracle cannot be imported ({error}); install it with what it needs: "
        f"python -m pip install -c {REPOSITORY / 'constraints.txt'} -e '{REPOSITORY}[embedded]'"
    ) from error
