"""`loracle split`: one data file in two, by shared passage, with an account of both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from loracle.data.audit import audited
from loracle.data.conversation import Example
from loracle.data.converting import row_of
from loracle.data.reading.dataset import read_examples
from loracle.data.reading.options import ReadOptions
from loracle.data.splitting import PassageSplit, split
from loracle.errors import DataError
from loracle.files import JsonLinesWriter
from loracle.plan import data_name
from loracle.text import counted


class Separated(NamedTuple):
    """What was written. train and holdout: the files."""

    train: Path
    holdout: Path
    split: PassageSplit

    def to_dict(self) -> dict[str, Any]:
        """As JSON values, the rows counted and not listed."""
        return {
            "train": str(self.train),
            "holdout": str(self.holdout),
            "num_train": len(self.split.kept),
            "num_holdout": len(self.split.held_out),
            "num_groups": self.split.num_groups,
            "num_held_groups": self.split.num_held_groups,
            "largest_group": self.split.largest_group,
        }

    def lines(self) -> list[str]:
        """The account in words."""
        found = self.split
        num = len(found.kept) + len(found.held_out)
        return [
            f"{self.train}: {counted(len(found.kept), 'row')}",
            f"{self.holdout}: {counted(len(found.held_out), 'row')} "
            f"({len(found.held_out) / num:.1%})",
            f"{counted(num, 'row')} in {counted(found.num_groups, 'group')} that share a passage, "
            "the "
            f"largest of {counted(found.largest_group, 'row')}; "
            f"{counted(found.num_held_groups, 'group')} held out",
        ]


def split_file(
    path: str, share: float, seed: int, folder: Path, options: ReadOptions | None = None
) -> Separated:
    """Write STEM-train.jsonl and STEM-holdout.jsonl into the folder, as rows of messages.

    Raises:
        DataError: the file cannot be read or split, or one of the two is there already.
    """
    if not 0 < share < 1:
        raise DataError(f"--holdout: found {share:g}; expected a share between 0 and 1")
    stem = data_name(path)
    train, holdout = (folder / f"{stem}-{side}.jsonl" for side in ("train", "holdout"))
    if there := [str(target) for target in (train, holdout) if target.exists()]:
        raise DataError(f"{' and '.join(there)}: there already; remove it, or choose --out FOLDER")
    examples = read_examples(path, options=options)
    [dataset] = audited([(stem, examples)])
    found = split(dataset, share, seed)
    folder.mkdir(parents=True, exist_ok=True)
    _write(train, [examples[row] for row in found.kept])
    _write(holdout, [examples[row] for row in found.held_out])
    return Separated(train, holdout, found)


def _write(path: Path, examples: Sequence[Example]) -> None:
    with JsonLinesWriter(path) as writer:
        for example in examples:
            writer.write(row_of(example))
