"""What all commands share: the application, exit codes, and how things are printed."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from typing import Any

import typer

from loracle.secrecy import without_secrets

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2

app = typer.Typer(
    help="Tells which dataset is worth fine-tuning on.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _root() -> None:
    """Tells which dataset is worth fine-tuning on."""
    _prepare_stderr()


def print_json(value: Any) -> None:
    """To standard output, readably."""
    print(json.dumps(value, ensure_ascii=False, indent=2))


def print_problems(problems: tuple[str, ...], label: str = "error") -> None:
    for problem in problems:
        print(f"{label}: {without_secrets(problem)}", file=sys.stderr)


def quiet_libraries() -> None:
    """Keep the libraries' own progress bars and advice off the terminal; errors still show."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    # Deprecations among transformers and peft are theirs to mend, not the user's.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft)\.")
    warnings.filterwarnings("ignore", category=UserWarning, module=r"peft\.")
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def _prepare_stderr() -> None:
    """Show Loracle's own messages, and the hubs' progress bars to who is there to see them."""
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("TQDM_DISABLE", "1")
    logger = logging.getLogger("loracle")
    logger.setLevel(logging.INFO)
    # On the root logger, it would show again what the libraries' own handlers show.
    logger.handlers = [logging.StreamHandler()]
