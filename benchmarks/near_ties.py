"""How many answers change with the shape of the batch, where two tokens are nearly equal.

    .venv/bin/python benchmarks/near_ties.py EVAL.json [--adapter DIR] [--num-rows 100]

The reference is one prompt at a time, without drafts, in the same precision. Against it: batches of
64 with the references as drafts, as `loracle run` answers, and batches of 8 without drafts.
"""

from __future__ import annotations

from typing import Any

from asking import answers, asking_parser, load, prompts_of
from turns import write_result

from loracle.generation.types import Answer
from loracle.model.base import evaluation_precision


def main() -> None:
    parser = asking_parser(__doc__)
    parser.add_argument("--num-rows", type=int, default=100)
    arguments = parser.parse_args()
    base, adapted = load("bfloat16", arguments.adapter)
    prompts = prompts_of(base, arguments.rows, arguments.num_rows)
    changed: dict[str, Any] = {}
    for dtype in ("bfloat16", "float32"):
        with evaluation_precision(base, dtype) as precise:
            alone = answers(precise, adapted, prompts, batch_size=1, drafts=False)
            together = answers(precise, adapted, prompts, batch_size=64, drafts=True)
            eights = answers(precise, adapted, prompts, batch_size=8, drafts=False)
        changed[dtype] = {
            "batches_of_64_with_drafts": num_different(alone, together),
            "batches_of_8_without_drafts": num_different(alone, eights),
        }
    figures = {
        "rows_file": arguments.rows.name,
        "adapter": arguments.adapter is not None,
        "num_rows": len(prompts),
        "answers_that_differ_from_one_at_a_time": changed,
    }
    write_result(arguments.name, "near_ties", figures, "bfloat16, float32")


def num_different(some: list[Answer], others: list[Answer]) -> int:
    return sum(a.token_ids != b.token_ids for a, b in zip(some, others, strict=True))


if __name__ == "__main__":
    main()
