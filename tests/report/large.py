"""A large run without a model: five candidates with long names, three sets, two seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.report.runs import Shape, make_run

CANDIDATES = (
    "客服对话数据-2024年第三季度-人工清洗去重-第二版",
    "客服对话数据-2024年第三季度-自动清洗-第一版",
    "电商售后问答-真实工单脱敏-多轮合并-最终版",
    "合成数据-由大模型生成的售后问答-未经人工审核",
    "混合数据-客服与电商售后按一比一混合-训练用",
)
SETS = ("客服评测集", "售后政策问答评测集-2025", "通用能力回归评测")


def dataset(name: str, num_lost: int) -> dict[str, Any]:
    return {
        "name": name,
        "kind": "candidate",
        "description": "JSONL, messages",
        "accounting": {
            "num_read": 500,
            "num_kept": 500 - num_lost,
            "shortened": [],
            "dropped_by_reason": {"no answer": num_lost} if num_lost else {},
            "languages": {"zh": 1.0},
        },
        "findings": [{"kind": "duplicates", "num_rows": 7, "groups": []}] if num_lost else [],
        "problems": [],
    }


CHECK = {
    "datasets": [dataset(CANDIDATES[0], 0), dataset(CANDIDATES[1], 31)],
    "leakage": [
        {
            "candidate": CANDIDATES[0],
            "evaluation": SETS[0],
            "leaks": [],
            "leaked_ids": [f"{SETS[0]}-{number}" for number in range(10)],
            "clean_ids": [f"{SETS[0]}-{number}" for number in range(10, 60)],
        }
    ],
}


def make_large_run(root: Path) -> Path:
    """Five candidates with long names, three sets, two seeds."""
    quality = {"base": 0.3, **dict(zip(CANDIDATES, (0.8, 0.75, 0.5, 0.3, 0.1), strict=True))}
    num_rows = dict(zip(CANDIDATES, (1200, 1869, 640, 8588, 3000), strict=True))
    return make_run(
        root, Shape(quality, evaluations=SETS, seeds=(0, 1), num_rows=num_rows, check=CHECK)
    )
