"""How often the decision is right, in simulated experiments whose truth is known.

    .venv/bin/python benchmarks/decisions.py

Answers are right or wrong: a question is answered where a normal variable is above 0. It is a sum
of the row's level, the passage's difficulty, the question's, how this row copes with this passage
(so differences are clustered too), with several seeds the training's luck, and noise. The share of
right answers that a row has in the long run follows exactly from its level.

The product's own code analyses and decides; nothing of it is done again here. The slow test
`tests/statistics/test_simulations.py` holds the same figures to their bounds.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from loracle.decision.rule import decide
from loracle.statistics import GAIN_WORTH_HAVING, Analysis, ScoredSet, Terms, analyse
from loracle.statistics.bootstrap import intervals
from loracle.statistics.spread import Clustering

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# Standard deviations beside the noise's 1.
OF_PASSAGE = 0.6
OF_QUESTION = 0.8
OF_ROW_AND_PASSAGE = 0.4
OF_SEED_AND_QUESTION = 0.3

# Deciding needs no intervals; one resample keeps their cost away. Their coverage can be counted
# with fewer resamples than the product draws.
DECIDING = Terms(num_resamples=1)
NUM_RESAMPLES = 1_999


def cluster_sizes(generator: np.random.Generator, num_clusters: int) -> IntArray:
    """Questions of every passage: 5 on average, unequal, as in question answering sets."""
    return np.minimum(generator.geometric(0.2, num_clusters), 25)


def answers(
    generator: np.random.Generator,
    rates: Sequence[float],
    sizes: IntArray,
    num_seeds: int = 1,
    of_seed: float = 0.0,
) -> FloatArray:
    """Right (1) or wrong (0): (rows, seeds, questions), with those shares right in the long run."""
    num_rows, num_questions, num_clusters = len(rates), int(sizes.sum()), len(sizes)
    cluster_Q = np.repeat(np.arange(num_clusters), sizes)
    shared = OF_PASSAGE * generator.standard_normal(num_clusters)[cluster_Q]
    shared = shared + OF_QUESTION * generator.standard_normal(num_questions)
    own = OF_ROW_AND_PASSAGE * generator.standard_normal((num_rows, num_clusters))[:, cluster_Q]
    of_seeds = of_seed * generator.standard_normal((num_rows, num_seeds, 1))
    variance = 1 + OF_PASSAGE**2 + OF_QUESTION**2 + OF_ROW_AND_PASSAGE**2 + of_seed**2
    noise = generator.standard_normal((num_rows, num_seeds, num_questions))
    if num_seeds > 1:
        # The greater part of the noise belongs to the row; the rest comes with each seed.
        kept = generator.standard_normal((num_rows, 1, num_questions))
        share = OF_SEED_AND_QUESTION**2
        noise = math.sqrt(1 - share) * kept + math.sqrt(share) * noise
    levels = stats.norm.ppf(rates) * math.sqrt(variance)
    latent = levels[:, None, None] + shared + own[:, None, :] + of_seeds + noise
    return (latent > 0).astype(np.float64)


def analysis_of(
    scores: FloatArray, sizes: IntArray, terms: Terms = DECIDING, *, clustered: bool = True
) -> Analysis:
    """The first row is the base. clustered: whether the analysis knows the passages."""
    labels = np.repeat(np.arange(len(sizes)), sizes) if clustered else np.arange(sizes.sum())
    rows = {"base": scores[0, :1]} | {f"c{i}": row for i, row in enumerate(scores[1:])}
    return analyse([ScoredSet("test", [str(label) for label in labels], rows)], "base", terms)


class Winners(NamedTuple):
    """num_named: experiments in which a winner was named, of num_experiments."""

    num_named: int
    num_experiments: int

    @property
    def share(self) -> float:
        return self.num_named / self.num_experiments


def winners_without_difference(
    num_experiments: int, base_rate: float, seed: int, *, clustered: bool = True
) -> dict[int, Winners]:
    """By number of candidates, 2 to 8, all equally good; the base is as good or worse."""
    generator = np.random.default_rng(seed)
    named = dict.fromkeys(range(2, 9), 0)
    asked = dict.fromkeys(range(2, 9), 0)
    for number in range(num_experiments):
        num_candidates = 2 + number % 7
        sizes = cluster_sizes(generator, int(generator.choice([12, 20, 40, 80])))
        scores = answers(generator, [base_rate] + num_candidates * [0.6], sizes)
        analysis = analysis_of(scores, sizes, clustered=clustered)
        costs = dict.fromkeys(analysis.candidates, 1.0)
        named[num_candidates] += decide(analysis, costs)[0].winner is not None
        asked[num_candidates] += 1
    return {number: Winners(named[number], asked[number]) for number in named}


def total(winners: dict[int, Winners]) -> Winners:
    """Over all numbers of candidates."""
    return Winners(*(sum(counts) for counts in zip(*winners.values(), strict=True)))


class Coverage(NamedTuple):
    """Shares of the 95 % intervals that hold the truth: of a mean, and of a paired difference."""

    of_mean: float
    of_difference: float


def coverage(
    num_experiments: int, num_clusters: int, rate_a: float, rate_b: float, seed: int
) -> Coverage:
    """Intervals of a's mean and of a less b, over fresh passages and questions each time."""
    generator = np.random.default_rng(seed)
    held = np.zeros(2)
    # Experiments of one batch share the passages' sizes, and each is a column.
    num_batches = 10
    per_batch = num_experiments // num_batches
    for batch in range(num_batches):
        sizes = cluster_sizes(generator, num_clusters)
        clustering = Clustering.of([np.repeat(np.arange(num_clusters), sizes).tolist()])
        pairs = [answers(generator, [rate_a, rate_b], sizes)[:, 0] for _ in range(per_batch)]
        a, b = np.stack(pairs, axis=1).transpose(0, 2, 1)
        for place, (values, truth, least) in enumerate(
            ((a, rate_a, 0.0), (a - b, rate_a - rate_b, -1.0))
        ):
            bounds = (np.full(per_batch, least), np.ones(per_batch))
            low, high = intervals(
                clustering.totals(values), 0.95, batch, bounds, num_resamples=NUM_RESAMPLES
            )
            held[place] += ((low <= truth) & (truth <= high)).sum()
    return Coverage(*(held / (num_batches * per_batch)))


