"""(d) Building forests alone: tokens a second on 5 million tokens.

    .venv/bin/python benchmarks/forest_building.py

Three shapes: five questions a passage, rows that share nothing but a template, short rows.
"""

from __future__ import annotations

import time

import numpy as np
from turns import argument_parser, write_result

from loracle.forest.limits import MAX_ROW_TOKENS
from loracle.forest.trie import Sequences, build_forest

NUM_TOKENS = 5_000_000
VOCABULARY_SIZE = 50_000


def main() -> None:
    arguments = argument_parser(__doc__).parse_args()
    generator = np.random.default_rng(0)
    shapes = {
        "five questions a passage": (180, 20, 5),
        "template only": (20, 180, NUM_TOKENS),
        "short rows": (10, 10, 5),
    }
    figures = {}
    for name, (num_shared, num_own, num_sharing) in shapes.items():
        sequences = make(generator, num_shared, num_own, num_sharing)
        seconds = []
        for _ in range(3):
            started = time.perf_counter()
            forest = build_forest(sequences, max_row_tokens=MAX_ROW_TOKENS)
            seconds.append(time.perf_counter() - started)
        figures[name] = {
            "tokens_per_second": round(len(sequences.token_ids) / sorted(seconds)[1]),
            "num_nodes": forest.num_nodes,
            "num_rows": forest.num_rows,
        }
    write_result(arguments.name, "forest_building", {"num_tokens": NUM_TOKENS, "shapes": figures})


def make(
    generator: np.random.Generator, num_shared: int, num_own: int, num_sharing: int
) -> Sequences:
    """Rows of `num_shared + num_own` tokens; `num_sharing` of them share the first part."""
    length = num_shared + num_own
    num_rows = NUM_TOKENS // length
    num_trunks = -(-num_rows // num_sharing)
    trunks = generator.integers(0, VOCABULARY_SIZE, (num_trunks, num_shared), dtype=np.int32)
    rows = np.empty((num_rows, length), np.int32)
    rows[:, :num_shared] = (
        np.repeat(trunks, num_sharing, axis=0)[:num_rows]
        if (num_sharing <= num_rows)
        else trunks[0]
    )
    rows[:, num_shared:] = generator.integers(0, VOCABULARY_SIZE, (num_rows, num_own))
    weights = np.zeros((num_rows, length), np.float32)
    weights[:, -5:] = 1.0
    return Sequences(
        generator.permutation(rows).ravel(),
        np.arange(num_rows + 1, dtype=np.int64) * length,
        weights.ravel(),
    )


if __name__ == "__main__":
    main()
