"""Ask Loracle as `loracle run` does: shared by the benchmarks of answering."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from turns import argument_parser

from loracle.data.reading.dataset import read_examples
from loracle.data.rendering.renderer import RenderedPrompt, Renderer
from loracle.generation.generate import Account, generate
from loracle.generation.types import (
    REFERENCE_SOURCE,
    Answer,
    GenerationSettings,
    GenerationStatistics,
    Question,
)
from loracle.model import adapter
from loracle.model.base import BaseModel, load_base, load_tokenizer
from loracle.model.embedded import embedded_model_folder
from loracle.model.loaded_form import LoadedForm

MAX_NEW_TOKENS = 40


def asking_parser(description: str | None) -> argparse.ArgumentParser:
    """With the evaluation set, and the adapter that answers it."""
    parser = argument_parser(description)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--adapter", type=Path, help="a PEFT folder; without it the base answers")
    return parser


def load(dtype: str, adapter_folder: Path | None) -> tuple[BaseModel, Any | None]:
    """The embedded model, and the adapter where a PEFT folder is given."""
    folder = str(embedded_model_folder())
    base = load_base(folder, folder, load_tokenizer(folder, None, False), LoadedForm(dtype))
    return base, adapter.load(base.model, adapter_folder) if adapter_folder else None


def prompts_of(base: BaseModel, path: Path, limit: int | None) -> Sequence[RenderedPrompt]:
    """The first `limit` rows of an evaluation set, rendered."""
    renderer = Renderer(base.tokenizer, base.end_token_ids)
    return renderer.prompts(read_examples(path, limit=limit), MAX_NEW_TOKENS)


def answers(
    base: BaseModel,
    adapted: Any | None,
    prompts: Sequence[RenderedPrompt],
    *,
    batch_size: int,
    drafts: bool,
    statistics: GenerationStatistics | None = None,
) -> list[Answer]:
    """Greedy answers; with `drafts` the references and the prompt itself are guessed from.

    statistics: where the work is counted.
    """
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
    account = Account(statistics) if statistics is not None else None
    batches = generate(base, adapted, questions, settings, account=account)
    return [answer for batch in batches for answer in batch]
