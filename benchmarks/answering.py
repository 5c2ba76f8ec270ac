"""(b) Answering an evaluation set, against `generate` in batches and continuous batching.

    .venv/bin/python benchmarks/answering.py EVAL.json [--adapter DIR] [--turns 4]

The set is cut into runs of whole rows, one a turn. Ours runs as `loracle run` does: with the
reference answers as drafts and prompt lookup; and once more without either. In float32, unless
--dtype says otherwise: there the answers of all sides must be equal, or the benchmark fails.
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
from floor import measured_floor
from turns import (
    Peer,
    UnequalSidesError,
    add_dtype,
    over_floor,
    precision,
    ratio,
    write_result,
)

from loracle.data.rendering.renderer import RenderedPrompt
from loracle.generation.types import GenerationStatistics
from loracle.model.base import BaseModel
from loracle.model.embedded import embedded_model_folder

_BATCH_SIZE = 64


def main() -> None:
    parser = asking_parser(__doc__)
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--num-rows", type=int)
    add_dtype(parser, "float32")
    arguments = parser.parse_args()
    dtype = precision(arguments.dtype)
    base, adapted = load(dtype, arguments.adapter)
    prompts = prompts_of(base, arguments.rows, arguments.num_rows)
    bounds = [round(i * len(prompts) / arguments.turns) for i in range(arguments.turns + 1)]
    seconds: dict[str, list[float]] = {}
    same = {"batches": 0, "continuous": 0}
    options: list[object] = ["--model", embedded_model_folder(), "--rows", arguments.rows]
    options += ["--dtype", dtype]
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
            seconds.setdefault("floor", []).append(floor_seconds(base, adapted, part))
            print({name: round(values[-1], 2) for name, values in seconds.items()})
    require_same(dtype, len(prompts), same)
    figures: dict[str, Any] = {
        "rows_file": arguments.rows.name,
        "adapter": arguments.adapter is not None,
        "num_rows": len(prompts),
        "generate_over_loracle": ratio(seconds["batches"], seconds["ours"]),
        "generate_over_loracle_without_drafts": ratio(
            seconds["batches"], seconds["ours_without_drafts"]
        ),
        "continuous_over_loracle": ratio(seconds["continuous"], seconds["ours"]),
        "loracle_over_floor": over_floor(seconds["ours"], seconds["floor"]),
        "same_answers_as_generate": same["batches"],
        "same_answers_as_continuous": same["continuous"],
    }
    write_result(arguments.name, "answering", figures, dtype)


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


def floor_seconds(base: BaseModel, adapted: Any, prompts: Sequence[RenderedPrompt]) -> float:
    """Of the bare products of our turn: prompts together, then every step of decoding."""
    counted = GenerationStatistics()
    answers(base, adapted, prompts, batch_size=_BATCH_SIZE, drafts=True, statistics=counted)
    prefill = measured_floor(base.model, min(2048, counted.num_prefill_nodes))
    seconds = prefill.answering_seconds(counted.num_prefill_nodes, len(prompts))
    if counted.num_decode_steps:
        together = round(counted.num_decode_tokens / counted.num_decode_steps)
        decoding = measured_floor(base.model, max(1, together), num_targets=max(1, together))
        num_tokens = counted.num_decode_tokens
        seconds += decoding.answering_seconds(num_tokens, num_tokens)
    return seconds


def require_same(dtype: str, num_rows: int, same: dict[str, int]) -> None:
    """Raises UnequalSidesError if answers differ in float32; bfloat16 has near-ties."""
    if dtype == "float32" and any(num != num_rows for num in same.values()):
        raise UnequalSidesError(f"of {num_rows} answers only so many equal the peers': {same}")


def equal_answers(path: Path, ours: list[list[int]]) -> int:
    theirs = [json.loads(line)["token_ids"] for line in path.read_text().splitlines()]
    return sum(a == b for a, b in zip(theirs, ours, strict=True))


if __name__ == "__main__":
    main()