def coverage_with_seeds(
    num_experiments: int, num_clusters: int, num_seeds: int, of_seed: float, seed: int
) -> Coverage:
    """As `coverage`, for the first two of four equal candidates that were trained with seeds."""
    generator = np.random.default_rng(seed)
    terms = Terms(num_resamples=NUM_RESAMPLES)
    held = np.zeros(2)
    for _ in range(num_experiments):
        sizes = cluster_sizes(generator, num_clusters)
        scores = answers(generator, 5 * [0.6], sizes, num_seeds, of_seed)
        analysis = analysis_of(scores, sizes, terms)
        of_mean = analysis.estimate("c0", "test")
        of_difference = analysis.comparison("c0", "c1", "test")
        for place, (found, truth) in enumerate(((of_mean, 0.6), (of_difference, 0.0))):
            assert found.low is not None
            assert found.high is not None
            held[place] += found.low <= truth <= found.high
    return Coverage(*(held / num_experiments))


def winners_with_seeds(num_experiments: int, num_candidates: int, of_seed: float) -> Winners:
    """Equal candidates, three seeds each whose luck differs; a worse base."""
    generator = np.random.default_rng(5)
    num_named = 0
    for _ in range(num_experiments):
        sizes = cluster_sizes(generator, 40)
        scores = answers(generator, [0.3] + num_candidates * [0.6], sizes, 3, of_seed)
        analysis = analysis_of(scores, sizes)
        costs = dict.fromkeys(analysis.candidates, 1.0)
        num_named += decide(analysis, costs)[0].winner is not None
    return Winners(num_named, num_experiments)


