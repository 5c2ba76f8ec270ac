"""Which evaluation questions belong together: answers about one passage are not independent.

The label of a question is the first of these that applies:

    "group:NAME"    the row's own `group`
    "passage:3"     questions about one text: the same `context`, or prompts that share half of
                    their own text from the start
    "row:17"        nothing in common with any other question

Text that all questions share does not count: a template, or the one text that all of them are about
(then the questions are what was drawn from it).

Numbers are those of the first question of the passage, or of the row, from 0. Labels are made from
the text only, without a tokenizer: the same questions have the same labels under every model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from loracle.data.conversation import Example
from loracle.forest.ordering import prefix_groups
from loracle.forest.trie import IntArray, Sequences

KINDS = ("group", "passage", "row")


def question_clusters(examples: Sequence[Example]) -> list[str]:
    """The cluster label of every question, in order."""
    contexts = {example.context for example in examples}
    keys: list[tuple[str, object]] = []
    for example, prefix in zip(examples, _prefix_groups(examples), strict=True):
        if example.group is not None:
            keys.append(("group", example.group))
        elif example.context is not None and len(contexts) > 1:
            keys.append(("context", example.context))
        else:
            keys.append(("prefix", int(prefix)))
    sizes = Counter(keys)
    first: dict[tuple[str, object], int] = {}
    labels = []
    for number, key in enumerate(keys):
        number_of_first = first.setdefault(key, number)
        kind, value = key
        if kind == "group":
            labels.append(f"group:{value}")
        elif sizes[key] > 1:
            labels.append(f"passage:{number_of_first}")
        else:
            labels.append(f"row:{number}")
    return labels


def kinds_of(labels: Sequence[str]) -> dict[str, int]:
    """How many questions have a cluster of this kind, such as {"passage": 290, "row": 11}."""
    counts = Counter(label.split(":", 1)[0] for label in labels)
    return {kind: counts[kind] for kind in KINDS if counts[kind]}


def _prefix_groups(examples: Sequence[Example]) -> IntArray:
    prompts = [
        "".join(f"{turn.role}\n{turn.content}\n" for turn in example.conversation.prompt.messages)
        for example in examples
    ]
    # Half of a surrogate pair is treated as an ordinary character here.
    points = np.frombuffer("".join(prompts).encode("utf-32-le", "surrogatepass"), np.int32)
    offsets = np.concatenate(([0], np.cumsum([len(prompt) for prompt in prompts], dtype=np.int64)))
    return prefix_groups(Sequences(points, offsets))
