"""The questions of a run, kept in its folder."""

from __future__ import annotations

from collections.abc import Sequence

from loracle.data.conversation import Example
from loracle.files import json_lines_bytes
from loracle.run_folder.folder import RunFolder


def keep_questions(folder: RunFolder, evaluation: str, examples: Sequence[Example]) -> None:
    """Keep an evaluation's questions in the run folder for reports, because the data file may move.

    Rows are {"id": "q1", "prompt": [["user", "Who won?"]]}. A complete file that already exists is
    kept: the plan's fingerprint includes the data file's hash.
    """
    path = folder.questions(evaluation)
    if path.is_file() and folder.damage(path) is None:
        return
    rows = (
        {
            "id": example.id,
            "prompt": [[turn.role, turn.content] for turn in example.conversation.prompt.messages],
        }
        for example in examples
    )
    folder.write(path, json_lines_bytes(rows))
