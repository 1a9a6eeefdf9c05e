"""Vocabulary and level arithmetic."""

import pytest

from prompts import rubric


@pytest.mark.parametrize("mos", [1.0, 1.2, 2.0, 2.5, 10 / 3, 4.999, 5.0])
def test_level_distribution_has_the_mos_as_expectation(mos):
    probabilities = rubric.level_distribution(mos)
    assert len(probabilities) == len(rubric.LEVELS)
    assert min(probabilities) >= 0
    assert sum(probabilities) == pytest.approx(1, abs=1e-12)
    expectation = sum(p * w for p, w in zip(probabilities, rubric.LEVEL_WEIGHTS))
    assert expectation == pytest.approx(mos, abs=1e-12)


def test_level_distribution_is_linear_between_neighbours():
    assert rubric.level_distribution(3.25) == (0, 0, 0.75, 0.25, 0)
    assert rubric.level_distribution(5) == (0, 0, 0, 0, 1)


@pytest.mark.parametrize("mos", [0.99, 5.01, float("nan"), float("inf")])
def test_out_of_range_scores_are_refused(mos):
    with pytest.raises(ValueError, match=f"a score must lie within 1-5, got {mos}"):
        rubric.level_distribution(mos)
    with pytest.raises(ValueError, match="a score must lie within 1-5"):
        rubric.nearest_level(mos)


@pytest.mark.parametrize(
    "score, word",
    [
        (1, "bad"),
        (1.49, "bad"),
        (2.5, "fair"),
        (4.33, "good"),
        (4.5, "excellent"),
        (5, "excellent"),
    ],
)
def test_nearest_level(score, word):
    assert rubric.nearest_level(score) == word


def test_excellent_counts_five():
    weights = dict(zip(rubric.LEVELS, rubric.LEVEL_WEIGHTS, strict=True))
    assert (weights["bad"], weights["excellent"]) == (1, 5)
