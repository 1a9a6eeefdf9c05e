"""The baselines of examples/train_lite: no fold sees its own ratings, and figures are as named."""

import json

import numpy as np
import pytest
from scipy.stats import spearmanr

from tests.scripts import script

CLIPS, PROMPTS = 40, 10
WIDTHS = (6, 30)


@pytest.fixture(scope="module")
def baselines():
    return script("train_lite/baselines")


@pytest.fixture(scope="module")
def case():
    """Features of which the first tells the rating; four generators to each prompt."""
    random = np.random.default_rng(0)
    y = random.uniform(1, 5, CLIPS)
    X = random.standard_normal((CLIPS, sum(WIDTHS)))
    X[:, 0] = 50 * y + random.standard_normal(CLIPS)
    prompts = np.array([f"p{n // 4}" for n in range(CLIPS)])
    generators = np.array([f"g{n % 4}" for n in range(CLIPS)])
    fold = np.arange(CLIPS) // 4 % 5
    return X, y, prompts, generators, fold


@pytest.mark.parametrize("regressor", ["ridge", "SVR"])
def test_out_of_fold(baselines, case, regressor):
    X, y, prompts, _, fold = case
    predicted = baselines.out_of_fold(X, WIDTHS, y, fold, prompts, regressor=regressor)
    assert spearmanr(predicted, y).statistic > 0.8
    # Ratings of a fold change what the others predict, and nothing of its own.
    changed = np.where(fold == 2, 6 - y, y)
    again = baselines.out_of_fold(X, WIDTHS, changed, fold, prompts, regressor=regressor)
    np.testing.assert_array_equal(again[fold == 2], predicted[fold == 2])
    assert not np.array_equal(again[fold == 1], predicted[fold == 1])


def test_blocks_weigh_the_same(baselines, case):
    scaled = baselines.BlockScaler(WIDTHS).fit(case[0]).transform(case[0])
    assert abs(scaled).max() <= baselines.CLIP
    narrow, wide = scaled[:, :6].var(0).sum(), scaled[:, 6:].var(0).sum()
    assert narrow == pytest.approx(wide, rel=0.1) and narrow == pytest.approx(1, rel=0.1)


def test_generator_means_leave_the_own_fold_out(baselines, case):
    _, y, _, generators, fold = case
    means = baselines.generator_means(y, generators, fold)
    others = [y[n] for n in range(CLIPS) if n % 4 == 3 and fold[n] != fold[7]]
    assert means[7] == pytest.approx(np.mean(others))


def test_a_metric_is_the_mean_over_the_frames_that_have_it(baselines, monkeypatch):
    """Three clips of two frames: both with a score, one of them, none."""
    frames = {"piqe": (-1, [[20, 40], [30, 0], [0, 0]]), "entropy": (1, [[4, 6], [7, 0], [0, 0]])}

    def pooled(rows, names, cache, *, metrics):
        better, values = frames[metrics[0]]
        tokens = np.array([[[v, better * (v != 0)] for v in clip] for clip in values], float)
        return np.hstack([tokens.mean(1), tokens.std(1)]), (2, 2)

    monkeypatch.setattr(baselines, "pooled", pooled)
    found = baselines.pyiqa_scores([], None)
    assert {name: values.tolist() for name, values in found.items()} == {
        "pyiqa piqe": [-30, -30, 0],
        "pyiqa entropy": [5, 7, 0],
    }


def test_figures(baselines, case):
    X, y, prompts, generators, _ = case
    found = baselines.figures_of(X[:, 1], y, generators, prompts, draws=50)
    for name, (value, low, high) in found.items():
        assert low <= value <= high, name
    assert found["SROCC"][0] == pytest.approx(spearmanr(X[:, 1], y).statistic, abs=1e-4)
    constant = baselines.figures_of(np.ones(CLIPS), y, generators, prompts, draws=50)
    assert constant["SROCC"] is None and constant["same-prompt pairs"][0] == 0.5


def test_raters_are_averaged(baselines, case, tmp_path):
    _, y, prompts, generators, _ = case
    random = np.random.default_rng(1)
    raters = np.clip(np.round(y[:, None] + random.normal(0, 1, (CLIPS, 3))), 1, 5)
    lines = ["video,motion_rater1,motion_rater2,motion_rater3"]
    lines += [f"{n}.mp4," + ",".join(map(str, row)) for n, row in enumerate(raters)]
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n")
    names = [f"{n}.mp4" for n in range(CLIPS)]
    own = baselines.rater_columns(tmp_path, names, "motion")
    found = baselines.figures_of(own, y, generators, prompts, draws=20)
    expected = np.mean(
        [spearmanr(raters[:, r], np.delete(raters, r, axis=1).mean(1)).statistic for r in range(3)]
    )
    assert found["SROCC"][0] == pytest.approx(expected, abs=1e-4)


def test_saved_predictions_are_put_in_order(baselines, tmp_path):
    saved = {"video": ["b", "a"], "ours": [[2] * 4, [1] * 4], "human": [[0] * 4] * 2}
    (tmp_path / "out_of_fold.json").write_text(json.dumps(saved))
    found = baselines.earlier_predictions(tmp_path / "out_of_fold.json", ["a", "b"])
    assert list(found) == ["`lite`"] and found["`lite`"][:, 0].tolist() == [1, 2]


def test_table(baselines):
    row = dict.fromkeys(baselines.NAMES, [0.5, 0.25, 0.75])
    text = baselines.as_markdown({"motion": {"ridge": {**row, "PLCC": None}}})
    assert text.splitlines()[2] == (
        "| motion | ridge | 0.50 [0.25, 0.75] | - | 0.50 [0.25, 0.75] | 0.50 [0.25, 0.75] |"
    )
