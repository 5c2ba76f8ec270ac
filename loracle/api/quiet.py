"""Keep the libraries' own progress bars and advice away from ours; errors still show."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence transformers and peft, and restore the caller's own settings afterwards."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    from transformers.utils import logging as transformers_logging

    shown: bool = transformers_logging.is_progress_bar_enabled()
    # peft imports bitsandbytes wherever it is installed, and that advises to install more.
    bitsandbytes = logging.getLogger("bitsandbytes")
    level = bitsandbytes.level
    bitsandbytes.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # Deprecations among transformers and peft are theirs to fix, not the user's.
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft)\.")
        warnings.filterwarnings("ignore", category=UserWarning, module=r"peft\.")
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            bitsandbytes.setLevel(level)
            if shown:
                transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
