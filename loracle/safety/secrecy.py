"""Passwords and access tokens never reach a log, a record, a page or a terminal.

A secret is recognised by its form (hf_..., sk-..., the user in a URL), by the name of its option
or setting (--api-key, token=...), or because the environment has it under such a name (HF_TOKEN).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_HIDDEN = "[hidden]"
_SECRET = r"(?:token|secret|password|passwd|credentials?|(?:api|access|secret)[-_]?key)"
_SECRET_OPTION = re.compile(rf"-[^=]*?[-_.]?{_SECRET}", re.IGNORECASE)
_SECRET_SETTING = re.compile(rf"((?:^|[-_.=]){_SECRET}=).+", re.IGNORECASE)
# As in the query of a URL, in the middle of text.
_SECRET_PARAMETER = re.compile(rf"([?&;](?:[\w.-]*[-_.])?{_SECRET}=)[^&\s\"'#]+", re.IGNORECASE)
_SECRET_VARIABLE = re.compile(rf"(?:^|_){_SECRET}$", re.IGNORECASE)
# Access tokens of known services by their first letters, and the user of a URL.
_SECRET_VALUE = re.compile(
    r"\b(?:hf_|sk-|gh[pousr]_|github_pat_|glpat-|AKIA|xox[bap]-|ms-[0-9a-f]{8}-)[\w-]{12,}"
    # In a hub's address, this part is a name: hf://gpt2@main.
    r"|(?<!hf://)(?<!ms://)(?<=://)[^/@\s]+(?=@)"
)
# A shorter value may occur anywhere, and hiding it would break words apart.
_MIN_CHARACTERS = 8


def without_secrets(text: str) -> str:
    """The text with every secret in it hidden."""
    for value in _secrets_of(os.environ):
        text = text.replace(value, _HIDDEN)
    return _SECRET_PARAMETER.sub(rf"\1{_HIDDEN}", _SECRET_VALUE.sub(_HIDDEN, text))


def values_without_secrets(value: Any) -> Any:
    """A JSON value with the secrets in all its texts hidden."""
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, Mapping):
        return {key: values_without_secrets(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [values_without_secrets(item) for item in value]
    return value


def arguments_without_secrets(arguments: Sequence[str]) -> list[str]:
    """The arguments without secrets: an option's name may also show that its value is one."""
    kept = []
    previous = ""
    for argument in arguments:
        shown = without_secrets(_SECRET_SETTING.sub(rf"\1{_HIDDEN}", argument))
        kept.append(_HIDDEN if _SECRET_OPTION.fullmatch(previous) else shown)
        previous = argument
    return kept


def has_secret(text: str) -> bool:
    """Whether the text holds an access token or the user of a URL."""
    return without_secrets(text) != text


def _secrets_of(variables: Mapping[str, str]) -> Iterator[str]:
    """The values of variables that are named as secrets, and the password in any URL."""
    for name, value in variables.items():
        if _SECRET_VARIABLE.search(name) and len(value) >= _MIN_CHARACTERS:
            yield value
        elif "://" in value:
            for found in re.findall(r"://([^/@\s]+)@", value):
                yield from (part for part in found.split(":") if len(part) >= _MIN_CHARACTERS)
