"""Training steps: Loracle's loop, plain padded batches by peft, and packed rows by peft."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from gpu_parts.measuring import Bench, Case, matmul_tflops, peak_memory, wait
from gpu_parts.models import LORA, Rows, make_base, make_rows
from loracle.experiment.setup import TrainingSet
from loracle.forest.ordering import Ordering
from loracle.model import adapter, liger_layers
from loracle.model.attention_choice import choose_attention
from loracle.model.base import BaseModel
from loracle.model.out_of_memory import is_out_of_memory, release_cached_memory
from loracle.training.budget import MemoryEvent
from loracle.training.loop import Following, StepRecord, TrainingSettings, train

NUM_STEPS = 4
"""The first one warms up."""
BUDGET_TOKENS = {"qwen2.5-7b": 4096, "qwen2.5-0.5b": 16384}
"""Tokens computed at once, the same for all; halved by whoever runs out of memory."""


def cases(bench: Bench, name: str) -> Iterator[Case]:
    """Every way to train, with rows that share and rows that do not, at batch 64 and 8."""
    base, test = choose_attention(make_base(bench, name))
    yield Case("attention", lambda: {"backend": base.attention, "self_test": test.detail})
    rate = matmul_tflops(bench, bench.half)
    yield Case("matmul_tflops", lambda: round(rate, 2))
    for batch_size in (4,) if bench.is_tiny else (64, 8):
        for sharing in (True, False):
            num_rows = NUM_STEPS * batch_size
            rows = make_rows(bench, base.model.config.vocab_size, num_rows, sharing=sharing)
            for method in methods_on(bench):

                def measure(
                    method: str = method, rows: Rows = rows, batch_size: int = batch_size
                ) -> dict[str, Any]:
                    return measured(
                        bench, base, method, rows, batch_size, BUDGET_TOKENS[name], rate
                    )

                words = "sharing" if sharing else "separate"
                yield Case(f"batch{batch_size}/{words}/{method}", measure)


def measured(
    bench: Bench,
    base: BaseModel,
    method: str,
    rows: Rows,
    batch_size: int,
    budget_tokens: int,
    rate_tflops: float,
) -> dict[str, Any]:
    """Tokens are those of the rows, not what was computed: the work that a user has."""
    with peak_memory(bench) as memory:
        steps = METHODS[method](bench, base, rows, batch_size, budget_tokens)
    seconds = statistics.median(steps["seconds"][1:])
    num_tokens = statistics.mean(map(len, rows.token_ids)) * batch_size
    num_targets = sum(map(len, rows.token_ids)) - sum(rows.num_prompt_tokens)
    operations = counted_operations(base, steps["computed"], steps.get("logits", num_targets))
    return {
        **memory,
        **{k: v for k, v in steps.items() if k not in ("seconds", "logits")},
        "step_seconds": round(seconds, 4),
        "rows_per_second": round(batch_size / seconds, 2),
        "row_tokens_per_second": round(num_tokens / seconds, 1),
        "computed_tokens_per_second": round(steps["computed"] / NUM_STEPS / seconds, 1),
        "mfu": round(operations / NUM_STEPS / seconds / (rate_tflops * 1e12), 4),
    }


def counted_operations(base: BaseModel, num_tokens: int, num_logits: int) -> float:
    """Forward, and the gradient of the inputs: weights are frozen. Attention is left out."""
    linear = [m for m in base.model.model.modules() if isinstance(m, nn.Linear)]
    head = base.model.get_output_embeddings().weight.numel()
    return 4.0 * (num_tokens * sum(m.weight.numel() for m in linear) + num_logits * head)


def by_loracle(
    bench: Bench, base: BaseModel, rows: Rows, batch_size: int, budget_tokens: int
) -> dict[str, Any]:
    """The real loop."""
    records, last_budget = trained(base, rows, loop_settings(batch_size, budget_tokens))
    return {
        "seconds": [record.seconds for record in records],
        "computed": sum(record.tokens_computed for record in records),
        "loss": round(statistics.mean(record.loss for record in records), 4),
        "budget_tokens": last_budget,
    }


def by_loracle_and_liger(
    bench: Bench, base: BaseModel, rows: Rows, batch_size: int, budget_tokens: int
) -> dict[str, Any]:
    """The same with liger-kernel's norms, gated activations and rotary embeddings."""
    decoder = base.model.get_decoder()
    liger_layers.use(decoder)
    try:
        return by_loracle(bench, base, rows, batch_size, budget_tokens)
    finally:
        liger_layers.leave(decoder)


def trained(
    base: BaseModel, rows: Rows, settings: TrainingSettings
) -> tuple[list[StepRecord], int]:
    """The steps of a fresh adapter's training, and the tokens computed at once in the last one."""
    records: list[StepRecord] = []
    events: list[MemoryEvent] = []
    trained_on = TrainingSet("rows", rows.sequences(0, len(rows.token_ids)), rows.groups)
    with adapter.attached(base.model, adapter.lora_config(LORA), 0) as adapted:
        train(base, adapted, trained_on, settings, Following(records.append, events.append))
    return records, events[-1].budget_tokens if events else settings.budget_tokens


