"""The regression of `lite`, and the choice of its columns (examples/train_lite)."""

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from tests.scripts import rated_clips, script

DATASETS, PROMPTS, GENERATORS = ("fetv_dev", "chivileva_dev"), 10, 3


@pytest.fixture(scope="module")
def nested():
    return script("train_lite/nested")


@pytest.fixture(scope="module")
def clips(nested):
    """Of two data sets, three generators to a prompt."""
    return rated_clips(nested, DATASETS, prompts=PROMPTS, generators=GENERATORS)


@pytest.fixture(scope="module")
def tokens(nested, clips):
    """Noise, on top of the overall score in the columns of a clip's whole movement."""
    random = np.random.default_rng(1)
    widths = {"technical_lite": 5210, "motion_flow": 513, "semantic_lite": 1163}
    found = {name: random.standard_normal((len(clips), width)) for name, width in widths.items()}
    overall = np.array([clip.scores[3] for clip in clips])
    found["motion_flow"][:, slice(*nested.ridge.FLOW[1:])] += overall[:, None]
    return found


def test_equations_are_those_of_a_ridge_regression(nested, clips, tokens):
    ridge = nested.ridge
    random = np.random.default_rng(2)
    used = {ridge.STATISTICS: 0.5, ridge.SIMILARITY: 2.0}
    contrasts = random.standard_normal((40, len(clips)))
    targets, weights = random.standard_normal(40), random.uniform(0.1, 2, 40)
    parts = [
        (contrasts[:25], targets[:25], weights[:25]),
        (contrasts[25:], targets[25:], weights[25:]),
    ]
    change = ridge.Changes(
        tokens={name: values[:7] for name, values in tokens.items()},
        points={"overall": np.append(random.standard_normal(6), np.nan)},
        weights={"overall": 0.3},
    )
    blocks = [ridge.SIMILARITY, ridge.FLOW, ridge.STATISTICS]  # more of them, in another order
    found = ridge.equations(clips, tokens, parts, [change], "overall", blocks).solve(used, 0.7)

    columns, factors = [], []
    for (name, start, stop), scale in used.items():
        part = tokens[name][:, start:stop]
        factors.append(scale / np.sqrt(stop - start) / (part.std(0) + 1e-3))
        columns.append(part * factors[-1])
    X = np.hstack(columns)
    expected = Ridge(alpha=0.7, fit_intercept=False).fit(
        np.vstack([contrasts @ X, X[:6]]),
        np.append(targets, change.points["overall"][:6]),
        sample_weight=np.append(weights, np.full(6, 0.3)),
    )
    first, second = np.split(expected.coef_ * np.concatenate(factors), [len(factors[0])])
    assert found["technical_lite"][slice(*ridge.STATISTICS[1:])] == pytest.approx(first)
    assert found["semantic_lite"][slice(*ridge.SIMILARITY[1:])] == pytest.approx(second)
    assert not found["motion_flow"].any()


def test_the_block_that_tells_the_score_is_chosen(nested, clips, tokens, monkeypatch):
    """By the clips that are kept alone: what the others are rated has no say."""
    ridge = nested.ridge
    blocks = {ridge.FLOW: 1.0, ridge.STATISTICS: 0.5, ridge.SIMILARITY: 2.0}
    monkeypatch.setattr(nested, "BLOCKS", blocks)
    monkeypatch.setattr(nested, "PENALTIES", (0.3,))
    none = np.zeros(0, int)
    evidence = SimpleNamespace(
        tokens=tokens,
        ladder_tokens={name: values[:1] for name, values in tokens.items()},
        records=[
            {
                "type": "clean",
                "group": "",
                "technical_drop": 0,
                "motion_drop": 0,
                "semantic_drop": 0,
            }
        ],
        wrong=ridge.Changes(
            tokens={name: values[none] for name, values in tokens.items()}, points={}, weights={}
        ),
        of=none,
    )
    fold = np.array([n // GENERATORS % 5 for n in range(len(clips))])
    choice = nested.Choice("overall", clips, evidence)
    keep = fold != 0
    setting = choice.choose(keep, fold)
    assert setting is not None and next(iter(setting[0])) == ridge.FLOW
    predicted = np.full(len(clips), np.nan)
    predicted[~keep] = choice.predict(keep, choice.equations(keep), setting, ~keep)
    for dataset in DATASETS:
        assert choice.figures(predicted, dataset)["SROCC"][0] > 0.8
    others = nested.Choice("overall", clips, evidence)
    others.scores = np.where(keep, choice.scores, 6 - choice.scores)
    assert others.choose(keep, fold) == setting and others.tried == choice.tried > 0
    one = np.array([clip.dataset == DATASETS[0] for clip in clips])
    assert choice.choose(one, fold) is not None  # by prompts, where there is one data set
    assert choice.choose(np.zeros_like(keep), fold) is None
