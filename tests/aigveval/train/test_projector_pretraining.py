"""Aligning the projectors: it learns what is known, and nothing else moves."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console
from scipy.stats import spearmanr

from aigveval.model.projector import FeatureProjector
from aigveval.train.config import FitConfig
from aigveval.train.dataset import features_of
from aigveval.train.projector_pretraining import pretrain_projectors
from prompts import SCORES

from tests.aigveval.tiny_llm import make_model


def new_model():
    """As it is before training: its features tell nothing."""
    model, processor = make_model(projector_hidden=64)
    for name, old in model.model.projectors.items():
        tokens, dim = next(
            (e["num_tokens"], e["dim"]) for e in model.config.encoders if e["name"] == name
        )
        torch.manual_seed(dim)
        model.model.projectors[name] = FeatureProjector(
            tokens,
            dim,
            old.position.shape[1],
            hidden=64,
            embedding_rms=0.3,
            clip=10.0,
            dropout=0.0,
            noise=0.0,
        )
    return model, processor


class Rows(torch.utils.data.Dataset):
    """Random tokens whose first columns are the scores; the motion score is unknown for some."""

    def __init__(self, model, count):
        random = torch.Generator().manual_seed(3)
        self.tokens = [
            torch.randn(count, e["num_tokens"], e["dim"], generator=random)
            for e in model.config.encoders
        ]
        means = torch.stack([part.mean(1)[:, 0] for part in self.tokens], 1)
        self.scores = 3 + torch.cat([means, means.mean(1, keepdim=True)], 1)
        self.scores[::3, 1] = torch.nan
        self.groups = [number // 4 for number in range(count)]

    def __len__(self):
        return len(self.groups)

    def __getitem__(self, key):
        _, number = key
        return {
            "tokens": [part[number] for part in self.tokens],
            "prompt": None,
            "weight": 1.0,
            "scores": self.scores[number].tolist(),
            "group": self.groups[number],
            "source": 0,
        }


def test_it_learns_the_known_scores_and_leaves_the_rest_alone():
    model, processor = new_model()
    rows = Rows(model, 240)
    config = FitConfig(train=["-"], output_dir="-", cache_dir="-", align_epochs=40)
    learning = (".up.weight", ".up.bias", ".score_head.weight", ".score_head.bias")
    frozen = {
        name: value.clone()
        for name, value in model.state_dict().items()
        if not name.endswith(learning)
    }
    quiet = Console(quiet=True)
    first = pretrain_projectors(model.model, rows, replace(config, align_epochs=1), quiet)
    last = pretrain_projectors(model.model, rows, config, quiet)
    assert last < 0.3 * first

    features, _ = features_of([rows[0, number] for number in range(240)])
    model.eval()
    with torch.no_grad():
        told = model.model.score_hints(features)
    for column in range(len(SCORES)):
        known = ~rows.scores[:, column].isnan()
        assert spearmanr(told[known, column], rows.scores[known, column]).statistic > 0.9
    state = model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in frozen.items())


@pytest.mark.parametrize("steps", [1, 2, 10, 11, 20])
def test_any_number_of_steps(steps):
    model, processor = new_model()
    config = FitConfig(train=["-"], output_dir="-", cache_dir="-", align_epochs=steps)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    loss = pretrain_projectors(model.model, Rows(model, 8), config, Console(quiet=True))
    assert np.isfinite(loss)
    for name, value in model.state_dict().items():
        if name.endswith(".score_head.bias"):
            assert (value - before[name]).abs().max() > config.align_learning_rate / 10


def test_the_same_seed_gives_the_same_projectors():
    def aligned():
        model, processor = new_model()
        config = FitConfig(train=["-"], output_dir="-", cache_dir="-", align_epochs=2)
        pretrain_projectors(model.model, Rows(model, 48), config, Console(quiet=True))
        parameters = model.model.projectors.parameters()
        return np.concatenate([value.detach().numpy().ravel() for value in parameters])

    assert np.array_equal(aligned(), aligned())


def test_batches_go_to_the_device_that_the_model_is_on(monkeypatch):
    def hints(features):
        assert features.device.type == "meta"
        raise KeyboardInterrupt

    model, processor = new_model()
    config = FitConfig(train=["-"], output_dir="-", cache_dir="-", align_epochs=1)
    monkeypatch.setattr(model.model.to("meta"), "score_hints", hints)
    with pytest.raises(KeyboardInterrupt):
        pretrain_projectors(model.model, Rows(model, 8), config, Console(quiet=True))


@pytest.mark.gpu
def test_on_the_device_that_the_model_is_on():
    model, processor = new_model()
    config = FitConfig(train=["-"], output_dir="-", cache_dir="-", align_epochs=2)
    backbone = model.model.to("cuda")
    assert np.isfinite(pretrain_projectors(backbone, Rows(model, 8), config, Console(quiet=True)))