def loop_settings(batch_size: int, budget_tokens: int, **changes: Any) -> TrainingSettings:
    settings: dict[str, Any] = {
        "epochs": 1,
        "max_steps": NUM_STEPS,
        "max_tokens": None,
        "batch_size": batch_size,
        "learning_rate": 1e-4,
        "schedule": "constant",
        "warmup_ratio": 0.0,
        "weight_decay": 0.0,
        "betas": (0.9, 0.999),
        "eps": 1e-8,
        "max_grad_norm": 1.0,
        "grouped": True,
        "forest": True,
        "budget_tokens": budget_tokens,
        "gradient_checkpointing": False,
        "seed": 0,
    }
    return TrainingSettings(**{**settings, **changes})


def by_peft(
    make_inputs: Callable[[Bench, Rows, list[int]], dict[str, Any]],
) -> Callable[[Bench, BaseModel, Rows, int, int], dict[str, Any]]:
    """transformers and peft alone: SDPA, the model's own loss; batches and size of micro-batches
    are the same, so that the loss is."""

    def steps(
        bench: Bench, base: BaseModel, rows: Rows, batch_size: int, budget_tokens: int
    ) -> dict[str, Any]:
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(
            r=8, lora_alpha=16, target_modules=LORA["target_modules"], task_type="CAUSAL_LM"
        )
        adapted = get_peft_model(base.model, config).train()
        base.model.set_attn_implementation("sdpa")
        learned = [p for p in adapted.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(learned, lr=1e-4, fused=bench.device.type == "cuda")
        seconds, losses, computed = [], [], 0
        ordering = Ordering(tuple(rows.groups.tolist()), batch_size, 0, True)
        try:
            for step in range(NUM_STEPS):
                chosen = ordering.batch(step).tolist()
                while True:
                    try:
                        wait(bench.device)
                        started = time.perf_counter()
                        optimizer.zero_grad(set_to_none=True)
                        loss, num = _gradient(
                            bench, adapted, rows, chosen, budget_tokens, make_inputs
                        )
                        nn.utils.clip_grad_norm_(learned, 1.0)
                        optimizer.step()
                        wait(bench.device)
                        break
                    except RuntimeError as error:
                        if not is_out_of_memory(error) or budget_tokens < 64:
                            raise
                    release_cached_memory()
                    budget_tokens //= 2
                seconds.append(time.perf_counter() - started)
                losses.append(loss)
                computed += num
        finally:
            adapter.detach(adapted.eval())
        return {
            "seconds": seconds,
            "computed": computed,
            "logits": computed,
            "loss": round(statistics.mean(losses), 4),
            "budget_tokens": budget_tokens,
        }

    return steps


def _gradient(
    bench: Bench,
    adapted: Any,
    rows: Rows,
    chosen: list[int],
    budget_tokens: int,
    make_inputs: Callable[[Bench, Rows, list[int]], dict[str, Any]],
) -> tuple[float, int]:
    """The step's loss and the tokens computed, by micro-batches of rows of similar length."""
    num_targets = sum(len(rows.token_ids[row]) - rows.num_prompt_tokens[row] for row in chosen)
    total, computed = torch.zeros((), device=bench.device), 0
    by_length = sorted(chosen, key=lambda row: len(rows.token_ids[row]))
    longest = len(rows.token_ids[by_length[-1]])
    size = max(1, min(len(chosen), budget_tokens // longest))
    for part in range(math.ceil(len(chosen) / size)):
        inputs = make_inputs(bench, rows, by_length[part * size : (part + 1) * size])
        loss = adapted(**inputs, use_cache=False, num_items_in_batch=num_targets).loss
        loss.backward()
        total += loss.detach().float()
        computed += inputs["input_ids"].numel()
    return float(total), computed


def padded_inputs(bench: Bench, rows: Rows, chosen: list[int]) -> dict[str, Any]:
    longest = max(len(rows.token_ids[row]) for row in chosen)
    ids = torch.zeros(len(chosen), longest, dtype=torch.long)
    labels, mask = torch.full_like(ids, -100), torch.zeros_like(ids)
    for place, row in enumerate(chosen):
        tokens, prompt = torch.tensor(rows.token_ids[row]), rows.num_prompt_tokens[row]
        ids[place, : len(tokens)] = tokens
        labels[place, prompt : len(tokens)] = tokens[prompt:]
        mask[place, : len(tokens)] = 1
    return {
        "input_ids": ids.to(bench.device),
        "labels": labels.to(bench.device),
        "attention_mask": mask.to(bench.device),
    }


def packed_inputs(bench: Bench, rows: Rows, chosen: list[int]) -> dict[str, Any]:
    """Rows one after another; where positions begin again, transformers masks what is before."""
    ids = [token for row in chosen for token in rows.token_ids[row]]
    labels, positions = [], []
    for row in chosen:
        prompt, length = rows.num_prompt_tokens[row], len(rows.token_ids[row])
        labels += [-100] * prompt + rows.token_ids[row][prompt:]
        positions += list(range(length))
    found = {"input_ids": ids, "labels": labels, "position_ids": positions}
    return {name: torch.tensor([values], device=bench.device) for name, values in found.items()}


METHODS: dict[str, Callable[[Bench, BaseModel, Rows, int, int], dict[str, Any]]] = {
    "loracle": by_loracle,
    "loracle_liger": by_loracle_and_liger,
    "peft_padded": by_peft(padded_inputs),
    "peft_packed": by_peft(packed_inputs),
}


def methods_on(bench: Bench) -> list[str]:
    """All of them; without liger-kernel's where it cannot be used."""
    has_liger = bench.device.type == "cuda" and liger_layers.problem_with(bench.device) is None
    return [method for method in METHODS if has_liger or method != "loracle_liger"]
