"""The rule, verdict by verdict, on comparisons made by hand."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence

import pytest

from loracle.decision.rule import decide, undecided
from loracle.decision.settling import more_questions
from loracle.statistics import Analysis, Comparison, Estimate, SetFacts, Terms

PLAIN = Terms()
COSTS = {"a": 300.0, "b": 200.0, "c": 100.0}


def analysis_of(
    means: Mapping[str | None, Mapping[str, float]],
    shown: Sequence[tuple[str, str, str | None]],
    terms: Terms = PLAIN,
    absent: Collection[frozenset[str]] = (),
) -> Analysis:
    """means: by evaluation, by row, base first. shown: (better, worse, evaluation). absent: pairs
    between which a difference worth having is ruled out, on every set."""
    rows = list(next(iter(means.values())))
    candidates = tuple(rows[1:])
    pairs = [*((name, "base") for name in candidates), *itertools.combinations(candidates, 2)]

    def comparison(a: str, b: str, evaluation: str | None) -> Comparison:
        better = next(
            (x for x, y, where in shown if {x, y} == {a, b} and where == evaluation), None
        )
        difference = means[evaluation][a] - means[evaluation][b]
        p = 0.001 if better else 0.5
        return Comparison(
            a=a,
            b=b,
            evaluation=evaluation,
            difference=difference,
            low=None,
            high=None,
            margin=terms.min_gain if b == "base" else 0.0,
            p=p,
            p_corrected=p,
            exact=True,
            better=better,
            smallest_visible=0.1,
            questions_needed=500,
            absent=frozenset({a, b}) in absent,
            p_absent=0.5,
            largest=0.1,
            questions_to_absence=800 if abs(difference) < terms.worth else None,
            num_a_better=1,
            num_b_better=1,
            num_equal=1,
        )

    return Analysis(
        base="base",
        candidates=candidates,
        terms=terms,
        sets=tuple(SetFacts(name, 100, 20, 0.1, None) for name in means),
        estimates=tuple(
            Estimate(row, name, mean, None, None, mean - by_row["base"], 1)
            for name, by_row in means.items()
            for row, mean in by_row.items()
        ),
        comparisons=tuple(comparison(a, b, name) for name in means for a, b in pairs),
    )


def one_set(shown, terms: Terms = PLAIN, absent=(), **means):
    """absent: pairs as "a base"."""
    analysis = analysis_of(
        {"test": means},
        [(better, worse, "test") for better, worse in shown],
        terms,
        [frozenset(pair.split()) for pair in absent],
    )
    (decision,) = decide(analysis, COSTS)
    return decision


def test_a_candidate_better_than_the_base_and_every_other_is_to_be_used():
    decision = one_set(
        [("a", "base"), ("b", "base"), ("a", "b"), ("a", "c")], base=0.3, a=0.7, b=0.5, c=0.3
    )
    assert (decision.verdict, decision.winner, decision.recommended) == ("use", "a", "a")
    assert (decision.contenders, decision.helpful) == (("a",), ("a", "b"))
    assert decision.evaluation == "test"


TWO_HELP = [("a", "base"), ("b", "base"), ("a", "c")]


def test_between_equals_the_cheapest_is_recommended_and_none_wins():
    decision = one_set(TWO_HELP, absent=["a b"], base=0.3, a=0.7, b=0.69, c=0.3)
    assert (decision.verdict, decision.winner, decision.leader) == ("equal", None, "a")
    assert decision.contenders == ("a", "b")
    assert decision.recommended == "b"
    assert (decision.open, decision.more) == ((), None)


def test_contenders_are_not_equal_before_that_is_shown_too():
    decision = one_set(TWO_HELP, base=0.3, a=0.7, b=0.69, c=0.3)
    assert (decision.verdict, decision.winner, decision.recommended) == ("cannot_tell", None, "b")
    assert [(pair.a, pair.b) for pair in decision.open] == [("a", "b")]
    # 500 questions would show the difference, 800 would rule it out; 100 were asked in 20 groups.
    assert decision.more == (400, 80)


def test_one_open_contender_is_enough_to_leave_the_verdict_open():
    shown = [("a", "base"), ("b", "base"), ("c", "base")]
    decision = one_set(shown, absent=["a b"], base=0.3, a=0.7, b=0.69, c=0.6)
    assert decision.verdict == "cannot_tell"
    assert [(pair.a, pair.b) for pair in decision.open] == [("a", "c")]


def test_a_cheap_contender_that_is_not_shown_to_help_is_not_recommended():
    decision = one_set([("a", "base"), ("b", "base")], base=0.3, a=0.7, b=0.69, c=0.5)
    assert decision.contenders == ("a", "b", "c")
    assert decision.recommended == "b"


def test_the_best_mean_alone_is_not_enough_to_lead():
    # c has the best mean and is too uncertain to be shown to help: it contends.
    decision = one_set([("a", "base")], base=0.3, a=0.5, b=0.3, c=0.9)
    assert (decision.verdict, decision.leader) == ("cannot_tell", "a")
    assert decision.contenders == ("c", "a", "b")
    assert decision.recommended == "a"


def test_one_candidate_needs_only_to_beat_the_base():
    assert one_set([("a", "base")], base=0.3, a=0.5).verdict == "use"
    assert one_set([], base=0.3, a=0.5).verdict == "cannot_tell"
    assert one_set([], absent=["a base"], base=0.3, a=0.31).verdict == "none_helps"
    assert one_set([("base", "a")], base=0.3, a=0.1).verdict == "harmful"


def test_where_none_helps_the_base_is_kept_and_harm_is_named():
    decision = one_set(
        [("base", "b")], absent=["a base", "c base"], base=0.5, a=0.505, b=0.2, c=0.5
    )
    assert (decision.verdict, decision.winner, decision.recommended) == ("none_helps", None, None)
    assert (decision.leader, decision.harmful, decision.contenders) == ("a", ("b",), ())


def test_as_long_as_one_candidate_may_help_it_is_not_said_that_none_does():
    decision = one_set([("base", "b")], absent=["c base"], base=0.5, a=0.52, b=0.2, c=0.5)
    assert (decision.verdict, decision.leader, decision.recommended) == ("cannot_tell", "a", None)
    assert [pair.a for pair in decision.open] == ["a"]
    # Harm that is shown leaves nothing open.
    assert decision.harmful == ("b",)


def test_a_gain_is_settled_by_showing_it_or_by_ruling_all_of_them_out():
    ahead = one_set([], base=0.5, a=0.51, b=0.5)
    assert ahead.more == (400, 80)
    behind = one_set([], base=0.5, a=0.49, b=0.485)
    # What shows harm does not settle whether there is a gain.
    assert behind.more == (700, 140)
    least_gain = one_set([], Terms(min_gain=0.05, worth=0.05), base=0.5, a=0.52, b=0.5)
    assert least_gain.more == (700, 140)


def test_no_number_of_questions_is_given_beyond_ten_times_those_asked():
    facts = SetFacts("test", 100, 20, 0.1, None)
    assert more_questions(1_000, facts) == (900, 180)
    assert more_questions(1_001, facts) is None
    assert more_questions(None, facts) is None
    # Rounded up to two digits, and never nothing.
    assert more_questions(434, facts) == (340, 68)
    assert more_questions(90, facts) == (5, 1)


def test_candidates_that_are_all_worse_than_the_base_are_harmful():
    decision = one_set([("base", "a"), ("base", "b")], base=0.5, a=0.3, b=0.2)
    assert (decision.verdict, decision.harmful) == ("harmful", ("a", "b"))


def test_two_identical_candidates_have_no_winner_whatever_their_names():
    for names in (("a", "b"), ("b", "a")):
        means = {"base": 0.3, names[0]: 0.7, names[1]: 0.7}
        decision = one_set([("a", "base"), ("b", "base")], **means)
        assert (decision.verdict, decision.winner) == ("cannot_tell", None)
        assert decision.recommended == "b"


def test_where_lower_is_better_the_lowest_leads():
    terms = Terms(higher_is_better=False)
    decision = one_set([("a", "base"), ("a", "b")], terms, base=3.0, a=1.0, b=2.0)
    assert (decision.verdict, decision.winner) == ("use", "a")


TWO_SETS = {
    "new": {"base": 0.3, "a": 0.8, "b": 0.6},
    "old": {"base": 0.6, "a": 0.5, "b": 0.6},
    None: {"base": 0.45, "a": 0.65, "b": 0.6},
}


def test_of_several_sets_each_has_a_decision_after_the_overall_one():
    shown = [("a", "base", "new"), ("a", "b", "new"), ("a", "base", None), ("a", "b", None)]
    overall, new, old = decide(analysis_of(TWO_SETS, shown), COSTS)
    assert (overall.evaluation, overall.verdict, overall.winner) == (None, "use", "a")
    assert (new.evaluation, new.verdict) == ("new", "use")
    assert (old.evaluation, old.verdict) == ("old", "cannot_tell")


def test_a_candidate_that_forgets_is_not_recommended_overall():
    shown = [
        ("a", "base", "new"),
        ("base", "a", "old"),
        ("a", "base", None),
        ("a", "b", None),
        ("b", "base", None),
    ]
    overall, new, old = decide(analysis_of(TWO_SETS, shown), COSTS)
    assert [(c.a, c.evaluation) for c in overall.forgetting] == [("a", "old")]
    assert (overall.verdict, overall.winner, overall.helpful) == ("use", "b", ("b",))
    assert new.forgetting == old.forgetting == ()
    assert old.harmful == ("a",)


def test_if_the_only_helpful_candidate_forgets_none_helps_overall():
    shown = [("a", "base", None), ("base", "a", "old")]
    no_gain = [frozenset({"b", "base"})]
    overall = decide(analysis_of(TWO_SETS, shown, absent=no_gain), COSTS)[0]
    assert (overall.verdict, overall.recommended) == ("none_helps", None)
    assert overall.forgetting


@pytest.mark.parametrize(("names", "expected"), [(["x"], ["x"]), (["x", "y"], [None, "x", "y"])])
def test_without_a_finished_candidate_nothing_is_decided(names, expected):
    decisions = undecided(names)
    assert [decision.evaluation for decision in decisions] == expected
    assert {decision.verdict for decision in decisions} == {"undecided"}
