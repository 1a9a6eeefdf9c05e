"""Figures of an evaluation: SciPy, brute force and plain loops are the referees."""

import itertools

import numpy as np
import pytest
from scipy import optimize, stats

from aigveval import metrics
from aigveval.evaluation.figures import (
    Columns,
    Predictor,
    Sampling,
    agree,
    check,
    estimate,
    measured,
    p_value,
)
from aigveval.evaluation.pairs import Pairs, shares
from aigveval.metrics import bootstrap_samples

RANDOM = np.random.default_rng(0)
N = 48
Y = np.round(RANDOM.uniform(1, 5, N) * 3) / 3
X = np.clip(0.6 * Y + RANDOM.normal(0, 0.7, N) + 1, 1, 5)
GENERATORS = np.arange(N) % 4
PROMPTS = np.arange(N) // 4
FEW = Sampling(draws=60)


def _agree(**columns):
    made = Columns(**{"predictions": X, "ratings": Y, **columns})
    assert check(made) is None
    units = columns.get("prompts", np.arange(len(made.ratings)))
    return agree(made, units=units, sampling=FEW, margin=0.5)


def _samples(units, sampling):
    """The row numbers of each sample."""
    for times in bootstrap_samples(units, draws=sampling.draws, seed=sampling.seed):
        for one in times.astype(int):
            yield np.repeat(np.arange(len(units)), one)


def _shares(counts):
    """Accuracy, and accuracy with ties, of the first sample."""
    return counts[0, 0] / counts[0, 1], counts[0, 2] / counts[0, 3]


def _logistic(x, high, low, centre, scale):
    return low + (high - low) / (1 + np.exp(-(x - centre) / np.abs(scale)))


def test_figures_of_all_clips_equal_scipy():
    found = {name: value.value for name, value in _agree().figures.items()}
    srocc, plcc = stats.spearmanr(X, Y).statistic, stats.pearsonr(X, Y).statistic
    assert found["srocc"] == pytest.approx(srocc, abs=1e-12)
    assert found["plcc"] == pytest.approx(plcc, abs=1e-12)
    assert found["krocc"] == pytest.approx(stats.kendalltau(X, Y).statistic, abs=1e-12)
    assert found["main"] == pytest.approx((srocc + plcc) / 2, abs=1e-12)
    assert found["rmse"] == pytest.approx(np.sqrt(np.mean((X - Y) ** 2)), abs=1e-12)


def test_logistic_figures_equal_curve_fit():
    start = (Y.max(), Y.min(), X.mean(), X.std() / 4)
    parameters, _ = optimize.curve_fit(_logistic, X, Y, p0=start, maxfev=20_000)
    fitted = _logistic(X, *parameters)
    found = _agree().figures
    rmse = np.sqrt(np.mean((fitted - Y) ** 2))
    assert found["rmse_fitted"].value == pytest.approx(rmse, abs=1e-5)
    assert found["plcc_fitted"].value == pytest.approx(
        stats.pearsonr(fitted, Y).statistic, abs=1e-5
    )


