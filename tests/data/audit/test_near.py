"""Near-duplicates against their definition: exact Jaccard over every pair."""

from __future__ import annotations

import random

import numpy as np
import pytest

from loracle.data.audit import near
from loracle.data.audit.near import near_pairs
from loracle.data.audit.normalizing import normalized
from loracle.data.audit.signatures import signatures_of

WORDS = "river stone winter glass harbour engine letter copper garden signal metal forest".split()  # noqa: SIM905
HAN = [chr(0x4E00 + i) for i in range(600)]


def ngrams(text: str) -> set[str]:
    """The n-grams by definition: three characters from a Han one on, five from others."""
    found = set()
    for start, first in enumerate(text):
        size = 3 if "\u4e00" <= first <= "\u9fff" else 5
        if start + size <= len(text):
            found.add(text[start : start + size])
    return found


def jaccard(left: str, right: str) -> float:
    a, b = ngrams(left), ngrams(right)
    return len(a & b) / len(a | b)


def english(generator: random.Random, num_words: int) -> list[str]:
    syllables = "ba ke lo mi nu ra se to vi za pho gre stu fla".split()  # noqa: SIM905
    return ["".join(generator.choices(syllables, k=3)) for _ in range(num_words)]


def edited(items: list[str], generator: random.Random, num_edits: int, source: list[str]):
    changed = list(items)
    for position in generator.sample(range(len(items)), num_edits):
        changed[position] = generator.choice(source)
    return changed


def assert_found_with_their_next(texts: list[str]) -> None:
    """Every second text is found with the one behind it, at the likeness of their shingles."""
    pairs = near_pairs(texts, 0.5).pairs
    assert [(p.left, p.right) for p in pairs] == [(i, i + 1) for i in range(0, len(texts), 2)]
    for pair in pairs:
        expected = jaccard(texts[pair.left], texts[pair.right])
        assert pair.similarity == pytest.approx(expected, abs=1e-12)


def test_every_reported_similarity_is_the_jaccard_similarity_of_the_ngrams():
    generator = random.Random(1)
    texts = []
    for _ in range(15):
        base = english(generator, 60)
        texts += [" ".join(base), " ".join(edited(base, generator, 6, WORDS))]
    assert_found_with_their_next(texts)


def test_chinese_is_compared_without_spaces_to_split_at():
    generator = random.Random(2)
    texts = []
    for _ in range(15):
        base = generator.choices(HAN, k=150)
        texts += ["".join(base), "".join(edited(base, generator, 8, HAN))]
    assert_found_with_their_next(texts)


def test_no_pair_of_a_brute_force_comparison_well_above_the_threshold_is_missed():
    generator = random.Random(3)
    base = [english(generator, 50) for _ in range(40)]
    texts = [" ".join(b) for b in base]
    texts += [" ".join(edited(b, generator, k % 12, WORDS)) for k, b in enumerate(base) if k % 12]
    expected = {
        (i, j)
        for i in range(len(texts))
        for j in range(i + 1, len(texts))
        if jaccard(texts[i], texts[j]) >= 0.7
    }
    assert expected
    assert expected <= {(p.left, p.right) for p in near_pairs(texts, 0.5).pairs}


def test_only_pairs_across_the_border_are_compared_where_it_is_given():
    generator = random.Random(4)
    base = english(generator, 60)
    copies = [" ".join(edited(base, generator, 2, WORDS)) for _ in range(4)]
    pairs = near_pairs(copies, 0.5, num_left=2).pairs
    assert {(p.left, p.right) for p in pairs} == {(0, 2), (0, 3), (1, 2), (1, 3)}


def test_what_most_texts_share_makes_no_two_of_them_near():
    generator = random.Random(5)
    template = (
        "answer the question with a short span copied from the passage and nothing else than it "
    )
    texts = [template + " ".join(english(generator, 5)) for _ in range(100)]
    assert jaccard(texts[0], texts[1]) > 0.5
    assert near_pairs(texts, 0.5).pairs == []


def test_texts_too_short_to_tell_are_not_near():
    assert near_pairs(["paris france", "paris francs"], 0.1).pairs == []


def test_pairs_left_untried_in_a_large_cluster_are_counted(monkeypatch):
    monkeypatch.setattr(near, "MAX_BUCKET_PAIRS", 2)
    generator = random.Random(6)
    base = english(generator, 80)
    copies = [" ".join([*base, *english(generator, 2)]) for _ in range(8)]
    found = near_pairs(copies, 0.5, num_left=4)
    assert found.num_untried > 0
    # Every evaluation text is still named.
    assert {p.right for p in found.pairs} == {4, 5, 6, 7}


def test_a_very_large_bucket_names_every_text_by_fewer_pairs(monkeypatch):
    monkeypatch.setattr(near, "MAX_PAIRS_IN_BUCKET", 8)
    generator = random.Random(6)
    base = english(generator, 80)
    found = near_pairs([" ".join([*base, *english(generator, 2)]) for _ in range(8)], 0.5)
    assert found.num_untried > 0
    assert {p.right for p in found.pairs} == set(range(1, 8))


def test_pairs_are_the_same_however_short_the_stretches_and_batches_are(monkeypatch):
    generator = random.Random(7)
    base = [english(generator, 60) for _ in range(30)]
    texts = [" ".join(edited(one, generator, 4, WORDS)) for one in base for _ in range(3)]
    generator.shuffle(texts)
    expected = [near_pairs(texts, 0.5), near_pairs(texts, 0.5, num_left=40)]
    assert len(expected[0].pairs) > 60
    monkeypatch.setattr(near, "_STRETCH_TEXTS", 7)
    monkeypatch.setattr(near, "_BATCH_PAIRS", 5)
    assert [near_pairs(texts, 0.5), near_pairs(texts, 0.5, num_left=40)] == expected


def test_two_texts_agree_in_at_least_as_many_bytes_of_their_sketches_as_in_bins():
    generator = random.Random(8)
    base = [english(generator, 40) for _ in range(20)]
    left, right = (
        signatures_of([" ".join(edited(one, generator, 12, WORDS)) for one in base], None)[0]
        for _ in range(2)
    )
    in_bins = (left == right).sum(axis=1)
    in_bytes = (left.astype(np.uint8) == right.astype(np.uint8)).sum(axis=1)
    assert (in_bins > 0).all()
    assert (in_bytes >= in_bins).all()


def test_nothing_to_compare_gives_nothing():
    assert near_pairs([], 0.5).pairs == []
    assert near_pairs(["alone in the world of many texts"], 0.5).pairs == []
    assert near_pairs(["", ""], 0.5).pairs == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ｗho  won？\nThe Broncos!", "who won the broncos"),
        ("“The” well-known, U.S. team", "the well known u s team"),
        ("2 + 2 = 4", "2 + 2 = 4"),
        ("it is -5 °C", "it is -5 °c"),
        ("谁赢得了比赛？", "谁赢得了比赛"),
        ("नमस्ते दुनिया।", "नमस्ते दुनिया"),
        ("...", ""),
    ],
)
def test_what_differs_in_writing_alone_is_equal(text, expected):
    assert normalized(text) == expected
