"""How long the audit of 100,000 training rows against 10,000 evaluation rows takes, on one core.

    python benchmarks/audit.py [--train 100000] [--evaluation 10000] [--datasketch]

The rows are made: passages of about 700 letters with five questions each, words drawn as often as
words are (Zipf), a part in Chinese, and half of the rows without a passage; every hundredth
evaluation row is a copy or a paraphrase of a training row, and all of those must be found. The time
holds reading the JSONL files, the audit of both sets and the leakage, which is `loracle check`
without a tokenizer. --datasketch also times its MinHash on the same texts, signatures alone.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import tempfile
import time
from pathlib import Path

# Before numpy is loaded: one core means one thread.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

from loracle.data_check.datasets import check_files

QUESTIONS_OF_A_PASSAGE = 5
PLANTED_EVERY = 100
CHINESE_SHARE = 0.2


class Writer:
    """Makes texts of words that occur as often as real ones."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        letters = "etaoinshrdlucmfwypvbgk"
        lengths = [2, 3, 4, 5, 6, 7, 8, 9]
        self._words = [
            "".join(self._random.choices(letters, k=self._random.choice(lengths)))
            for _ in range(20_000)
        ]
        self._weights = [1 / (rank + 3) for rank in range(len(self._words))]
        self._han = [chr(0x4E00 + self._random.randrange(3500)) for _ in range(3500)]

    def text(self, num_words: int, *, chinese: bool) -> str:
        if chinese:
            return "".join(self._random.choices(self._han, self._weights[:3500], k=2 * num_words))
        return " ".join(self._random.choices(self._words, self._weights, k=num_words))

    def row(self, passage: str, *, chinese: bool) -> dict[str, str]:
        question = self.text(12, chinese=chinese) + "?"
        answer = passage[40:60] if passage else self.text(20, chinese=chinese)
        return {"context": passage, "question": question, "answer": answer or "none"}

    def rows(self, number: int) -> list[dict[str, str]]:
        found: list[dict[str, str]] = []
        while len(found) < number:
            chinese = self._random.random() < CHINESE_SHARE
            passage = self.text(120, chinese=chinese)
            found += [self.row(passage, chinese=chinese) for _ in range(QUESTIONS_OF_A_PASSAGE)]
            alone = [self.text(90, chinese=chinese) for _ in range(QUESTIONS_OF_A_PASSAGE)]
            found += [
                {"question": text, "answer": self.text(30, chinese=chinese)} for text in alone
            ]
        return found[:number]


def plant(evaluation: list[dict[str, str]], train: list[dict[str, str]]) -> int:
    """Put copies and paraphrases of training rows into the evaluation rows; returns how many."""
    places = range(0, len(evaluation), PLANTED_EVERY)
    for number, place in enumerate(places):
        row = dict(train[(number * 7919) % len(train)])
        if number % 2 and row.get("context"):
            words = row["context"].split(" ")
            words[len(words) // 2] = "paraphrased"
            row["context"] = " ".join(words)
        evaluation[place] = row
    return len(places)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--train", type=int, default=100_000)
    parser.add_argument("--evaluation", type=int, default=10_000)
    parser.add_argument("--datasketch", action="store_true")
    arguments = parser.parse_args()
    writer = Writer(1)
    train, evaluation = writer.rows(arguments.train), writer.rows(arguments.evaluation)
    num_planted = plant(evaluation, train)
    num_characters = sum(sum(map(len, row.values())) for row in [*train, *evaluation])
    with tempfile.TemporaryDirectory() as folder:
        for name, rows in (("train", train), ("test", evaluation)):
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            (Path(folder) / f"{name}.jsonl").write_text(text, encoding="utf-8")
        started, processor = time.perf_counter(), time.process_time()
        checked = check_files([f"{folder}/train.jsonl"], [f"{folder}/test.jsonl"])
    figures = {
        "rows": [arguments.train, arguments.evaluation],
        "characters": num_characters,
        "wall_seconds": round(time.perf_counter() - started, 1),
        "processor_seconds": round(time.process_time() - processor, 1),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "planted": num_planted,
        "leaked_ids": len(checked.leakages[0].leaked_ids),
        "untried_pairs": checked.leakages[0].num_untried_pairs,
    }
    if arguments.datasketch:
        figures["datasketch_signature_seconds"] = datasketch_seconds([*train, *evaluation])
    print(json.dumps(figures, indent=2))


def datasketch_seconds(rows: list[dict[str, str]]) -> float:
    """What datasketch's MinHash takes for the same texts, extrapolated from a sample of them."""
    from datasketch import MinHash

    texts = [row.get("context") or row["question"] for row in rows[:: max(1, len(rows) // 1000)]]
    started = time.process_time()
    for text in texts:
        sketch = MinHash(num_perm=128)
        sketch.update_batch([text[i : i + 5].encode() for i in range(len(text) - 4)])
    return round((time.process_time() - started) * len(rows) / len(texts), 1)


if __name__ == "__main__":
    main()