def test_intervals_equal_a_plain_loop_over_the_same_samples():
    drawn = [stats.spearmanr(X[rows], Y[rows]).statistic for rows in _samples(PROMPTS, FEW)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    found = _agree(prompts=PROMPTS).figures["srocc"]
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_samples_draw_whole_units():
    for rows in _samples(PROMPTS, FEW):
        assert len(rows) == N
        times = np.bincount(rows, minlength=N).reshape(-1, 4)
        assert (times == times[:, :1]).all()


@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_pair_accuracy_equals_a_loop(margin):
    right = different = 0.0
    for i, j in itertools.combinations(range(N), 2):
        if abs(Y[i] - Y[j]) > margin + 1e-9:
            different += 1
            right += 0.5 if X[i] == X[j] else float((X[i] > X[j]) == (Y[i] > Y[j]))
    counts = Pairs(X, Y, margin=margin).count(np.ones((1, N)))
    assert _shares(counts)[0] == pytest.approx(right / different)
    assert counts[0, 3] == N * (N - 1) / 2


def _pair_accuracy_by_loop(x, y, groups, margin):
    right = pairs = 0.0
    for i, j in itertools.combinations(range(len(x)), 2):
        if groups[i] == groups[j] and abs(y[i] - y[j]) > margin:
            pairs += 1
            agreement = (x[i] - x[j]) * (y[i] - y[j])
            right += 0.5 if agreement == 0 else float(agreement > 0)
    return right / pairs


def _correlated(seed, n, ties):
    random = np.random.default_rng(seed)
    y = random.uniform(1, 5, n)
    x = 0.7 * y + random.normal(0, 1, n)
    return (np.round(x), np.round(y)) if ties else (x, y)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("margin", [0.0, 0.5, 2.0])
def test_pair_accuracy_inside_groups_equals_a_loop(ties, margin):
    x, y = _correlated(7, 60, ties)
    for groups in (np.arange(60) % 4, np.zeros(60, np.int64)):
        counts = Pairs(x, y, margin=margin, groups=groups).count(np.ones((1, 60)))
        expected = _pair_accuracy_by_loop(x, y, groups, margin)
        assert _shares(counts)[0] == pytest.approx(expected)


def test_pair_accuracy_of_a_large_group_follows_from_kendalls_tau():
    x, y = _correlated(8, 4000, ties=True)
    d = stats.kendalltau(x, y).statistic  # tau-b; with it the accuracy without a margin follows
    ties_x = sum(n * (n - 1) / 2 for n in np.unique(x, return_counts=True)[1])
    ties_y = sum(n * (n - 1) / 2 for n in np.unique(y, return_counts=True)[1])
    pairs = 4000 * 3999 / 2
    surplus = d * np.sqrt((pairs - ties_x) * (pairs - ties_y))
    expected = 0.5 + 0.5 * surplus / (pairs - ties_y)
    counts = Pairs(x, y, margin=0.0, most=int(pairs)).count(np.ones((1, 4000)))
    assert _shares(counts)[0] == pytest.approx(expected, abs=1e-9)


def test_pair_accuracy_without_pairs_is_undefined():
    counts = Pairs(np.array([1.0, 2.0]), np.array([3.0, 3.5]), margin=0.5).count(np.ones((1, 2)))
    assert np.isnan(shares(counts)[0, 0])


def test_accuracy_with_ties_takes_the_best_threshold():
    x, y = X[:20], Y[:20]
    distances = [abs(a - b) for a, b in itertools.combinations(x, 2)]

    def accuracy(threshold):
        right = 0
        for i, j in itertools.combinations(range(len(x)), 2):
            tied = abs(x[i] - x[j]) <= threshold
            if abs(y[i] - y[j]) <= 0.5 + 1e-9:
                right += tied
            else:
                right += (not tied) and (x[i] > x[j]) == (y[i] > y[j])
        return right / len(distances)

    best = max(accuracy(threshold) for threshold in [-1.0, *distances])
    pairs = Pairs(x, y, margin=0.5)
    assert _shares(pairs.count(np.ones((1, 20))))[1] == pytest.approx(best, abs=1e-6)
    assert accuracy(pairs.threshold) == pytest.approx(best)


def test_a_clip_drawn_twice_is_no_pair_with_itself():
    times = np.array([[2.0, 2.0, 0.0]])
    counts = Pairs(X[:3], np.array([1.0, 3.0, 5.0]), margin=0.5).count(times)
    assert counts[0, 3] == counts[0, 1] == 4.0


def test_many_pairs_are_drawn_at_random():
    listed = Pairs(X, Y, margin=0.5).count(np.ones((1, N)))
    drawn = Pairs(X, Y, margin=0.5, most=1000, threshold=0.1)
    assert len(drawn.first) == 1000 and (drawn.first != drawn.second).all()
    found = _shares(drawn.count(np.ones((1, N))))[0]
    assert found == pytest.approx(_shares(listed)[0], abs=0.05)


def test_parts_equal_plain_means():
    found = _agree(generators=GENERATORS, prompts=PROMPTS)
    inside = [stats.spearmanr(X[GENERATORS == g], Y[GENERATORS == g]).statistic for g in range(4)]
    assert found.parts["within_generators"]["srocc"].value == pytest.approx(np.mean(inside))
    means = [[v[GENERATORS == g].mean() for g in range(4)] for v in (X, Y)]
    between = found.parts["between_generators"]
    assert between["plcc"].value == pytest.approx(stats.pearsonr(*means).statistic)
    for group in found.generators:
        assert group.figures["srocc"].value == pytest.approx(inside[group.number])
        assert group.prediction.value == pytest.approx(means[0][group.number])
    sroccs = [
        stats.spearmanr(X[PROMPTS == p], Y[PROMPTS == p]).statistic
        for p in range(12)
        if np.ptp(Y[PROMPTS == p])
    ]
    assert found.parts["within_prompts"]["srocc"].value == pytest.approx(np.mean(sroccs))
    assert len(found.prompts) == 12


def test_pairs_inside_prompts_equal_a_loop():
    right = different = 0.0
    for i, j in itertools.combinations(range(N), 2):
        if PROMPTS[i] == PROMPTS[j] and abs(Y[i] - Y[j]) > 0.5 + 1e-9:
            different += 1
            right += float((X[i] > X[j]) == (Y[i] > Y[j]))
    found = _agree(prompts=PROMPTS).parts["within_prompts"]["pair_accuracy"]
    assert found.value == pytest.approx(right / different)
    assert found.low < found.value < found.high


def test_human_ceiling_leaves_one_rater_out():
    raters = np.round(np.clip(Y[:, None] + RANDOM.normal(0, 0.8, (N, 3)), 1, 5))
    raters[5, 1] = np.nan
    found = _agree(raters=raters)
    expected, beside = [], []
    for rater in range(3):
        others = np.nanmean(np.delete(raters, rater, axis=1), axis=1)
        rated = np.isfinite(raters[:, rater])
        expected.append(stats.spearmanr(raters[rated, rater], others[rated]).statistic)
        beside.append(stats.spearmanr(X[rated], others[rated]).statistic)
    assert found.human["srocc"].value == pytest.approx(np.mean(expected))
    assert found.beside_human["srocc"].value == pytest.approx(np.mean(beside))
    assert "plcc_fitted" not in found.human


def test_a_rater_beside_whom_all_others_agree_has_no_part_in_the_ceiling():
    raters = np.full((N, 4), np.nan)
    raters[:, :3] = np.round(np.clip(Y[:, None] + RANDOM.normal(0, 0.8, (N, 3)), 1, 5))
    raters[:5, :3] = 3.0
    raters[:5, 3] = [1.0, 2.0, 3.0, 4.0, 5.0]
    found = _agree(raters=raters).human["srocc"]
    expected = [
        stats.spearmanr(raters[:, r], np.nanmean(np.delete(raters, r, axis=1), axis=1)).statistic
        for r in range(3)
    ]
    assert found.value == pytest.approx(np.mean(expected))
    assert found.low < found.value < found.high


def test_a_rater_who_saw_nothing_of_a_generator_has_the_figures_of_the_others():
    raters = np.round(np.clip(Y[:, None] + RANDOM.normal(0, 0.8, (N, 3)), 1, 5))
    raters[GENERATORS == 1, 0] = np.nan
    found = _agree(raters=raters, generators=GENERATORS)
    expected = []
    for rater in range(3):
        others = np.nanmean(np.delete(raters, rater, axis=1), axis=1)
        seen = [np.flatnonzero((GENERATORS == g) & np.isfinite(raters[:, rater])) for g in range(4)]
        inside = [stats.spearmanr(raters[s, rater], others[s]).statistic for s in seen if len(s)]
        expected.append(np.mean(inside))
    assert found.human["within_generators/srocc"].value == pytest.approx(np.mean(expected))


def test_comparison_is_paired():
    better = Y + RANDOM.normal(0, 0.2, N)
    found = _agree(predictions=better, other=X, prompts=PROMPTS).comparison["srocc"]
    assert found.difference.value == pytest.approx(found.first - found.second)
    assert found.difference.low > 0 and found.p_value < 0.05
    same = _agree(other=X, prompts=PROMPTS).comparison["srocc"]
    assert (same.difference.low, same.difference.high, same.p_value) == (0.0, 0.0, 1.0)


def test_p_value_of_no_difference_is_uniform_enough():
    values = []
    for seed in range(200):
        random = np.random.default_rng(seed)
        differences = random.normal(size=60)
        rows = _samples(np.arange(60), Sampling(draws=200, seed=seed))
        values.append(p_value(np.array([differences[r].mean() for r in rows])))
    assert 0.02 <= np.mean(np.array(values) < 0.05) <= 0.10


def test_undefined_figures_are_left_out_and_the_interval_says_why():
    # one generator of two clips, and constant ratings in another: no figure of their own
    generators = np.array([0] * 2 + [1] * 6 + [2] * (N - 8))
    ratings = Y.copy()
    ratings[2:8] = 3.0
    found = _agree(ratings=ratings, generators=generators).generators
    assert "srocc" not in found[0].figures and "srocc" not in found[1].figures
    assert "srocc" in found[2].figures
    rare = estimate(1.0, np.full(60, np.nan), FEW)
    assert (rare.low, rare.reason) == (None, "undefined on 60 of 60 bootstrap samples")


@pytest.mark.parametrize(
    "columns, reason",
    [
        (
            {"predictions": X[:4], "ratings": Y[:4]},
            "4 clips have both a prediction and a rating, at least 5 are needed",
        ),
        (
            {"predictions": np.full(N, 3.0), "ratings": Y},
            "all 48 predictions are 3, which orders nothing",
        ),
        (
            {"predictions": X, "ratings": np.full(N, 2.5)},
            "all 48 ratings are 2.5, which orders nothing",
        ),
        (
            {"predictions": X, "ratings": Y, "other": np.zeros(N)},
            "all 48 predictions to compare with are 0, which orders nothing",
        ),
    ],
)
def test_what_cannot_be_evaluated_has_a_reason(columns, reason):
    assert check(Columns(**columns)) == reason


def test_other_units_give_no_rmse():
    found = _agree(predictions=100 * X, comparable=False).figures
    assert "rmse" not in found and found["rmse_fitted"].value < 1.0


def test_predictions_that_fall_are_fitted_too():
    found = Predictor(-X, Y, generators=None, prompts=None, comparable=False, margin=0.5).measure(
        np.ones((1, N))
    )
    assert found["srocc"] < 0
    assert found["plcc_fitted"] == pytest.approx(_agree().figures["plcc_fitted"].value, abs=1e-4)


def test_memory_and_time_stay_bounded_on_many_clips():
    random = np.random.default_rng(1)
    y = random.uniform(1, 5, 10_000)
    x = y + random.normal(0, 1, 10_000)
    predictor = Predictor(x, y, generators=None, prompts=None, comparable=True, margin=0.5)
    assert len(predictor.pairs.first) < 500_000
    _, found = measured(predictor.measure, np.arange(10_000), Sampling(draws=3))
    assert len(found["srocc"]) == 3 and np.isfinite(found["srocc"]).all()


def _within_by_loop(x, y, groups):
    """Constant predictions of a group count 0; small groups and constant targets do not count."""
    values = []
    for rows in (groups == group for group in np.unique(groups)):
        if rows.sum() >= 3 and np.ptp(y[rows]):
            values.append(stats.spearmanr(x[rows], y[rows]).statistic if np.ptp(x[rows]) else 0.0)
    return np.mean(values)


def _within(x, y, groups):
    predictor = Predictor(
        np.asarray(x, float),
        np.asarray(y, float),
        generators=metrics.number(groups)[0],
        prompts=None,
        comparable=True,
        margin=0.5,
        fit=False,
    )
    return predictor.measure(np.ones((1, len(x))))["within_generators/srocc"][0]


def test_within_generators_is_the_mean_over_them():
    x = [1, 2, 3, 4, 3, 2, 1, 9, 9, 7, 7, 7]
    y = [1, 2, 3, 4, 1, 2, 3, 1, 2, 5, 5, 5]
    groups = list("aaaabbbccddd")
    # a: 1, b: -1, c: too small, d: constant targets
    assert _within(x, y, groups) == pytest.approx(0.0)
    assert _within(x[:4], y[:4], groups[:4]) == pytest.approx(1.0)
    # constant predictions order nothing
    assert _within([1, 2, 3, 5, 5, 5], [1, 2, 3, 1, 2, 3], list("aaabbb")) == 0.5


def test_within_generators_of_few_clips_each_is_undefined():
    assert np.isnan(_within([1, 2], [1, 2], ["a", "b"]))


def test_within_generators_is_blind_to_their_means():
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 10)
    y = groups + random.normal(0, 0.1, 200)
    x = groups + random.normal(0, 0.1, 200)
    assert metrics.srocc(x, y) > 0.95
    assert abs(_within(x, y, groups.tolist())) < 0.2


