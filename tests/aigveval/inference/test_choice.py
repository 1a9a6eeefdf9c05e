"""The chance to be the best of several, and the better of two."""

import math

import numpy as np
import pytest

from aigveval.assessment import Assessment, Score
from aigveval.inference.choice import basis_of, chances_of_best, compare, deviation


def row(**scores):
    values = {name: Score(*value) for name, value in scores.items()}
    return Assessment(video="x", model="m", version="0", seconds=0.0, **values)


def normal_cdf(x):
    return 0.5 * (1 + math.erf(x / math.sqrt(2)))


def test_two_by_the_formula():
    first, second = Score(3.5, 0.4), Score(3.0, 0.3)
    expected = normal_cdf(0.5 / 0.5)
    assert chances_of_best([first, second]) == pytest.approx([expected, 1 - expected], abs=2e-4)
    found = compare(row(overall=(3.5, 0.4)), row(overall=(3.0, 0.3)))
    assert found.chances == {"overall": pytest.approx(expected)}
    assert found.differences == {"overall": pytest.approx(0.5)}
    assert found.dimension is None and found.basis == "spread"
    gone = Assessment.failed("gone.mp4", None, "m", "no such file")
    with pytest.raises(ValueError, match="^gone.mp4 has no scores to compare: no such file$"):
        compare(row(overall=(3.5, 0.4)), gone)


def test_several_as_drawn_by_chance():
    scores = [Score(3.0, 0.5), Score(3.2, 0.3), Score(2.0, 1.0), Score(3.25, 0.01), Score(1.0, 0.0)]
    means, stds = np.array([[s.score, max(s.std, 1e-3)] for s in scores]).T
    draws = np.random.default_rng(0).normal(means, stds, (200_000, len(scores)))
    expected = np.bincount(draws.argmax(1), minlength=len(scores)) / len(draws)
    found = chances_of_best(scores)
    assert found == pytest.approx(expected, abs=5e-3) and sum(found) == pytest.approx(1)


def test_equal_ones_have_equal_chances():
    assert chances_of_best([Score(3.0, 0.5)] * 4) == pytest.approx([0.25] * 4)
    assert chances_of_best([Score(3.0, 0.0)] * 2) == pytest.approx([0.5] * 2)
    assert chances_of_best([Score(3.0, 0.5)]) == [1.0]
    assert chances_of_best(Score(3.0, 0.5) for _ in range(2)) == pytest.approx([0.5] * 2)
    with pytest.raises(ValueError, match="^no scores to choose from$"):
        chances_of_best([])


def test_an_interval_counts_before_the_spread():
    wide = Score(3.0, 0.1, low=2.0, high=4.563)
    assert deviation(wide) == pytest.approx(1.0) and deviation(Score(3.0, 0.1)) == 0.1
    assert basis_of([wide, wide]) == "80 % intervals"
    assert basis_of([wide, Score(3.0, 0.1)]) == "spread"  # not of all, and so not said


def test_an_interval_that_the_scale_cuts_is_no_surer():
    """A score at the end has half of its interval left, and the same error as others."""
    half = 1.2815
    for score in (5.0, 4.4, 1.0, 1.9):
        cut = Score(score, 0.1, low=max(1.0, score - half), high=min(5.0, score + half))
        assert deviation(cut) == pytest.approx(1.0), score
    best = Score(5.0, 0.1, low=5.0 - half, high=5.0)
    other = Score(4.0, 0.1, low=4.0 - half, high=5.0)
    expected = normal_cdf(1 / math.sqrt(2))
    assert chances_of_best([best, other])[0] == pytest.approx(expected, abs=2e-4)


def test_the_dimension_that_is_surest():
    first = row(overall=(3, 0.5), technical=(3, 0.5), motion=(2, 0.2), semantic=(4, 0.1))
    second = row(overall=(3, 0.5), technical=(2, 0.5), motion=(4, 0.2))
    found = compare(first, second)
    assert found.dimension == "motion" and "semantic" not in found.chances
    assert found.chances["overall"] == 0.5 and found.differences["motion"] == -2
