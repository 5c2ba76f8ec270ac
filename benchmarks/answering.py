"""(b) Answering an evaluation set in fp32, against `generate` in batches and continuous batching.

    .venv/bin/python benchmarks/answering.py EVAL.json [--adapter DIR] [--turns 4]

The set is cut into runs of whole rows, one a turn. Ours runs as `loracle run` does: with the
reference answers as drafts and prompt lookup; and once more without either.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from asking import answers, asking_parser, load, prompts_of
from turns import Peer, ratio, write_result

from loracle.data.rendering.renderer import RenderedPrompt
from loracle.model.base import BaseModel
from loracle.model.embedded import embedded_model_folder

_BATCH_SIZE = 64


def main() -> None:
    parser = asking_parser(__doc__)
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--num-rows", type=int)
    arguments = parser.parse_args()
    base, adapted = load("float32", arguments.adapter)
    prompts = prompts_of(base, arguments.rows, arguments.num_rows)
    bounds = [round(i * len(prompts) / arguments.turns) for i in range(arguments.turns + 1)]
    seconds: dict[str, list[float]] = {}
    same = {"batches": 0, "continuous": 0}
    options: list[object] = ["--model", embedded_model_folder(), "--rows", arguments.rows]
    options += ["--adapter", arguments.adapter] if arguments.adapter else []
    out = Path(tempfile.mkdtemp())
    with (
        Peer("generate.py", *options, "--out", out / "b.jsonl") as batches,
        Peer("generate.py", *options, "--method", "continuous", "--out", out / "c.jsonl") as cont,
    ):
        warm_up(base, adapted, prompts[:8], batches, cont)
        for start, stop in pairwise(bounds):
            part = prompts[start:stop]
            ours = our_turn(base, adapted, part, seconds, "ours", drafts=True)
            plain = our_turn(base, adapted, part, seconds, "ours_without_drafts", drafts=False)
            assert ours == plain, "drafts must not change an answer"
            for name, peer, file in (
                ("batches", batches, "b.jsonl"),
                ("continuous", cont, "c.jsonl"),
            ):
                answer = peer.ask(f"run {start} {stop}")
                seconds.setdefault(name, []).append(answer["seconds"])
                same[name] += equal_answers(out / file, ours)
            print({name: round(values[-1], 2) for name, values in seconds.items()})
    figures: dict[str, Any] = {
        "rows_file": arguments.rows.name,
        "adapter": arguments.adapter is not None,
        "num_rows": len(prompts),
        "generate_over_loracle": ratio(seconds["batches"], seconds["ours"]),
        "generate_over_loracle_without_drafts": ratio(
            seconds["batches"], seconds["ours_without_drafts"]
        ),
        "continuous_over_loracle": ratio(seconds["continuous"], seconds["ours"]),
        "same_answers_as_generate": same["batches"],
        "same_answers_as_continuous": same["continuous"],
    }
    write_result(arguments.name, "answering", figures)


def warm_up(
    base: BaseModel, adapted: Any, prompts: Sequence[RenderedPrompt], batches: Peer, cont: Peer
) -> None:
    our_turn(base, adapted, prompts, {}, "warm-up", drafts=True)
    for peer in (batches, cont):
        peer.ask(f"run 0 {len(prompts)}")


def our_turn(
    base: BaseModel,
    adapted: Any,
    prompts: Sequence[RenderedPrompt],
    seconds: dict[str, list[float]],
    name: str,
    *,
    drafts: bool,
) -> list[list[int]]:
    started = time.perf_counter()
    found = answers(base, adapted, prompts, batch_size=_BATCH_SIZE, drafts=drafts)
    seconds.setdefault(name, []).append(time.perf_counter() - started)
    return [list(answer.token_ids) for answer in found]


def equal_answers(path: Path, ours: list[list[int]]) -> int:
    theirs = [json.loads(line)["token_ids"] for line in path.read_text().splitlines()]
    return sum(a == b for a, b in zip(theirs, ours, strict=True))


if __name__ == "__main__":
    main()
