"""Metrics against the official scripts' scores, against definitions, and at their edges."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loracle.errors import DataError, PlanError
from loracle.metrics import (
    METRICS,
    cmrc_em,
    cmrc_f1,
    em,
    f1,
    get_metric,
    score,
    script_of,
    squad_em,
    squad_f1,
)
from loracle.metrics.answers import answer_tokens, script_of_set
from loracle.metrics.official import _english_tokens, _longest_run_tokens

GOLDEN = Path(__file__).resolve().parents[2].parent / "shared" / "golden"
TOLERANCE = 1e-9

Function = Callable[[str, Sequence[str]], float]
ANSWER_METRICS = [
    METRICS[name] for name in ("em", "f1", "squad_em", "squad_f1", "cmrc_em", "cmrc_f1")
]

# Letters of both kinds, articles, marks and full-width forms, so that they meet often.
texts = st.text(alphabet="ab aan the北京上がกี่1，。.,'\"‘ｂ１ \u3099", max_size=12)
references = st.lists(texts, min_size=1, max_size=3)


@pytest.mark.parametrize("name", ["squad", "cmrc"])
def test_every_official_score_is_reproduced(name: str) -> None:
    path = GOLDEN / f"{name}.jsonl"
    if not path.exists():
        pytest.skip(f"{path.name} with the official scores is not beside the repository")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 400
    for row in rows:
        scores = score(row["prediction"], row["answers"], [f"{name}_em", f"{name}_f1"])
        expected = {f"{name}_em": row["em"], f"{name}_f1": row["f1"]}
        assert scores == pytest.approx(expected, rel=0, abs=TOLERANCE), row


@pytest.mark.parametrize(
    ("prediction", "answers", "exact", "overlap"),
    [
        ("The Broncos.", ["broncos"], 1, 1),
        ("Denver Broncos won", ["Denver Broncos"], 0, 2 * (2 / 3) / (2 / 3 + 1)),
        # Counts, not sets: sets would give 1.
        ("new new york", ["new york"], 0, 0.8),
        ("yes no", ["no maybe"], 0, 0.5),
        ("York", ["New York City", "York"], 1, 1),
        ("", ["York"], 0, 0),
        ("5,500 km", ["5500 km"], 1, 1),
        ("well-known", ["wellknown"], 1, 1),
        ("an apple a day", ["apple day"], 1, 1),
        ("theatre", ["atre"], 0, 0),
        # Empty after normalisation: equal, but without a shared word.
        ("the", ["a"], 1, 0),
        # Only ASCII punctuation is removed.
        ("1950。", ["1950"], 0, 0),
        ("１９５０", ["1950"], 0, 0),
        ("北京 市", ["北京"], 0, 2 / 3),
    ],
)
def test_squad_scores_follow_the_official_rules(
    prediction: str, answers: list[str], exact: float, overlap: float
) -> None:
    assert squad_em(prediction, answers) == exact
    assert squad_f1(prediction, answers) == pytest.approx(overlap, abs=TOLERANCE)


@pytest.mark.parametrize(
    ("prediction", "answers", "exact", "overlap"),
    [
        ("会变小", ["会变小", "1530年"], 1, 1),
        ("The 1950年代.", ["1950年代"], 0, 0.75),
        ("“学费”，学费", ["学费"], 0, 2 / 3),
        ("北京，上海", ["北京上海"], 1, 1),
        # The longest run, not the longest subsequence: that would give 0.8.
        ("北x京", ["北京"], 0, 0.4),
        ("上海北京", ["北京上海"], 0, 0.5),
        # The official list has ’ but not ‘, and "……" in it never matches one character.
        ("‘北京’", ["北京"], 0, 0.8),
        ("北京…", ["北京"], 0, 0.8),
        # NLTK words: ca n't, 56.2 %, 9 – 18, t. t. tsui.
        ("can't 北", ["can not 北"], 0, 1 / 3),
        ("56.2%", ["56.2"], 0, 2 / 3),
        ("9–18", ["9"], 0, 0.5),
        ("T. T. Tsui画廊", ["t. t. tsui 画廊"], 0, 1),
        ("", ["。"], 1, 0),
        ("", ["北京"], 0, 0),
    ],
)
def test_cmrc_scores_follow_the_official_rules(
    prediction: str, answers: list[str], exact: float, overlap: float
) -> None:
    assert cmrc_em(prediction, answers) == exact
    assert cmrc_f1(prediction, answers) == pytest.approx(overlap, abs=TOLERANCE)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("they'll say \"no\", won't they?", "they 'll say `` no '' , wo n't they ?"),
        ("cannot gonna wanna go", "can not gon na wan na go"),
        ("'tis 'em the dogs' o'clock", "' tis ' em the dogs ' o'clock"),
        ("lemme'tis d'ye more'n", "lem me 't is d 'ye more 'n"),
        ("$3.88 (roughly 3,36 euros), r&b", "$ 3.88 ( roughly 3,36 euros ) , r & b"),
        ('end... or so..."yes', "end ... or so ... '' yes"),
        ("it ends. here it goes on.", "it ends . here it goes on ."),
        ('he said "so." (then left.)', "he said `` so . '' ( then left . )"),
        ("mr. smith of st. louis, u.s. too", "mr. smith of st. louis , u.s. too"),
        ("no. 1. fc köln", "no . 1. fc köln"),
        ("in 1950. 12 came", "in 1950 . 12 came"),
        ("«the ‘a", "« the ‘ a"),
        ("", ""),
    ],
)
def test_english_inside_chinese_is_cut_as_nltk_cuts_it(text: str, tokens: str) -> None:
    # The tokens are the output of nltk 3.10.4, word_tokenize with its Punkt abbreviations.
    assert _english_tokens(text) == tokens.split()


@pytest.mark.parametrize(
    ("prediction", "answers", "exact", "overlap"),
    [
        ("《北京》。", ["北京"], 1, 1),
        ("北京市", ["北京"], 0, 0.8),
        ("上上", ["上"], 0, 2 / 3),
        ("海上", ["上海"], 0, 1),
        ("１９５０年", ["1950年"], 1, 1),
        ("1，000年", ["1,000年"], 1, 1),
        ("10：30开始", ["10:30开始"], 1, 1),
        ("1950 年", ["1950年"], 1, 1),
        ("+$5元", ["5元"], 1, 1),
        ("the 北京", ["北京"], 1, 1),
        # An A-share is no article.
        ("A股", ["股"], 0, 2 / 3),
        ("北京Apple公司", ["苹果Apple公司"], 0, 0.6),
        ("IBM、Apple", ["IBM，Apple和"], 0, 0.8),
        ("Beijing city", ["北京", "Beijing"], 0, 2 / 3),
        ("か\u3099", ["が"], 1, 1),
        ("\ufeffกรุง\u200bเทพ", ["กรุงเทพ"], 1, 1),
        ("", ["北京"], 0, 0),
    ],
)
def test_unspaced_scripts_are_scored_by_characters(
    prediction: str, answers: list[str], exact: float, overlap: float
) -> None:
    assert em(prediction, answers) == exact
    assert f1(prediction, answers) == pytest.approx(overlap, abs=TOLERANCE)


def test_a_combining_mark_belongs_to_the_character_before_it() -> None:
    assert answer_tokens("ที่นี่", "characters") == ["ที่", "นี่"]


@pytest.mark.parametrize(
    ("answers", "script"),
    [
        (["The Broncos"], "spaced"),
        (["München", "Москва", "서울 시"], "spaced"),
        (["1950"], "spaced"),
        (["北京"], "characters"),
        (["Beijing", "北京"], "characters"),
        (["IPCC 规程"], "characters"),
        (["タワー"], "characters"),
        (["ｶﾅ"], "characters"),
        (["กรุงเทพ"], "characters"),
        (["ភ្នំពេញ"], "characters"),
        (["𠀀"], "characters"),
        (["。、，“”・"], "spaced"),
    ],
)
def test_the_script_is_that_of_the_references(answers: list[str], script: str) -> None:
    assert script_of(answers) == script


def test_a_prediction_cannot_choose_its_metric() -> None:
    # By characters this would share 1950 with the reference.
    assert f1("1950年", ["1950"]) == 0
    assert f1("1950年", ["1950 年"]) == 1


phrases = st.lists(
    st.sampled_from(
        ["the b", "a cat", "an b.c", "It's", "C", "well-known", "theatre", "cat,", '"b"']
    )
).map(" ".join)


@given(prediction=phrases, answers=st.lists(phrases.filter(bool), min_size=1))
def test_words_without_numbers_score_as_squad(prediction: str, answers: list[str]) -> None:
    assert em(prediction, answers) == squad_em(prediction, answers)
    assert f1(prediction, answers) == squad_f1(prediction, answers)


@pytest.mark.parametrize(
    ("prediction", "answer"),
    [
        ("1998。", "1998"),
        ("１９９８", "1998"),
        ("दिल्ली।", "दिल्ली"),
        ("¿Madrid?", "Madrid"),
        ("“Hello”", "Hello"),
        ("don’t", "don't"),
        ("«Paris»", "paris"),
        ("the 1990–1995 war", "1990-1995 war"),
        ("1990 – 1995", "1990-1995"),
        ("3~5天", "3-5天"),
        ("5,500 km", "5500 km"),
        ("1，000", "1000"),
        (".5", "0.5"),
        ("−5", "-5"),
        ("(-5)", "-5"),
        ("-$5", "-5"),
        ("50%", "50"),
        ("3.5.", "3.5"),
        ("½", "1/2"),
        ("m²", "m^2"),
        ("well-known", "wellknown"),
        ("F-16", "F16"),
        ("A", "a"),
        ("The", "the"),
        ("Vitamin A.", "vitamin A"),
        ("C++。", "C++"),
        ("ﬁne", "fine"),
        ("زي\u200cبا", "زيبا"),
        ("", ""),
    ],
)
def test_the_same_answer_in_other_writing_matches(prediction: str, answer: str) -> None:
    assert em(prediction, [answer]) == em(answer, [prediction]) == 1
    assert f1(prediction, [answer]) == f1(answer, [prediction]) == 1


@pytest.mark.parametrize(
    ("prediction", "answer"),
    [
        ("3.5", "35"),
        ("3.5米", "35米"),
        ("-5", "5"),
        ("−5", "5"),
        ("1/2", "12"),
        ("3:30", "330"),
        ("10³", "103"),
        ("3,5", "35"),
        ("1½", "11/2"),
        ("3~5", "35"),
        ("10%-15%", "1015"),
        ("<5", "5"),
        ("5'10", "510"),
        ("1_2", "12"),
        ("C++", "C"),
        ("C#", "C"),
        ("A+", "A"),
        ("A-", "A"),
        ("AB+", "AB-"),
        ("", "A"),
        ("the", "A"),
        ("", "。"),
        ("+", "-"),
        ("Vitamin A", "Vitamin"),
        ("1.2.3", "123"),
    ],
)
def test_another_answer_does_not_match_for_want_of_its_marks(prediction: str, answer: str) -> None:
    assert em(prediction, [answer]) == em(answer, [prediction]) == 0
    assert f1(prediction, [answer]) < 1


@given(text=st.text(), script=st.sampled_from(["spaced", "characters"]))
def test_no_text_is_normalised_to_nothing(text: str, script) -> None:
    visible = "".join(char for char in text if char.isprintable() and not char.isspace())
    assert answer_tokens(text, script) or not visible.strip()


@given(texts)
def test_any_text_matches_itself(text: str) -> None:
    assert em(text, [text]) == f1(text, [text]) == 1


def test_the_script_is_that_of_the_whole_evaluation_set() -> None:
    assert script_of_set([["1998"], ["北京", "Beijing"]]) == "characters"
    assert script_of_set([["1998"], ["Beijing"]]) == "spaced"
    assert f1("1998年", ["1998"]) == 0
    assert f1("1998年", ["1998"], "characters") == f1("1998", ["1998年"])
    assert score("1998年", ["1998"], ["f1", "em"], "characters") == {"f1": 2 / 3, "em": 0}


@given(prediction=phrases, answer=phrases)
def test_words_with_spaces_score_alike_by_words_and_by_characters(
    prediction: str, answer: str
) -> None:
    assert f1(prediction, [answer], "spaced") == f1(prediction, [answer], "characters")


@pytest.mark.parametrize("metric", ANSWER_METRICS, ids=lambda metric: metric.name)
class TestEveryAnswerMetric:
    @given(prediction=texts, answers=references)
    def test_lies_between_0_and_1(self, metric, prediction: str, answers: list[str]) -> None:
        assert 0 <= metric.function(prediction, answers) <= 1

    @given(prediction=texts, answers=references, further=texts)
    def test_never_falls_when_a_reference_of_the_script_is_added(
        self, metric, prediction: str, answers: list[str], further: str
    ) -> None:
        if script_of(answers) == script_of([*answers, further]):
            alone = metric.function(prediction, answers)
            assert metric.function(prediction, [*answers, further]) >= alone

    @given(answers=references)
    def test_gives_identical_text_the_full_score(self, metric, answers: list[str]) -> None:
        # A text of letters: one that normalises to nothing shares no token with itself.
        text = f"北x{answers[0]}"
        assert metric.function(text, [*answers, text]) == 1

    @given(first=texts, second=texts)
    def test_is_symmetric_where_the_script_is_the_same(
        self, metric, first: str, second: str
    ) -> None:
        if script_of([first]) == script_of([second]):
            forward = metric.function(first, [second])
            assert forward == pytest.approx(metric.function(second, [first]), abs=TOLERANCE)

    def test_refuses_an_empty_list_of_references(self, metric) -> None:
        with pytest.raises(DataError, match="no reference answer"):
            metric.function("x", [])

    def test_refuses_one_text_in_place_of_a_list(self, metric) -> None:
        with pytest.raises(AssertionError, match="list of texts"):
            metric.function("x", "xyz")


@pytest.mark.parametrize(("exact", "overlap"), [(em, f1), (squad_em, squad_f1)])
@given(prediction=texts, answers=references)
def test_an_exact_match_has_full_f1_unless_nothing_is_left_of_it(
    exact: Function, overlap: Function, prediction: str, answers: list[str]
) -> None:
    if exact(prediction, answers) == 1:
        is_nothing = exact("", [prediction]) == 1 or exact("", answers) == 1
        assert overlap(prediction, answers) == 1 or is_nothing


@given(st.lists(st.sampled_from("abc")), st.lists(st.sampled_from("abcd")))
def test_the_longest_run_is_that_of_the_definition(first: list[str], second: list[str]) -> None:
    runs = {
        tuple(first[start:end]) for start in range(len(first)) for end in range(start, len(first))
    } | {tuple(first[start:]) for start in range(len(first))}
    expected = max(
        (
            len(run)
            for run in runs
            if any(tuple(second[i : i + len(run)]) == run for i in range(len(second)))
        ),
        default=0,
    )
    assert _longest_run_tokens(first, second) == expected


def test_a_very_long_prediction_takes_memory_for_its_length_alone() -> None:
    prediction = "北京上海" * 10_000
    reference = "上海北京" * 500
    tracemalloc.start()
    value = cmrc_f1(prediction, [reference])
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert value == pytest.approx(2 * 0.05 / 1.05, abs=TOLERANCE)
    # A table of both lengths would take 80 million cells.
    assert peak_bytes < 20_000_000


def test_long_english_without_spaces_is_cut_in_a_moment() -> None:
    # With quadratic backtracking these would take minutes.
    assert _english_tokens("x" * 100_000) == ["x" * 100_000]
    assert len(_english_tokens("a." * 50_000)) <= 2
    assert _english_tokens("x" + "." * 100_000) == ["x", "." * 100_000]
    assert len(_english_tokens("." + ")" * 100_000)) == 100_001
    assert len(_english_tokens("x. " + " " * 100_000 + "'" * 100_001)) == 50_003


def test_scores_come_by_name_in_the_order_asked_for() -> None:
    assert list(score("x", ["x y"], ["squad_f1", "em"]).items()) == [
        ("squad_f1", 2 / 3),
        ("em", 0.0),
    ]


def test_the_registry_knows_each_metric_by_its_name() -> None:
    assert {name: metric.name for name, metric in METRICS.items()} == {n: n for n in METRICS}
    names = "em f1 squad_em squad_f1 cmrc_em cmrc_f1 rouge_l bleu chrf numeric choice answer_nll"
    assert " ".join(METRICS) == names


def test_the_likelihood_of_answers_is_better_lower_and_needs_the_model() -> None:
    likelihood = get_metric("answer_nll")
    assert (likelihood.needs_model, likelihood.higher_is_better, likelihood.unit) == (
        True,
        False,
        "nats",
    )
    others = [metric for metric in METRICS.values() if metric.name != "answer_nll"]
    assert all(m.higher_is_better and m.unit == "share" and not m.needs_model for m in others)


def test_a_metric_that_needs_the_model_is_refused_for_texts() -> None:
    with pytest.raises(PlanError, match=r"answer_nll needs the model's .*loracle run"):
        score("x", ["x"], ["answer_nll"])


def test_an_unknown_metric_is_answered_with_the_nearest_and_all() -> None:
    with pytest.raises(PlanError) as caught:
        get_metric("squad_ff1")
    message = str(caught.value)
    assert "there is no metric 'squad_ff1'; did you mean squad_f1?" in message
    assert all(name in message for name in METRICS)


def test_a_metric_near_to_none_is_answered_with_all() -> None:
    with pytest.raises(PlanError) as caught:
        get_metric("perplexity")
    assert "did you mean" not in str(caught.value)
    assert "known: em, f1" in str(caught.value)
