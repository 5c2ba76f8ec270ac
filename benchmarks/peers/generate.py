"""transformers' `generate` over an evaluation set, one range of rows at each `run` command.

    generate.py --model DIR --rows FILE.json [--adapter DIR] [--method batches|continuous]

Answers `{"event": "ready", ...}` once the model is loaded, then to `run` (all rows) or
`run START STOP` `{"event": "run", "seconds": S, "num_rows": N, "num_new_tokens": T}`, and writes
one line per row to --out: {"row", "text", "token_ids"}, token ids without the end token.

Greedy, 40 new tokens at most. `batches`: groups of --batch-size, padded on the left, in the order
of the file or by length. `continuous`: `generate_batch`, transformers' continuous batching, which
shares the cache blocks of equal prefixes. A LoRA adapter is merged into the weights first where
--merge is given, which is the fastest way to answer with one.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from channel import Channel, Stopwatch
from peft import PeftModel
from rows import Message, prompt_of, read_rows
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    ContinuousBatchingConfig,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

Order = Literal["file", "length"]


def encode_prompts(
    conversations: Sequence[list[Message]], tokenizer: PreTrainedTokenizerBase
) -> list[list[int]]:
    """Token ids of every conversation up to where the assistant answers."""
    return [
        tokenizer.apply_chat_template(
            prompt_of(messages), add_generation_prompt=True, return_dict=False
        )
        for messages in conversations
    ]


def answer_in_batches(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    batch_size: int = 8,
    max_new_tokens: int = 40,
    order: Order = "length",
) -> list[list[int]]:
    """The answers' token ids, without end tokens, in the order of `prompts`."""
    indices = list(range(len(prompts)))
    if order == "length":
        indices.sort(key=lambda index: -len(prompts[index]))
    answers: dict[int, list[int]] = {}
    for start in range(0, len(indices), batch_size):
        batch = indices[start : start + batch_size]
        padded = tokenizer.pad(
            {"input_ids": [prompts[index] for index in batch]},
            padding_side="left",
            return_tensors="pt",
        )
        with torch.inference_mode():
            output_ids = model.generate(
                **padded, generation_config=greedy(tokenizer, max_new_tokens)
            )
        num_prompt_tokens = padded["input_ids"].shape[1]
        for index, token_ids in zip(batch, output_ids[:, num_prompt_tokens:].tolist(), strict=True):
            answers[index] = cut_at_end(token_ids, tokenizer)
    return [answers[index] for index in range(len(prompts))]


def answer_continuously(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    max_new_tokens: int = 40,
    page_size_tokens: int = 32,
    max_batch_tokens: int = 256,
) -> list[list[int]]:
    """As `answer_in_batches`, with continuous batching.

    Left to itself the cache takes a share of the machine's memory: it is given pages enough for
    the whole set. Small pages let questions about one passage share most of it.
    """
    num_cache_tokens = sum(len(prompt) + max_new_tokens + page_size_tokens for prompt in prompts)
    outputs = model.generate_batch(
        [list(prompt) for prompt in prompts],
        generation_config=greedy(tokenizer, max_new_tokens),
        continuous_batching_config=ContinuousBatchingConfig(
            page_size=page_size_tokens,
            num_blocks=num_cache_tokens // page_size_tokens,
            max_batch_tokens=max_batch_tokens,
        ),
    )
    by_request = sorted(outputs.values(), key=lambda output: _request_number(output.request_id))
    for output in by_request:
        assert output.error is None, f"continuous batching failed: {output.error}"
    return [cut_at_end(output.generated_tokens, tokenizer) for output in by_request]


def _request_number(request_id: str) -> int:
    """Requests are named req_0, req_1, ... in the order given."""
    return int(request_id.rsplit("_", 1)[1])


def greedy(tokenizer: PreTrainedTokenizerBase, max_new_tokens: int) -> GenerationConfig:
    """Greedy decoding to the model's end token."""
    return GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def cut_at_end(token_ids: list[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Everything before the first end token."""
    if tokenizer.eos_token_id in token_ids:
        return token_ids[: token_ids.index(tokenizer.eos_token_id)]
    return token_ids


def load_model(model_path: str, dtype: str, adapter: str | None, merge: bool) -> PreTrainedModel:
    """The base, with an adapter where one is named, ready to answer."""
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=getattr(torch, dtype))
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter)
        model = model.merge_and_unload() if merge else model
    return model.eval()


def write_answers(
    path: Path,
    answers: Sequence[list[int]],
    tokenizer: PreTrainedTokenizerBase,
    first_row: int = 0,
) -> None:
    """One JSON line per row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for row, token_ids in enumerate(answers, start=first_row):
            text = tokenizer.decode(token_ids, skip_special_tokens=True)
            line = {"row": row, "text": text, "token_ids": token_ids}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def main() -> None:
    """Load, say ready, then answer a range of rows for each command."""
    arguments = _parse_arguments()
    channel = Channel()
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    model = load_model(arguments.model, arguments.dtype, arguments.adapter, arguments.merge)
    prompts = encode_prompts(read_rows(arguments.rows, arguments.num_rows), tokenizer)
    channel.send("ready", num_rows=len(prompts), num_tokens=sum(map(len, prompts)))
    for command in channel.commands():
        start, stop = (int(word) for word in command[1:]) if command[1:] else (0, len(prompts))
        stopwatch = Stopwatch()
        if arguments.method == "continuous":
            answers = answer_continuously(
                model,
                tokenizer,
                prompts[start:stop],
                arguments.max_new_tokens,
                arguments.page_size_tokens,
                arguments.max_batch_tokens,
            )
        else:
            answers = answer_in_batches(
                model,
                tokenizer,
                prompts[start:stop],
                arguments.batch_size,
                arguments.max_new_tokens,
                arguments.order,
            )
        times = stopwatch.read()
        write_answers(arguments.out, answers, tokenizer, first_row=start)
        channel.send(
            "run",
            num_rows=len(answers),
            num_new_tokens=sum(map(len, answers)),
            out=str(arguments.out),
            **times,
        )


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="folder of the base model")
    parser.add_argument("--rows", type=Path, required=True, help="JSON or JSONL")
    parser.add_argument("--num-rows", type=int, help="the first rows only")
    parser.add_argument("--adapter", help="folder of a PEFT adapter")
    parser.add_argument("--merge", action="store_true", help="merge the adapter into the weights")
    parser.add_argument("--method", default="batches", choices=["batches", "continuous"])
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--order", default="length", choices=["file", "length"])
    parser.add_argument("--page-size-tokens", type=int, default=32, help="continuous only")
    parser.add_argument("--max-batch-tokens", type=int, default=256, help="continuous only")
    parser.add_argument("--max-new-tokens", type=int, default=40)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks/answers.jsonl"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
