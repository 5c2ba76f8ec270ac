"""The plan: what an experiment does, fully checked before anything expensive starts.

A plan file; everything but `candidates` and `evaluation` has a default:

    model: Qwen/Qwen2.5-0.5B-Instruct
    candidates: [data/a.jsonl, {path: data/b.jsonl, name: short-answers, limit: 2000}]
    evaluation: [data/test.jsonl]
    training: {epochs: 2, learning_rate: 1e-3}

The path of a plan: `load_plan` (file, flags, --set) -> Plan -> `freeze` (with the hashes of its
files) -> `fingerprint` and `difference`, which say whether a run folder holds the same plan.

    sections.py   the sections and their fields      data_sections.py   those that name data
    root.py       Plan, and what must fit together   loading.py         file, flags, --set to a Plan
    names.py      names of data files                paths.py           names of data paths
    messages.py   parts of messages                  problems.py        pydantic's errors in words
    freezing.py   hashes, fingerprint, difference    foreign.py         other tools' training files
    locations.py  datasets and models of a hub       devices.py         keys of devices and Ray
"""

from __future__ import annotations

from loracle.plan.data_sections import (
    HOLDOUT,
    UNANSWERABLE_REPLY,
    CandidatePlan,
    DataFilePlan,
    EvaluationPlan,
    FieldName,
    FormatName,
    HoldoutPlan,
    Unanswerable,
)
from loracle.plan.freezing import (
    EntryKey,
    HeldOutFile,
    difference,
    fingerprint,
    freeze,
    plan_of,
    recorded_commits,
)
from loracle.plan.loading import (
    DataFile,
    load_plan,
    load_unmeasured_plan,
    load_untrained_plan,
    named_files,
)
from loracle.plan.messages import file_problem, nearest
from loracle.plan.names import BASE_NAME
from loracle.plan.paths import COMPRESSION_ENDINGS, data_name
from loracle.plan.root import Plan
from loracle.plan.sections import (
    EMBEDDED,
    Count,
    DecisionPlan,
    GenerationPlan,
    LoraPlan,
    ModelPlan,
    NonNegative,
    Positive,
    Section,
    Seed,
    Share,
    ShareBelowOne,
    Text,
    TrainingPlan,
)

__all__ = [
    "BASE_NAME",
    "COMPRESSION_ENDINGS",
    "EMBEDDED",
    "HOLDOUT",
    "UNANSWERABLE_REPLY",
    "CandidatePlan",
    "Count",
    "DataFile",
    "DataFilePlan",
    "DecisionPlan",
    "EntryKey",
    "EvaluationPlan",
    "FieldName",
    "FormatName",
    "GenerationPlan",
    "HeldOutFile",
    "HoldoutPlan",
    "LoraPlan",
    "ModelPlan",
    "NonNegative",
    "Plan",
    "Positive",
    "Section",
    "Seed",
    "Share",
    "ShareBelowOne",
    "Text",
    "TrainingPlan",
    "Unanswerable",
    "data_name",
    "difference",
    "file_problem",
    "fingerprint",
    "freeze",
    "load_plan",
    "load_unmeasured_plan",
    "load_untrained_plan",
    "named_files",
    "nearest",
    "plan_of",
    "recorded_commits",
]
