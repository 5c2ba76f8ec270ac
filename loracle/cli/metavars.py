"""What stands for a value in --help: FILE, KEY=VALUE, not the type that Python has for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

METAVARS: Mapping[str, str] = {
    # Arguments, by their names in the code.
    "candidates": "DATASET",
    "dataset": "DATASET",
    "file": "FILE",
    "folder": "RUN|FOLDER",
    "model": "MODEL",
    "name": "CANDIDATE",
    "path": "DATASET",
    "run_a": "RUN_A",
    "run_b": "RUN_B",
    "run_folder": "RUN",
    "targets": "TARGET",
    # Options.
    "--candidate": "NAME",
    "--column": "FIELD=COLUMN",
    "--confidence": "SHARE",
    "--count": "N",
    "--device": "NAME",
    "--devices": "N|LIST",
    "--dtype": "DTYPE",
    "--encoding": "NAME",
    "--eval": "DATASET",
    "--format": "FORM",
    "--from": "FILE",
    "--holdout": "SHARE",
    "--hub": "HUB",
    "--ignore-column": "COLUMN",
    "--language": "auto|en|zh",
    "--limit": "N",
    "--memory": "SIZE",
    "--metric": "NAME",
    "--metrics": "NAMES",
    "--model": "MODEL",
    "--out": "PATH",
    "--per-row": "FILE",
    "--plan": "FILE",
    "--port": "N",
    "--predictions": "FILE",
    "--price": "NUMBER",
    "--ray-address": "ADDRESS",
    "--row": "N",
    "--seed": "N",
    "--set": "KEY=VALUE",
    "--split": "NAME",
    "--to": "FORM",
    "--unanswerable": "ACTION",
}


def show_metavars(command: Any) -> None:
    """Give every parameter of a command its metavar; a switch takes no value, and has none."""
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            parameter.metavar = METAVARS[parameter.name]
            # The name says it; the type in a second column would be Python's.
            parameter.display_type_rich = _nothing
        else:
            is_switch = getattr(parameter, "is_flag", False)
            parameter.metavar = "" if is_switch else METAVARS[parameter.opts[0]]
    help_option = command.get_help_option

    def help_option_without_type(context: Any) -> Any:
        option = help_option(context)
        if option is not None:
            option.metavar = ""
        return option

    command.get_help_option = help_option_without_type


def _nothing(ctx: Any) -> None:
    return None
