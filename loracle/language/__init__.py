"""The language of Loracle's messages: English or Chinese, by a flag or by the locale.

`catalogue` contains the command line's messages in both. Logs, events and the bodies of errors are
in English.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Literal

Language = Literal["en", "zh"]
LanguageChoice = Literal["auto", "en", "zh"]
"""`auto` takes the language of the locale."""

_LOCALE_VARIABLES = ("LC_ALL", "LC_MESSAGES", "LANG")


def chosen_language(
    choice: LanguageChoice = "auto", environment: Mapping[str, str] | None = None
) -> Language:
    """The language to use.

    Args:
        environment: Where the locale is looked up; None means this process's environment.
    """
    if choice != "auto":
        return choice
    variables = os.environ if environment is None else environment
    # The first variable that is set decides, as in POSIX.
    locale = next((variables[name] for name in _LOCALE_VARIABLES if variables.get(name)), "")
    return "zh" if locale.lower().startswith("zh") else "en"
