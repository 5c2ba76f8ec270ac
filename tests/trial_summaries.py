"""Summaries of trials that never ran, for tests of what reads them."""

from __future__ import annotations

from loracle.run_folder.trial_record import EvaluationOutcome, TrainingOutcome, TrialSummary


def summary(
    candidate: str = "clean",
    seed: int | None = 0,
    num_steps: int = 1,
    num_tokens_computed: int = 40,
) -> TrialSummary:
    """The summary of one trial; of the base if `seed` is None."""
    training = TrainingOutcome(
        num_examples=100,
        num_supervised_tokens=500,
        num_steps=num_steps,
        num_tokens_read=100 * num_steps,
        num_tokens_computed=num_tokens_computed,
        seconds=2.0 * num_steps,
        final_loss=0.5,
        initial_adapter_fingerprint="00",
        adapter_fingerprint="ff",
    )
    evaluations = {
        "test": EvaluationOutcome({"f1": 0.5}, {"stop": 3}, {"spaced": 3}, {}),
    }
    return TrialSummary(candidate, seed, training if seed is not None else None, evaluations, 30.0)