def test_parts_are_those_of_the_plain_functions():
    found = _agree(generators=GENERATORS, prompts=PROMPTS).parts
    within = _within_by_loop(X, Y, GENERATORS)
    assert found["within_generators"]["srocc"].value == pytest.approx(within)
    pairs = _pair_accuracy_by_loop(X, Y, PROMPTS, 0.5 + 1e-9)
    assert found["within_prompts"]["pair_accuracy"].value == pytest.approx(pairs)


def test_every_sample_equals_a_plain_loop():
    """All statistics of all parts, on every sample, by SciPy on the sample's own rows."""
    x, y = np.round(X * 2) / 2, Y  # many ties
    predictor = Predictor(x, y, generators=GENERATORS, prompts=PROMPTS, comparable=True, margin=0.5)
    for batch in bootstrap_samples(PROMPTS, draws=20):
        found = predictor.measure(batch, each_generator=True)
        for sample, times in enumerate(batch.astype(int)):
            rows = np.repeat(np.arange(N), times)
            a, b = x[rows], y[rows]
            expected = {
                "srocc": stats.spearmanr(a, b).statistic,
                "plcc": stats.pearsonr(a, b).statistic,
                "krocc": stats.kendalltau(a, b).statistic,
                "rmse": np.sqrt(np.mean((a - b) ** 2)),
                "within_generators/srocc": _within_by_loop(a, b, GENERATORS[rows]),
            }
            means = [[v[GENERATORS[rows] == g].mean() for g in range(4)] for v in (a, b)]
            expected["between_generators/krocc"] = stats.kendalltau(*means).statistic
            expected["between_generators/srocc"] = stats.spearmanr(*means).statistic
            expected["generator/2/prediction"] = means[0][2]
            inside = GENERATORS[rows] == 2
            expected["generator/2/krocc"] = stats.kendalltau(a[inside], b[inside]).statistic
            for name, value in expected.items():
                assert found[name][sample] == pytest.approx(value, abs=1e-9), name