def false_none_helps(
    num_experiments: int, num_clusters: int, seed: int, *, rare: bool = False
) -> Winners:
    """How often `none helps` is said where one of 1 to 5 candidates gains what is worth having.

    It gains exactly that, the others nothing: the hardest case. rare: candidates answer as the
    base does but in a few whole passages, so that their differences hardly vary.
    """
    generator = np.random.default_rng(seed)
    num_said = 0
    for number in range(num_experiments):
        num_candidates = 1 + number % 5
        sizes = cluster_sizes(generator, num_clusters)
        if rare:
            gains = [GAIN_WORTH_HAVING] + (num_candidates - 1) * [0.0]
            scores = rare_gains(generator, 0.6, gains, sizes)
        else:
            rates = [0.6, 0.6 + GAIN_WORTH_HAVING] + (num_candidates - 1) * [0.6]
            scores = answers(generator, rates, sizes)
        num_said += verdict(scores, sizes) == "none_helps"
    return Winners(num_said, num_experiments)


def false_equal(
    num_experiments: int, num_clusters: int, seed: int, *, rare: bool = False
) -> Winners:
    """How often candidates are called equal of which one is better by what is worth having.

    2 to 5 candidates, all far above the base; rare as in `false_none_helps`.
    """
    generator = np.random.default_rng(seed)
    num_said = 0
    for number in range(num_experiments):
        num_others = 1 + number % 4
        sizes = cluster_sizes(generator, num_clusters)
        if rare:
            gains = [GAIN_WORTH_HAVING] + (num_others - 1) * [0.0]
            scores = rare_gains(generator, 0.6, gains, sizes)
            base = answers(generator, [0.2], sizes)
            scores = np.concatenate([base, scores])
        else:
            rates = [0.2, 0.6, 0.6 + GAIN_WORTH_HAVING] + (num_others - 1) * [0.6]
            scores = answers(generator, rates, sizes)
        analysis = analysis_of(scores, sizes)
        decision = decide(analysis, dict.fromkeys(analysis.candidates, 1.0))[0]
        num_said += decision.verdict == "equal" and "c1" in decision.contenders
    return Winners(num_said, num_experiments)


def rare_gains(
    generator: np.random.Generator, rate: float, gains: Sequence[float], sizes: IntArray
) -> FloatArray:
    """One row with this rate, then rows that answer alike, but all right in a few passages.

    Each gains as much as is stated for it in the long run.
    """
    first = answers(generator, [rate], sizes)
    rows = [first]
    for gain in gains:
        changed = generator.random(len(sizes)) < gain / (1 - rate)
        rows.append(np.maximum(first, np.repeat(changed, sizes).astype(np.float64)))
    return np.concatenate(rows)


def verdict(scores: FloatArray, sizes: IntArray) -> str:
    """What is decided."""
    analysis = analysis_of(scores, sizes)
    return decide(analysis, dict.fromkeys(analysis.candidates, 1.0))[0].verdict


def verdicts(
    num_experiments: int, gain: float, num_clusters: int, num_candidates: int = 3, seed: int = 0
) -> dict[str, float]:
    """The share of every verdict where one candidate gains so much and the others nothing."""
    generator = np.random.default_rng(seed)
    said: Counter[str] = Counter()
    for _ in range(num_experiments):
        sizes = cluster_sizes(generator, num_clusters)
        rates = [0.5, 0.5 + gain] + (num_candidates - 1) * [0.5]
        said[verdict(answers(generator, rates, sizes), sizes)] += 1
    return {name: number / num_experiments for name, number in said.items()}


def power(num_experiments: int, gain: float, num_clusters: int, seed: int = 0) -> float:
    """How often c0, better than c1 by `gain`, is shown to be; both are far above the base."""
    generator = np.random.default_rng(seed)
    num_shown = 0
    for _ in range(num_experiments):
        sizes = cluster_sizes(generator, num_clusters)
        analysis = analysis_of(answers(generator, [0.2, 0.6 + gain, 0.6], sizes), sizes)
        num_shown += analysis.comparison("c0", "c1", "test").better == "c0"
    return num_shown / num_experiments


