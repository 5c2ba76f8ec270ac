"""Hide the libraries' own progress bars and advice; errors are still shown."""

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
    # peft imports bitsandbytes if it is installed, and that advises installing more.
    bitsandbytes = logging.getLogger("bitsandbytes")
    level = bitsandbytes.level
    bitsandbytes.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # Deprecations between transformers and peft are for them to fix, not for the user.
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft)\.")
        warnings.filterwarnings("ignore", category=UserWarning, module=r"peft\.")
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            bitsandbytes.setLevel(level)
            if shown:
                transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