@pytest.mark.parametrize("x", [X, -X, np.round(X), np.exp(2 * X)])
def test_the_logistic_of_every_sample_is_that_of_curve_fit(x):
    start = metrics.fit_logistic4(x, Y)
    times = next(bootstrap_samples(PROMPTS, draws=40))
    ours = metrics.sampled_rmse(metrics.sampled_logistic4(x, Y, times, start=start), Y, times)
    theirs = []
    for one in times.astype(int):
        rows = np.repeat(np.arange(N), one)
        fit = metrics.fit_logistic4(x[rows], Y[rows], start=start)
        theirs.append(metrics.rmse(fit(x[rows]), Y[rows]))
    assert (ours < np.array(theirs) + 2e-3).all()
    assert np.median(ours - theirs) < 1e-6


@pytest.mark.parametrize("name", metrics.METRICS)
def test_an_undefined_sample_is_nan(name):
    times = np.array([[1.0, 1.0, 1.0, 1.0], [4.0, 0.0, 0.0, 0.0], [2.0, 2.0, 0.0, 0.0]])
    x, y = np.array([1.0, 1.0, 2.0, 3.0]), np.array([1.0, 2.0, 2.5, 4.0])
    metric = metrics.METRICS[name]
    found = metric.sampled(x, y, times)
    assert np.isfinite(found).tolist() == [True, metric.same_scale, metric.same_scale]
    if name == "rmse":
        assert found == pytest.approx([np.sqrt(2.25 / 4), 0.0, np.sqrt(0.5)])


def test_kendalls_tau_of_many_clips_is_that_of_few():
    x, y = np.tile(X, 25), np.tile(Y, 25) + np.repeat(np.arange(25), N) % 3
    times = next(bootstrap_samples(np.arange(1200), draws=2))
    rows = np.repeat(np.arange(1200), times[0].astype(int))
    expected = stats.kendalltau(x[rows], y[rows]).statistic
    assert metrics.sampled_krocc(x, y, times)[0] == pytest.approx(expected, abs=1e-12)
