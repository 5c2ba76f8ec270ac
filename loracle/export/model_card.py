"""The README.md of an exported model: what it was trained on, how well it does, and how to use it.

Numbers are copied from results.json; if there is no decision, the card says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from loracle.plan import BASE_NAME
from loracle.report.run_record import RunRecord, TrialRecord
from loracle.report.sections.lookup import Findings, interval, p_value, score
from loracle.run_folder.trial_record import TrainingOutcome
from loracle.text import count, metric_name


def model_card(record: RunRecord, trial: TrialRecord, form: str, how_to_use: str) -> str:
    """The card in Markdown, with the hub's YAML header. form: a value of `loracle export --to`."""
    results = record.results
    assert results is not None, "a winner is exported from a finished run"
    findings = Findings(results)
    trained = trial.training
    assert trained is not None, "the base is not exported"
    entry = next(e for e in record.plan["candidates"] if e["name"] == trial.candidate)
    base = results["model"]["name"]
    parts = [
        _head(base, form),
        f"# {trial.candidate}",
        f"A LoRA fine-tuning of `{base}` on the dataset `{trial.candidate}`, made and compared "
        f"with {len(record.plan['candidates']) - 1} other candidates by Loracle.",
        *_decision(findings),
        "## Data",
        _table(
            ["file", "rows used", "supervised tokens", "sha256"],
            [
                [
                    f"`{str(entry['path']).rpartition('/')[2]}`",
                    count(trained.num_examples),
                    count(trained.num_supervised_tokens),
                    f"`{entry.get('sha256')}`",
                ]
            ],
        ),
        *_leakage(record, trial.candidate),
        "## Scores",
        _scores(findings, trial.candidate),
        *_seed_note(record, trial),
        "## Training",
        _settings(record, trial.seed, trained),
        "## Use",
        how_to_use,
    ]
    return "\n\n".join(parts) + "\n"


def _head(base: str, form: str) -> str:
    tags = "- lora\n- loracle"
    library = "peft" if form == "peft" else "transformers"
    return (
        f"---\nbase_model: {base}\nlibrary_name: {library}\n"
        f"pipeline_tag: text-generation\ntags:\n{tags}\n---"
    )


def _decision(findings: Findings) -> list[str]:
    if not findings.decisions:
        return ["The run has no decision: its scores have no intervals."]
    sentence = findings.decisions[0]["sentence"]
    lines = [f"> {sentence['en']}\n>\n> {sentence['zh']}"]
    if findings.read_first:
        facts = "\n".join(
            f"- {fact['text']['en']}\n  {fact['text']['zh']}" for fact in findings.read_first
        )
        lines.append(f"**Read this first · 请先阅读**\n\n{facts}")
    return lines


def _leakage(record: RunRecord, candidate: str) -> list[str]:
    if record.check is None:
        return ["The data was not checked for leakage into the evaluation sets."]
    lines = [
        f"- {found['evaluation']}: {len(found['leaked_ids']):,} of "
        f"{len(found['leaked_ids']) + len(found['clean_ids']):,} questions share text with it"
        for found in record.check["leakage"]
        if found["candidate"] == candidate
    ]
    return ["Leakage into the evaluation sets:\n\n" + "\n".join(lines)] if lines else []


def _scores(findings: Findings, candidate: str) -> str:
    rows = []
    for scope in findings.scopes:
        for metric in findings.metrics:
            found = findings.estimate(candidate, metric, scope)
            base = findings.estimate(BASE_NAME, metric, scope)
            lift = findings.comparison(candidate, BASE_NAME, metric, scope)
            if found is None or base is None or lift is None:
                continue
            rows.append(
                [
                    "all sets" if scope is None else scope,
                    metric_name(metric),
                    f"{score(metric, found['mean'])} {interval(metric, found)}",
                    score(metric, base["mean"]),
                    f"{score(metric, lift['difference'], signed=True)} "
                    f"{interval(metric, lift, signed=True)}",
                    p_value(lift),
                ]
            )
    if not rows:
        return "results.json has no intervals; run again with this version."
    confidence = f"{findings.rule['confidence']:.0%}"
    header = ["evaluation", "metric", f"score, {confidence} interval", "base"]
    return _table([*header, f"lift, {confidence} interval", "corrected p"], rows)


def _seed_note(record: RunRecord, trial: TrialRecord) -> list[str]:
    seeds = record.plan["seeds"]
    if len(seeds) == 1:
        return []
    return [
        f"Means over the seeds {', '.join(map(str, seeds))}; "
        f"these weights are from seed {trial.seed}."
    ]


def _settings(record: RunRecord, seed: int | None, trained: TrainingOutcome) -> str:
    plan: Mapping[str, Any] = record.plan
    values = {
        **{f"lora.{key}": value for key, value in plan["lora"].items()},
        **{f"training.{key}": value for key, value in plan["training"].items()},
        "seed": seed,
        "steps": trained.num_steps,
        "adapter fingerprint": trained.adapter_fingerprint,
        "base weights": record.results["model"].get("quantization") if record.results else None,
        "base fingerprint": record.results["model"]["base_fingerprint"] if record.results else None,
    }
    return _table(["setting", "value"], [[key, f"`{value}`"] for key, value in values.items()])


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in lines
    )
