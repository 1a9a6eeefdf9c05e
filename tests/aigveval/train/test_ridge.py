"""Ratings by ridge regression: what is in them is learnt, what isn't leaves a model as it is."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from scipy.stats import spearmanr

from aigveval.model.projector import pack_features
from aigveval.train import fit, ridge
from aigveval.train.config import FitError
from aigveval.train.ridge import fit_ridge
from aigveval.train.rows import TrainingRow
from prompts import SCORES

from tests.aigveval.tiny_llm import make_model

QUIET = Console(quiet=True)
MOTION = SCORES.index("motion")


@dataclass
class Rows:
    """Random tokens of a model's encoders, with scores (n, 4) and each row's manifest."""

    features: list[torch.Tensor]
    scores: np.ndarray
    sources: list[int]
    label: Callable[[int], dict] = lambda n: {"group": str(n // 4)}

    @property
    def rows(self):
        return [
            TrainingRow(
                **{"video": str(n), "prompt": None, "scores": tuple(scores), **self.label(n)}
            )
            for n, scores in enumerate(self.scores.tolist())
        ]

    def tokens(self, index, prompt):
        return [part[index] for part in self.features]


def new_rows(model, count, *, noise=0.0):
    """Motion scores that are a linear map of the tokens, and noise; the others aren't known."""
    random = torch.Generator().manual_seed(5)
    features = [
        torch.randn(count, entry["num_tokens"], entry["dim"], generator=random)
        for entry in model.config.encoders
    ]
    scores = np.full((count, len(SCORES)), np.nan)
    signal = torch.cat([part.mean(1)[:, :1] for part in features], 1).sum(1).numpy()
    extra = np.random.default_rng(0).standard_normal(count)
    scores[:, MOTION] = 3 + (1 - noise) * signal + noise * extra
    return Rows(features, scores, [0] * count)


@torch.inference_mode()
def hints(model, rows):
    return model.model.score_hints(pack_features(rows.features)).numpy()


def test_what_the_ratings_say_is_learnt_and_nothing_else():
    model, _ = make_model()
    rows = new_rows(model, 200)
    train, left_out = slice(0, 120), slice(120, 200)
    part = Rows([t[train] for t in rows.features], rows.scores[train], rows.sources[train])
    before, state = hints(model, rows), {k: v.clone() for k, v in model.state_dict().items()}
    found = fit_ridge(model.model, part, QUIET, seed=0)
    after = hints(model, rows)
    assert list(found) == ["motion"] and np.isfinite(found["motion"])
    truth = rows.scores[left_out, MOTION]
    assert spearmanr(after[left_out, MOTION], truth).statistic > 0.9
    assert abs(after[left_out, MOTION] - truth).mean() < 0.3
    for column in range(len(SCORES)):
        if column != MOTION:
            np.testing.assert_allclose(after[:, column], before[:, column], atol=1e-5)
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, state[k])}
    assert changed and all(k.endswith((".probe", ".score_head.bias")) for k in changed)


class OfApple(torch.Tensor):
    """On a device without float64, as Apple's GPUs are."""

    def cpu(self):
        return self.as_subclass(torch.Tensor)

    def double(self):
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype")


def test_a_device_needs_no_float64(monkeypatch):
    model, _ = make_model()
    backbone, rows = model.model, new_rows(model, 40)
    for name in ("standardised", "score_hints"):
        found = getattr(backbone, name)
        monkeypatch.setattr(
            backbone, name, lambda features, found=found: found(features.as_subclass(OfApple))
        )
    assert list(fit_ridge(backbone, rows, QUIET, seed=0)) == ["motion"]


def test_noise_leaves_the_order_as_it_was():
    model, _ = make_model()
    for projector in model.model.projectors.values():
        projector.reset_parameters()  # else there is something wrong with it to be learnt
    rows = new_rows(model, 60, noise=1.0)
    before = hints(model, rows)[:, MOTION]
    found = fit_ridge(model.model, rows, QUIET, seed=0)
    after = hints(model, rows)[:, MOTION]
    assert found == {"motion": np.inf}
    np.testing.assert_allclose(after - after.mean(), before - before.mean(), atol=1e-5)
    assert after.mean() == pytest.approx(rows.scores[:, MOTION].mean(), abs=1e-4)


@pytest.mark.parametrize(
    "errors, spread, expected",
    [
        ({3.0: 0.9}, 1.0, 1.0),  # better, but not for certain
        ({3.0: 0.9}, 0.0, 3.0),
        ({1.0: 2.0, 3.0: 0.9}, 1.0, np.inf),
        ({1.0: 2.0, np.inf: 2.0, 3.0: 0.9}, 0.0, 3.0),
    ],
)
def test_another_strength_than_the_usual_has_to_be_clearly_better(
    errors, spread, expected, monkeypatch
):
    """Of strengths with these mean errors of 40 groups; their differences vary by the spread."""
    extra = np.tile([-spread, spread], 20)
    table = np.array([errors.get(s, 1.0) + extra * (s == 3.0) for s in ridge.STRENGTHS])
    monkeypatch.setattr(ridge._Rows, "_errors", lambda self, kept: table[:, ~kept])
    groups = np.arange(40)
    rows = ridge._Rows(
        products=np.eye(40), y=groups / 40, weights=np.ones(40), sources=0 * groups, groups=groups
    )
    assert rows.chosen(np.random.default_rng(0)) == expected