def questions_stated(num_experiments: int, gain: float, num_clusters: int, seed: int = 0) -> float:
    """Median of the questions that the same experiments say are needed to see c0 ahead of c1.

    In passages, at the questions that each experiment has a passage.
    """
    generator = np.random.default_rng(seed)
    stated = []
    for _ in range(num_experiments):
        sizes = cluster_sizes(generator, num_clusters)
        analysis = analysis_of(answers(generator, [0.2, 0.6 + gain, 0.6], sizes), sizes)
        needed = analysis.comparison("c0", "c1", "test").questions_needed
        stated.append(math.inf if needed is None else needed / sizes.mean())
    return float(np.median(stated))


def figures() -> Iterator[str]:
    """Every figure, a line each."""
    for base_rate, clustered, num_experiments in (
        (0.6, True, 2_000),
        (0.3, True, 2_000),
        (0.3, False, 700),
    ):
        found = winners_without_difference(num_experiments, base_rate, 1, clustered=clustered)
        by_number = ", ".join(f"{n}: {w.num_named}/{w.num_experiments}" for n, w in found.items())
        yield (
            f"winner named without a difference, base at {base_rate}, "
            f"{'clustered' if clustered else 'passages ignored'}: "
            f"{total(found).num_named} of {num_experiments} ({by_number})"
        )
    for candidates, luck in ((2, 0.3), (4, 0.3), (4, 0.1)):
        found_with = winners_with_seeds(300, candidates, luck)
        yield (
            f"the same with 3 seeds whose luck is {luck}, {candidates} candidates: "
            f"{found_with.num_named} of 300"
        )
    for num_clusters, rare in itertools.product((100, 200, 400, 1_000, 3_000), (False, True)):
        kind = "rare changes" if rare else "usual answers"
        num = 1_000 if num_clusters < 1_000 else 200
        none_helps = false_none_helps(num, num_clusters, 6, rare=rare)
        equal = false_equal(num, num_clusters, 7, rare=rare)
        yield (
            f"false claims of absence, {num_clusters} passages, {kind}: none helps "
            f"{none_helps.num_named}, equal {equal.num_named} of {num}"
        )
    for gain, num_clusters in itertools.product(
        (-0.1, -0.02, 0.0, 0.02, 0.05, 0.1, 0.2), (12, 60, 200, 600, 2_000)
    ):
        found_verdicts = verdicts(200, gain, num_clusters)
        shares = ", ".join(f"{name} {share:.0%}" for name, share in found_verdicts.items())
        yield f"verdicts, gain {gain:+}, {num_clusters} passages: {shares}"
    for rates in ((0.6, 0.5), (0.3, 0.3), (0.85, 0.8), (0.05, 0.05)):
        for num_clusters in (5, 8, 10, 15, 20, 50, 200):
            held = coverage(2_000, num_clusters, *rates, seed=2)
            yield (
                f"coverage, rates {rates}, {num_clusters} passages: mean {held.of_mean:.1%}, "
                f"difference {held.of_difference:.1%}"
            )
    for num_seeds, luck in ((2, 0.1), (3, 0.0), (3, 0.1), (3, 0.3), (5, 0.3)):
        held = coverage_with_seeds(300, 40, num_seeds, luck, seed=3)
        yield (
            f"coverage, {num_seeds} seeds, luck {luck}, 40 passages: mean {held.of_mean:.1%}, "
            f"difference {held.of_difference:.1%}"
        )
    for gain in (0.0, 0.03, 0.06, 0.09, 0.12):
        yield f"power, gain {gain}, 80 passages: {power(300, gain, 80):.1%}"
    for gain in (0.06, 0.1):
        stated = questions_stated(1_001, gain, 120)
        around = (power(1_000, gain, round(times * stated), 4) for times in (0.8, 1.0, 1.2))
        yield (
            f"passages needed for a gain of {gain}: {stated:.0f} stated; power at 0.8, 1 and 1.2 "
            f"times as many: {', '.join(f'{share:.1%}' for share in around)}"
        )


def main() -> None:
    started = time.perf_counter()
    for line in figures():
        print(f"{time.perf_counter() - started:6.1f} s  {line}", flush=True)


if __name__ == "__main__":
    main()
