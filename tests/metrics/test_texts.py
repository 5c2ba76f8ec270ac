"""ROUGE-L, BLEU and chrF against definitions and the libraries they follow."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loracle import metrics
from loracle.errors import DataError, MissingExtraError
from loracle.metrics import bleu, check_usable, chrf, rouge_l
from loracle.metrics.texts import _common_subsequence_tokens

words = st.lists(st.sampled_from("abcde"), max_size=12)
sentences = st.lists(st.sampled_from(["the", "cat", "sat", "on", "a-b", "U.S.", "3,000"]))


def subsequence_by_definition(first: list[str], second: list[str]) -> int:
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, a in enumerate(first, 1):
        for j, b in enumerate(second, 1):
            either = max(table[i - 1][j], table[i][j - 1])
            table[i][j] = table[i - 1][j - 1] + 1 if a == b else either
    return table[-1][-1]


@given(first=words, second=words)
def test_the_longest_common_subsequence_is_that_of_the_table(
    first: list[str], second: list[str]
) -> None:
    expected = subsequence_by_definition(first, second)
    assert _common_subsequence_tokens(first, second) == expected


@pytest.mark.parametrize(
    ("prediction", "reference", "shared", "lengths"),
    [
        # Lin 2004, section 3.1, equation 4: "police killed" of four and four words.
        ("police kill the gunman", "police killed the gunman", 3, (4, 4)),
        ("the gunman kill police", "police killed the gunman", 2, (4, 4)),
        ("It's 3,000 km!", "3 000 KM", 3, (5, 3)),
        ("Москва большая", "большая москва", 1, (2, 2)),
        ("नई दिल्ली", "दिल्ली", 1, (2, 1)),
        ("北京是首都", "首都是北京", 2, (5, 5)),
        ("答：北京 Daxing 机场", "北京Daxing机场", 5, (6, 5)),
        ("", "x", 0, (0, 1)),
        ("...", "...", 0, (0, 0)),
    ],
)
def test_rouge_l_is_the_f1_of_the_subsequence(
    prediction: str, reference: str, shared: int, lengths: tuple[int, int]
) -> None:
    expected = 2 * shared / sum(lengths) if shared else 0.0
    assert rouge_l(
        prediction, ["something else 北" if "北" in reference else "other", reference]
    ) == (pytest.approx(expected))


@given(prediction=sentences, reference=sentences)
def test_rouge_l_equals_google_s_on_english(prediction: list[str], reference: list[str]) -> None:
    scorers = pytest.importorskip("rouge_score.rouge_scorer", reason="needs rouge-score")
    first, second = " ".join(prediction), " ".join(reference)
    expected = scorers.RougeScorer(["rougeL"]).score(second, first)["rougeL"].fmeasure
    assert rouge_l(first, [second]) == pytest.approx(expected, abs=1e-12)


class TestBySacrebleu:
    """What needs the extra of that name."""

    @pytest.fixture(autouse=True)
    def _library(self) -> None:
        pytest.importorskip("sacrebleu", reason="needs the extra sacrebleu")

    def test_bleu_is_its_definition_with_exponential_smoothing(self) -> None:
        # 5 of 6 words, 3 of 5 pairs, 1 of 4 triples; no quadruple counts as half of one.
        expected = math.prod((5 / 6, 3 / 5, 1 / 4, 1 / (2 * 3))) ** (1 / 4)
        assert bleu("the cat sat on the mat", ["the cat is on the mat"]) == pytest.approx(expected)

    def test_a_short_answer_is_measured_by_the_orders_that_it_has(self) -> None:
        assert bleu("Denver Broncos", ["Denver Broncos"]) == pytest.approx(1)

    def test_a_short_prediction_pays_for_its_brevity(self) -> None:
        reference = "the cat is on the mat"
        assert bleu("the cat is on", [reference]) == pytest.approx(math.exp(1 - 6 / 4))

    def test_bleu_takes_all_references_together(self) -> None:
        both = bleu("a b c d", ["a b x x", "x x c d"])
        assert both > max(bleu("a b c d", ["a b x x"]), bleu("a b c d", ["x x c d"]))

    @pytest.mark.parametrize(
        ("reference", "prediction"),
        [
            # Characters, not one long word of which a part is nothing.
            ("北京是中国的首都", "北京是中国首都"),
            ("東京は日本の首都です", "東京は日本の都です"),
            ("กรุงเทพเป็นเมืองหลวง", "กรุงเทพเป็นเมือง"),
        ],
    )
    def test_scripts_without_spaces_are_cut_into_characters(
        self, reference: str, prediction: str
    ) -> None:
        for metric in (bleu, chrf, rouge_l):
            assert 0.4 < metric(prediction, [reference]) < 1
            assert metric(reference, [reference]) == pytest.approx(1)

    def test_chrf_is_sacrebleu_s_and_takes_the_best_reference(self) -> None:
        import sacrebleu

        prediction, others = "the cat sat", ["the cat sits", "a dog"]
        expected = sacrebleu.sentence_chrf(prediction, others).score / 100
        assert chrf(prediction, others) == pytest.approx(expected)
        assert chrf(prediction, others) == pytest.approx(chrf(prediction, others[:1]))
        assert chrf("xyz", ["abc"]) == 0

    @pytest.mark.parametrize("metric", [bleu, chrf, rouge_l])
    def test_nothing_scores_nothing_and_references_are_needed(self, metric) -> None:
        assert metric("", ["the cat"]) == 0
        with pytest.raises(DataError, match="no reference answer"):
            metric("x", [])


def test_without_the_library_the_command_that_installs_it_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metrics.registry, "find_spec", lambda name: None)
    with pytest.raises(
        MissingExtraError, match=r"bleu needs .* pip install 'loracle\[sacrebleu\]'"
    ):
        check_usable("bleu")
    assert check_usable("rouge_l").function is rouge_l