def test_columns_of_all_encoders_count_alike(monkeypatch):
    """Ratings that are the sum of a column of each encoder: each map learns its own as much."""
    monkeypatch.setattr(ridge._Rows, "chosen", lambda self, random: 1e4)
    model, _ = make_model()
    projectors = model.model.projectors.values()
    assert len({projector.probe.shape[1] for projector in projectors}) > 1
    for projector in projectors:
        projector.reset_parameters()
    fit_ridge(model.model, new_rows(model, 2000), QUIET, seed=0)
    counts = [entry["num_tokens"] for entry in model.config.encoders]  # noise averages out of many
    learnt = [float(p.probe[MOTION, 0]) * count for p, count in zip(projectors, counts)]
    assert 0 < max(learnt) < 1.2 * min(learnt)


def test_without_groups_whole_prompts_are_left_out():
    """Ratings that depend on the prompt alone, as tokens do: nothing is known of a new prompt."""

    def found(label):
        model, _ = make_model()
        for projector in model.model.projectors.values():
            projector.reset_parameters()
        rows = new_rows(model, 60)
        random = torch.Generator().manual_seed(3)
        rows.features = [
            torch.randn(15, *part.shape[1:], generator=random).repeat_interleave(4, 0)
            + 0.1 * torch.randn(part.shape, generator=random)
            for part in rows.features
        ]
        rows.scores[:, MOTION] = np.random.default_rng(1).uniform(1, 5, 15).repeat(4)
        rows.label = label
        return fit_ridge(model.model, rows, QUIET, seed=0)["motion"]

    assert found(lambda n: {"prompt": f"a scene {n // 4}"}) == np.inf
    assert found(lambda n: {"group": f"g{n // 4}", "prompt": f"a scene {n}"}) == np.inf
    for label in ({}, {"prompt": "the only one"}):
        assert found(lambda n, label=label: label) < np.inf


def test_manifests_of_other_scales_are_compared_inside_of_each():
    model, _ = make_model()
    rows = new_rows(model, 120)
    truth = rows.scores[:, MOTION].copy()
    rows.sources = [n % 2 for n in range(120)]
    rows.scores[1::2, MOTION] -= 1.5  # stricter raters
    fit_ridge(model.model, rows, QUIET, seed=0)
    assert spearmanr(hints(model, rows)[:, MOTION], truth).statistic > 0.95


def test_the_order_of_manifests_changes_nothing():
    """Nor where all of one are in one fold, so that its offset is that of the others."""
    random = np.random.default_rng(0)
    features, sources = random.normal(size=(40, 6)), np.repeat([0, 1, 2], [15, 15, 10])
    y = features @ random.normal(size=6) + random.normal(size=40) + 2 * sources
    found = [
        ridge._Rows(
            products=features @ features.T,
            y=y,
            weights=np.ones(40),
            sources=np.array(numbers)[sources],
            groups=sources,
        )._errors(sources != 2)
        for numbers in ([0, 1, 2], [2, 1, 0], [1, 2, 0])
    ]
    np.testing.assert_allclose(found[1:], [found[0]] * 2)


def test_a_rerun_is_the_same_to_the_bit():
    def probes():
        model, _ = make_model()
        fit_ridge(model.model, new_rows(model, 40, noise=0.5), QUIET, seed=3)
        return [p.probe for p in model.model.projectors.values()]

    assert all(torch.equal(a, b) for a, b in zip(probes(), probes()))


def test_too_few_and_too_many_rows(monkeypatch):
    model, _ = make_model()
    with pytest.raises(FitError, match="ridge needs at least 8 rows with a score"):
        fit_ridge(model.model, new_rows(model, 7), QUIET, seed=0)
    monkeypatch.setattr(ridge, "MOST_ROWS", 10)
    with pytest.raises(FitError, match="ridge is for 10 rows at most, got 12"):
        fit_ridge(model.model, new_rows(model, 12), QUIET, seed=0)


def test_fit_with_nothing_but_the_regression(fit_config):
    result = fit.main(replace(fit_config, ridge=True, epochs=0))
    assert result.steps == 0 and "srocc" in result.metrics
    weights = load_file(result.model / "model.safetensors")
    assert any(value.any() for name, value in weights.items() if name.endswith(".probe"))


def test_another_run_does_not_take_the_place_of_the_model(fit_config):
    """As it doesn't where there are checkpoints; the same gives the same."""
    config = replace(fit_config, ridge=True, epochs=0)
    model = fit.main(config).model / "model.safetensors"
    before = model.read_bytes()
    for other in (replace(config, seed=5), replace(config, seed=5, epochs=1)):
        with pytest.raises(FitError) as error:
            fit.main(other)
        assert f"{config.output_dir} holds the model of a run with other " in str(error.value)
        assert str(error.value).endswith("choose another output_dir, or remove it to start over")
    assert model.read_bytes() == before
    fit.main(config)
    assert model.read_bytes() == before


def test_options_that_do_not_go_together(fit_config):
    with pytest.raises(FitError, match="epochs: 0 is for stage regression with ridge"):
        replace(fit_config, epochs=0)
    with pytest.raises(FitError, match="epochs must not be negative"):
        replace(fit_config, epochs=-1)
    with pytest.raises(FitError, match="need score_hints"):
        fit.main(replace(fit_config, ridge=True, score_hints=False))
