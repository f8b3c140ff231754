import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.stats import Estimate, mean_with_interval, paired_difference, pass_at_k
from rltoolkit.errors import DataError


@given(st.integers(1, 9), st.data())
def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample(n, data):
    c = data.draw(st.integers(0, n))
    k = data.draw(st.integers(1, n))
    right = [True] * c + [False] * (n - c)
    subsets = list(itertools.combinations(right, k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets), abs=1e-12)


def test_pass_at_k_at_its_edges():
    assert math.isnan(pass_at_k(4, 4, 5))
    assert math.isnan(pass_at_k(0, 0, 1))
    assert pass_at_k(4, 0, 4) == 0.0
    assert pass_at_k(4, 1, 4) == 1.0
    assert pass_at_k(10, 3, 1) == pytest.approx(0.3, abs=1e-15)
    # 1 - 0.9 * 0.99^... by the product form, in numbers too large for floats as binomials
    product = math.prod(1 - 500 / i for i in range(2000 - 10 + 1, 2001))
    assert pass_at_k(2000, 10, 500) == pytest.approx(1 - product, abs=1e-12)


@pytest.mark.parametrize(("n", "c", "k"), [(4, 5, 1), (4, -1, 1), (-1, 0, 1), (4, 2, 0)])
def test_pass_at_k_refuses_counts_that_cannot_be(n, c, k):
    with pytest.raises(DataError, match="pass_at_k"):
        pass_at_k(n, c, k)


def test_an_interval_by_hand():
    """Means 0, 0.5, 1, 0.5: mean 0.5, s = 0.408248, t(3) at 97.5 % = 3.182446."""
    estimate = mean_with_interval([[0.0, 0.0], [0.0, 1.0], [1.0], [1, 0]])
    assert estimate == Estimate(0.5, pytest.approx(0.5 - 0.649614, abs=1e-5), pytest.approx(1.149614, abs=1e-5), 4)
    assert mean_with_interval([[0.0], [1.0]], confidence=0.5).high == pytest.approx(1.0)  # t(1) at 75 % is 1


def test_a_question_weighs_the_same_however_many_samples_it_has():
    once = mean_with_interval([[1.0], [0.0], [0.0]])
    assert mean_with_interval([[1.0] * 50, [0.0], [0.0] * 3]) == once
    assert once.mean == pytest.approx(1 / 3)


def test_few_questions():
    assert mean_with_interval([])[3] == 0
    assert all(map(math.isnan, mean_with_interval([])[:3]))
    one = mean_with_interval([[1.0, 0.0]])
    assert (one.mean, one.n) == (0.5, 1)
    assert math.isnan(one.low)
    assert math.isnan(one.high)
    assert mean_with_interval([[1.0]] * 5) == Estimate(1.0, 1.0, 1.0, 5)


@pytest.mark.parametrize("score", [None, math.nan, math.inf, "1"])
def test_a_score_that_is_no_number_is_refused_by_question(score):
    with pytest.raises(DataError, match=r"question 1 has the score .*count them"):
        mean_with_interval([[1.0], [0.0, score]])


def test_a_question_without_scores_and_an_odd_confidence_are_refused():
    with pytest.raises(DataError, match="question 1 has no scores"):
        mean_with_interval([[1.0], []])
    with pytest.raises(DataError, match="confidence is 95"):
        mean_with_interval([[1.0], [0.0]], confidence=95)


@pytest.mark.parametrize(("questions", "samples"), [(30, 1), (30, 8), (200, 1)])
@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_the_interval_covers_the_truth_as_often_as_it_says(questions, samples, spread):
    """1,000 simulated evaluations with true mean 0.5; questions of unequal difficulty when spread > 0.

    The share that covers has a standard error of 0.7 points. Between 92 and 98 % leaves four of them, and a
    point for the discreteness of few binary answers. An interval that took samples for independent questions
    would cover about 70 % in the case (30, 8) with spread 0.3.
    """
    rng = np.random.default_rng([questions, samples, round(10 * spread)])
    covered = 0
    for _ in range(1000):
        difficulty = rng.uniform(0.5 - 1.6 * spread, 0.5 + 1.6 * spread, size=(questions, 1))
        scores = (rng.random((questions, samples)) < difficulty).astype(float)
        estimate = mean_with_interval(scores.tolist())
        covered += estimate.low <= 0.5 <= estimate.high
    assert 920 <= covered <= 980


def test_a_paired_difference_is_narrower_and_has_its_sign():
    rng = np.random.default_rng(0)
    base = rng.uniform(0, 0.9, size=60)
    first = [[float(p)] for p in base]
    second = [[float(p + 0.1 + 0.01 * rng.standard_normal())] for p in base]
    difference = paired_difference(first, second)
    assert difference.low < 0.1 < difference.high
    assert difference.high - difference.low < 0.02
    apart = [mean_with_interval(scores) for scores in (first, second)]
    assert apart[0].high > apart[1].low  # unpaired, the intervals overlap
    with pytest.raises(DataError, match="60 and 59 questions"):
        paired_difference(first, second[:-1])
