"""SciPy is the referee for every metric that it has; loops are for the others."""

import warnings

import numpy as np
import pytest
from scipy import stats

from aigveval import metrics

CORRELATIONS = [
    (metrics.srocc, stats.spearmanr),
    (metrics.plcc, stats.pearsonr),
    (metrics.krocc, stats.kendalltau),
]


def _pairs(seed: int, n: int, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    y = random.uniform(1, 5, n)
    x = 0.7 * y + random.normal(0, 1, n)
    return (np.round(x), np.round(y)) if ties else (x, y)


@pytest.mark.parametrize("ours, referee", CORRELATIONS)
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n", [5, 60, 500])
def test_correlations_equal_scipy(ours, referee, ties, n):
    x, y = _pairs(n, n, ties)
    assert ours(x, y) == pytest.approx(referee(x, y).statistic, abs=1e-12)
    assert ours(-x, y) == pytest.approx(-ours(x, y), abs=1e-12)


def test_main_score_is_the_mean_of_srocc_and_plcc():
    x, y = _pairs(7, 50, ties=True)
    expected = (stats.spearmanr(x, y).statistic + stats.pearsonr(x, y).statistic) / 2
    assert metrics.main_score(x, y) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("scale", [1e-200, 1e-9, 1e150])
def test_correlations_do_not_depend_on_the_unit(scale):
    x, y = _pairs(0, 40, ties=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for ours in (metrics.srocc, metrics.plcc):
            assert ours(x * scale, y) == pytest.approx(ours(x, y), abs=1e-12)


def test_rmse():
    assert metrics.rmse([1.0, 2.0, 4.0], [1.0, 4.0, 3.0]) == pytest.approx(np.sqrt(5 / 3))
    assert metrics.rmse([2.0], [5.0]) == 3.0


@pytest.mark.parametrize("ours", [metrics.srocc, metrics.plcc, metrics.krocc])
@pytest.mark.parametrize(
    "x, y, message",
    [
        ([1.0], [2.0], "needs at least 2 values, got 1"),
        ([3.0, 3.0, 3.0], [1.0, 2.0, 3.0], "undefined, all 3 predictions are 3"),
        ([1.0, 2.0], [4.5, 4.5], "undefined, all 2 targets are 4.5"),
        ([1.0, float("nan"), 2.0], [1.0, 2.0, 3.0], "1 of 3 predictions are NaN or infinite"),
        ([1.0, 2.0], [1.0, float("inf")], "1 of 2 targets are NaN or infinite"),
        (
            [1.0, 2.0],
            [1.0, 2.0, 3.0],
            "predictions and targets must be 1-d and equally long, got shapes (2,) and (3,)",
        ),
        (
            [[1.0, 2.0]],
            [[1.0, 2.0]],
            "predictions and targets must be 1-d and equally long, got shapes (1, 2) and (1, 2)",
        ),
    ],
)
def test_undefined_raises(ours, x, y, message):
    with pytest.raises(ValueError) as error:
        ours(x, y)
    assert str(error.value) == f"{ours.__name__}: {message}"


def test_rmse_of_nothing_raises():
    with pytest.raises(ValueError, match="needs at least 1 values, got 0"):
        metrics.rmse([], [])


def test_logistic_may_fall_and_may_start_elsewhere():
    truth = metrics.Logistic4(high=1.2, low=4.6, centre=0.3, scale=0.4)
    x = np.linspace(-2, 3, 60)
    plain = metrics.fit_logistic4(x, truth(x))
    near = metrics.fit_logistic4(x, truth(x), start=truth)
    assert plain(x) == pytest.approx(truth(x), abs=1e-6)
    assert near(x) == pytest.approx(truth(x), abs=1e-6)


@pytest.mark.parametrize("unit", [1.0, 1e4])
def test_logistic_recovers_its_own_curve(unit):
    truth = metrics.Logistic4(high=4.6, low=1.2, centre=0.3 * unit, scale=0.4 * unit)
    x = np.linspace(-2, 3, 60) * unit
    fit = metrics.fit_logistic4(x, truth(x))
    assert np.abs(fit(x) - truth(x)).max() < 1e-5
    assert fit.scale > 0


def test_logistic_raises_fitted_plcc_of_a_bent_relation():
    random = np.random.default_rng(3)
    x = random.uniform(-3, 3, 200)
    y = 3 + 2 * np.tanh(2 * x) + random.normal(0, 0.05, 200)
    fit = metrics.fit_logistic4(x, y)
    assert metrics.plcc(fit(x), y) > metrics.plcc(x, y) + 0.03
    assert metrics.rmse(fit(x), y) < 0.1
    with pytest.raises(ValueError, match="fit_logistic4: needs at least 5 values, got 4"):
        metrics.fit_logistic4(x[:4], y[:4])


def test_logistic_never_overflows():
    fit = metrics.Logistic4(high=5.0, low=1.0, centre=0.0, scale=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fit([-1e9, 0.0, 1e9]).tolist() == [1.0, 3.0, 5.0]


def test_bootstrap_interval_covers_and_is_seeded():
    x, y = _pairs(11, 120, ties=False)
    low, high = metrics.bootstrap_interval(metrics.plcc, x, y, n=400)
    assert low < metrics.plcc(x, y) < high
    assert (low, high) == metrics.bootstrap_interval(metrics.plcc, x, y, n=400)
    assert (low, high) != metrics.bootstrap_interval(metrics.plcc, x, y, n=400, seed=1)
    # the textbook interval through Fisher's z
    expected = stats.pearsonr(x, y).confidence_interval(0.95)
    assert low == pytest.approx(expected.low, abs=0.05)
    assert high == pytest.approx(expected.high, abs=0.05)
    narrow = metrics.bootstrap_interval(metrics.plcc, x, y, n=400, level=0.5)
    assert low < narrow[0] < narrow[1] < high


def test_bootstrap_by_groups_is_wider_where_rows_repeat():
    x, y = _pairs(5, 20, ties=False)
    groups = np.repeat(np.arange(20), 10)  # ten copies of each row are no new evidence
    low, high = metrics.bootstrap_interval(metrics.plcc, x[groups], y[groups], groups=groups, n=300)
    naive_low, naive_high = metrics.bootstrap_interval(metrics.plcc, x[groups], y[groups], n=300)
    assert high - low > 2 * (naive_high - naive_low)


def test_bootstrap_passes_every_array():
    x, y = _pairs(2, 40, ties=False)
    generators = np.array(["a", "b", "c", "d"])[np.arange(40) % 4]

    def of_two(x, y, generators):
        return metrics.srocc(x[generators < "c"], y[generators < "c"])

    low, high = metrics.bootstrap_interval(of_two, x, y, generators, n=100)
    assert low < of_two(x, y, generators) < high


def test_bootstrap_of_the_undefined_raises():
    message = "bootstrap_interval: plcc is undefined on 50 of 50 draws from 3 rows in 3 blocks"
    with pytest.raises(ValueError) as error:
        metrics.bootstrap_interval(metrics.plcc, [1, 1, 1], [1, 2, 3], n=50)
    assert str(error.value) == message
    with pytest.raises(ValueError, match="bootstrap_interval: 1 groups for 2 rows"):
        metrics.bootstrap_interval(metrics.plcc, [1, 2], [1, 2], groups=["a"])
    with pytest.raises(ValueError, match="0 < level < 1"):
        metrics.bootstrap_interval(metrics.plcc, [1, 2], [1, 2], level=95)
