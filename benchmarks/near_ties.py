"""How many answers change with the shape of the batch, where two tokens are nearly equal.

    .venv/bin/python benchmarks/near_ties.py EVAL.json [--adapter DIR] [--num-rows 100]

The reference is one prompt at a time, without drafts, in the same precision. Against it: batches of
64 with the references as drafts, as `loracle run` answers, and batches of 8 without drafts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from turns import argument_parser, write_result

from loracle import adapter
from loracle.data.rendering import RenderedPrompt, Renderer
from loracle.data.sources import read_examples
from loracle.embedded import embedded_model_folder
from loracle.generation import generate
from loracle.model import BaseModel, evaluation_precision, load_base, load_tokenizer
from loracle.questions import REFERENCE_SOURCE, GenerationSettings, Question

MAX_NEW_TOKENS = 40


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--adapter", type=Path, help="a PEFT folder; without it the base answers")
    parser.add_argument("--num-rows", type=int, default=100)
    arguments = parser.parse_args()
    folder = str(embedded_model_folder())
    base = load_base(folder, folder, load_tokenizer(folder, None, False), dtype="bfloat16")
    adapted = adapter.load(base.model, arguments.adapter) if arguments.adapter else None
    renderer = Renderer(base.tokenizer, base.end_token_ids)
    examples = read_examples(arguments.rows, limit=arguments.num_rows)
    prompts = renderer.prompts(examples, MAX_NEW_TOKENS)
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
    write_result(arguments.name, "near_ties", figures)


def answers(
    base: BaseModel, adapted: Any, prompts: list[RenderedPrompt], *, batch_size: int, drafts: bool
) -> list[tuple[int, ...]]:
    settings = GenerationSettings(
        max_new_tokens=MAX_NEW_TOKENS,
        repetition_penalty=1.0,
        prompt_lookup=drafts,
        answer_nll=False,
        batch_size=batch_size,
        budget_tokens=2048,
    )
    questions = [
        Question(
            prompt.token_ids,
            drafts={REFERENCE_SOURCE: [ids[:-1] for ids in prompt.reference_ids]} if drafts else {},
        )
        for prompt in prompts
    ]
    return [a.token_ids for batch in generate(base, adapted, questions, settings) for a in batch]


def num_different(some: list[tuple[int, ...]], others: list[tuple[int, ...]]) -> int:
    return sum(a != b for a, b in zip(some, others, strict=True))


if __name__ == "__main__":
    main()
