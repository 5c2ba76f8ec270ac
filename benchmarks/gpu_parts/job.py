"""A whole job: eight candidates and the base, with random weights, by `loracle.run`."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gpu_parts.measuring import Bench, Case, peak_memory
from gpu_parts.models import make_model, shape_of

NUM_CANDIDATES = 8
_END = "<|im_end|>"
_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def cases(bench: Bench, name: str) -> Iterator[Case]:
    yield Case("job", lambda: whole_job(bench, name))


def whole_job(bench: Bench, name: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_model(bench, shape_of(bench, name), bench.half).save_pretrained(root / "model")
        _tokenizer().save_pretrained(root / "model")
        num_rows, num_questions = (8, 4) if bench.is_tiny else (256, 128)
        names = [f"c{i}" for i in range(2 if bench.is_tiny else NUM_CANDIDATES)]
        for seed, candidate in enumerate(names):
            _write_rows(root / f"{candidate}.jsonl", num_rows, seed)
        _write_rows(root / "eval.jsonl", num_questions, len(names))
        with peak_memory(bench) as memory:
            return {**_run(bench, root, names), **memory}


def _run(bench: Bench, root: Path, names: list[str]) -> dict[str, Any]:
    import loracle

    started = time.perf_counter()
    run = loracle.run(
        [root / f"{name}.jsonl" for name in names],
        root / "eval.jsonl",
        model=root / "model",
        out=root / "run",
        progress="quiet",
        overrides=["training.batch_size=8", "training.epochs=1", "generation.max_new_tokens=8"],
    )
    seconds = time.perf_counter() - started
    results = json.loads((root / "run" / "results.json").read_text())
    rows = results["rows"]
    return {
        "candidates": len(names),
        "seconds": round(seconds, 2),
        "training_seconds": round(sum(row["training_seconds"] for row in rows), 2),
        "evaluation_seconds": round(sum(row["evaluation_seconds"] for row in rows), 2),
        "failures": len(run.failures),
        "attention": results["model"]["attention"],
        "attention_replaced": results["model"]["attention_replaced"],
    }


def _write_rows(path: Path, num_rows: int, seed: int) -> None:
    """Four questions about each passage of random letters."""
    draw = np.random.default_rng(seed)

    def words(number: int) -> str:
        return " ".join("".join(map(chr, draw.integers(97, 123, 5))) for _ in range(number))

    lines, passage = [], ""
    for row in range(num_rows):
        passage = words(30) if row % 4 == 0 else passage
        messages = [
            {"role": "user", "content": f"{passage}\nWhat is {words(2)}?"},
            {"role": "assistant", "content": words(1)},
        ]
        lines.append(json.dumps({"messages": messages}) + "\n")
    path.write_text("".join(lines))


def _tokenizer() -> Any:
    """A token a character."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    signs = ["<|unknown|>", _END, "<|im_start|>", "\n", *map(chr, range(32, 127))]
    core = Tokenizer(models.WordLevel({s: i for i, s in enumerate(signs)}, unk_token=signs[0]))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    core.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token=signs[0],
        eos_token=_END,
        pad_token=_END,
        additional_special_tokens=["<|im_start|>"],
    )
    tokenizer.chat_template = _TEMPLATE
    return tokenizer
