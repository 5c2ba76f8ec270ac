"""The whole job the sequential way: for each candidate a fresh base, TRL, then `generate`.

    sequential_job.py --model DIR --eval FILE.json --out DIR [--epochs 2] [--max-steps K]

Commands: `candidate FILE` trains on FILE from a freshly loaded base, saves the adapter and
answers the evaluation set with it; `base` answers with the base alone. Each is answered by one
`{"event": "candidate" | "base", "name", "load_seconds", "train_seconds", "save_seconds",
"generate_seconds", "seconds", "cpu_seconds", ...}`. The answers lie in OUT/NAME.jsonl, as
generate.py writes them, the adapter in OUT/NAME.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from channel import Channel, Stopwatch
from generate import answer_in_batches, encode_prompts, write_answers
from rows import Message, read_rows
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from trl_step import StepSettings, load_base, make_trainer


@dataclass
class Parts:
    """Seconds of every part of a job, in the order they ran."""

    seconds: dict[str, float] = field(default_factory=dict)
    _since_seconds: float = field(default_factory=time.perf_counter)

    def end(self, part: str) -> None:
        """The time since the last part ended was this part's."""
        now_seconds = time.perf_counter()
        self.seconds[f"{part}_seconds"] = round(now_seconds - self._since_seconds, 4)
        self._since_seconds = now_seconds


class SequentialJob:
    """What a script does that runs one candidate after another."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._settings = StepSettings(
            num_rows_per_step=arguments.num_rows_per_step,
            micro_batch_size=arguments.micro_batch_size,
            learning_rate=arguments.learning_rate,
            dtype=arguments.dtype,
            num_epochs=arguments.epochs,
            max_steps=arguments.max_steps,
        )
        self._eval_rows = read_rows(arguments.eval, arguments.num_eval_rows)

    def run_candidate(self, path: Path) -> dict[str, Any]:
        """Train on `path` from a freshly loaded base, save, answer."""
        conversations = read_rows(path, self._arguments.num_rows)
        stopwatch, parts = Stopwatch(), Parts()
        model = load_base(self._arguments.model, self._settings.dtype)
        tokenizer = AutoTokenizer.from_pretrained(self._arguments.model)
        parts.end("load")
        trained, num_steps = self._train(model, tokenizer, conversations, path.stem)
        parts.end("train")
        trained.save_pretrained(self._arguments.out / path.stem)
        parts.end("save")
        self._answer(trained, tokenizer, path.stem)
        parts.end("generate")
        counts = {"num_rows": len(conversations), "num_steps": num_steps}
        return {"name": path.stem, **counts, **parts.seconds, **stopwatch.read()}

    def run_base(self) -> dict[str, Any]:
        """Answer with the base alone."""
        stopwatch, parts = Stopwatch(), Parts()
        model = load_base(self._arguments.model, self._arguments.eval_dtype)
        tokenizer = AutoTokenizer.from_pretrained(self._arguments.model)
        parts.end("load")
        self._answer(model, tokenizer, "base")
        parts.end("generate")
        return {"name": "base", **parts.seconds, **stopwatch.read()}

    def _train(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        conversations: list[list[Message]],
        name: str,
    ) -> tuple[PreTrainedModel, int]:
        trainer = make_trainer(
            model, tokenizer, conversations, self._settings, self._arguments.out / name
        )
        trainer.train()
        return trainer.model, trainer.state.global_step

    def _answer(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str
    ) -> None:
        # The adapter is left in place, not merged: a merge in bf16 would round it away.
        model = model.to(getattr(torch, self._arguments.eval_dtype)).eval()
        answers = answer_in_batches(
            model,
            tokenizer,
            encode_prompts(self._eval_rows, tokenizer),
            self._arguments.eval_batch_size,
        )
        write_answers(self._arguments.out / f"{name}.jsonl", answers, tokenizer)


def main() -> None:
    """One candidate, or the base, for each command."""
    job = SequentialJob(_parse_arguments())
    channel = Channel()
    channel.send("ready", num_threads=torch.get_num_threads())
    for command, *words in channel.commands():
        if command == "candidate":
            channel.send("candidate", **job.run_candidate(Path(words[0])))
        elif command == "base":
            channel.send("base", **job.run_base())
        else:
            raise SystemExit(f"unknown command {command!r}: candidate FILE, base or stop")


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="folder of the base model")
    parser.add_argument("--eval", type=Path, required=True, help="evaluation rows")
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks/sequential"))
    parser.add_argument("--num-rows", type=int, help="the first rows of every candidate only")
    parser.add_argument("--num-eval-rows", type=int, help="the first evaluation rows only")
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--max-steps", type=int, default=-1, help="-1: --epochs decides")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--num-rows-per-step", type=int, default=64)
    parser.add_argument("--micro-batch-size", type=int, default=8)
    parser.add_argument("--eval-batch-size", type=int, default=8)
    parser.add_argument("--dtype", default="bfloat16", help="of the base in training")
    parser.add_argument("--eval-dtype", default="bfloat16")
    return parser.parse_args()


if __name__ == "__main__":
    main()
