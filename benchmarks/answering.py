"""(b) Answering an evaluation set in fp32, against `generate` in batches and continuous batching.

    .venv/bin/python benchmarks/answering.py EVAL.json [--adapter DIR] [--turns 4]

The set is cut into runs of whole rows, one a turn. Ours runs as `loracle run` does: with the
reference answers as drafts and prompt lookup; and once more without either.
"""

from __future__ import annotations

import json
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from turns import Peer, argument_parser, ratio, write_result

from loracle import adapter
from loracle.data.rendering import RenderedPrompt, Renderer
from loracle.data.sources import read_examples
from loracle.embedded import embedded_model_folder
from loracle.generation import generate
from loracle.model import BaseModel, load_base, load_tokenizer
from loracle.questions import REFERENCE_SOURCE, GenerationSettings, GenerationStatistics, Question

MAX_NEW_TOKENS = 40


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--adapter", type=Path, help="a PEFT folder; without it the base answers")
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--num-rows", type=int)
    arguments = parser.parse_args()
    folder = str(embedded_model_folder())
    base = load_base(folder, folder, load_tokenizer(folder, None, False), dtype="float32")
    adapted = adapter.load(base.model, arguments.adapter) if arguments.adapter else None
    renderer = Renderer(base.tokenizer, base.end_token_ids)
    examples = read_examples(arguments.rows, limit=arguments.num_rows)
    prompts = renderer.prompts(examples, MAX_NEW_TOKENS)
    bounds = [round(i * len(prompts) / arguments.turns) for i in range(arguments.turns + 1)]
    seconds: dict[str, list[float]] = {}
    same = {"batches": 0, "continuous": 0}
    options = ["--model", folder, "--rows", arguments.rows]
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
    base: BaseModel, adapted: Any, prompts: list[RenderedPrompt], batches: Peer, cont: Peer
) -> None:
    our_turn(base, adapted, prompts, {}, "warm-up", drafts=True)
    for peer in (batches, cont):
        peer.ask(f"run 0 {len(prompts)}")


def our_turn(
    base: BaseModel,
    adapted: Any,
    prompts: list[RenderedPrompt],
    seconds: dict[str, list[float]],
    name: str,
    *,
    drafts: bool,
) -> list[list[int]]:
    settings = GenerationSettings(
        max_new_tokens=MAX_NEW_TOKENS,
        repetition_penalty=1.0,
        prompt_lookup=drafts,
        answer_nll=False,
        batch_size=64,
        budget_tokens=2048,
    )
    questions = [
        Question(
            prompt.token_ids,
            drafts={REFERENCE_SOURCE: [ids[:-1] for ids in prompt.reference_ids]} if drafts else {},
        )
        for prompt in prompts
    ]
    started = time.perf_counter()
    statistics = GenerationStatistics()
    answers = [
        a for b in generate(base, adapted, questions, settings, statistics=statistics) for a in b
    ]
    seconds.setdefault(name, []).append(time.perf_counter() - started)
    return [list(answer.token_ids) for answer in answers]


def equal_answers(path: Path, ours: list[list[int]]) -> int:
    theirs = [json.loads(line)["token_ids"] for line in path.read_text().splitlines()]
    return sum(a == b for a, b in zip(theirs, ours, strict=True))


if __name__ == "__main__":
    main()
