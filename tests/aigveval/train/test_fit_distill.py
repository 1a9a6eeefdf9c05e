"""`learn: distill`: the LoRA learns to say what the LLM is shown; the projectors stay."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from aigveval.train import fit
from aigveval.train.config import FitError
from aigveval.train.dataset import GROUP, PAIR, WEIGHT
from aigveval.train.trainer import ScoreTerm
from prompts import SCORES

from ..fit_case import run_and_kill


@pytest.fixture
def distilling(fit_config):
    return replace(
        fit_config,
        learn="distill",
        align_epochs=5,
        valid=[],
        feature_noise=0.0,
        lora={"r": 8, "alpha": 16, "dropout": 0.0, "target_modules": "all-linear"},
        loss={"level": 1.0, "plcc": 0.5},
    )


def test_the_target_is_what_the_llm_is_shown(distilling, monkeypatch):
    seen = []
    made = ScoreTerm.__call__

    def watched(self, model, batch):
        with torch.no_grad():
            shown = model.model.score_hints(batch["features"])
        seen.append((shown.clamp(1.0, 5.0), batch["labels"].clone()))
        return made(self, model, batch)

    monkeypatch.setattr(ScoreTerm, "__call__", watched)
    fit.main(replace(distilling, epochs=2, save_steps=None))
    assert len(seen) == 8
    for shown, labels in seen:
        assert torch.equal(shown, labels[:, : len(SCORES)])
        assert (labels[:, WEIGHT] == 1).all() and (labels[:, [GROUP, PAIR]] == -1).all()
    # shifted as a whole, each time by something else
    assert torch.stack([shown.mean(0) for shown, _ in seen]).std(0).min() > 0.2


@pytest.mark.slow
def test_the_shipped_checkpoint_says_what_it_is_shown(lite):
    """A random LLM knows no words that it could copy, so this takes the real one."""
    model, processor = lite.engine.model, lite.engine.processor
    folder = Path(__file__).parents[3] / "examples/videos"
    prompts = json.loads((folder / "prompts.json").read_text(encoding="utf-8"))
    views = [processor.encode_video(folder / name) for name in prompts]
    views = {name: torch.stack([view[name] for view in views]) for name in views[0]}
    with torch.inference_mode():
        features = model.encode(views, list(prompts.values()))
        shown = model.model.score_hints(features).clamp(1.0, 5.0)
    said = model.score(**processor.encode_prompts(list(prompts.values())), features=features).scores
    assert (said - shown).abs().max() < 0.5 and shown.std() > 0.5
    for column in range(3):
        assert np.corrcoef(said[:, column], shown[:, column])[0, 1] > 0.95


def test_projectors_stay_and_a_stopped_run_goes_on(distilling, tmp_path, monkeypatch):
    config = replace(distilling, align_epochs=2, epochs=2)
    whole = fit.main(config)
    early = load_file(Path(config.output_dir) / "checkpoint-6" / "model.safetensors")
    late = load_file(whole.model / "model.safetensors")
    for name, value in late.items():
        assert torch.equal(early[name], value) == (".projectors." in name), name

    cut = replace(config, output_dir=str(tmp_path / "cut"))
    run_and_kill(cut, monkeypatch, step=5)
    result = fit.main(cut)
    assert result.resumed_from is not None
    resumed = load_file(result.model / "model.safetensors")
    assert all(torch.equal(value, resumed[name]) for name, value in late.items())


@pytest.mark.parametrize(
    "options, message",
    [
        ({"fsdp": True}, "learn: distill can't be combined with fsdp; use DDP (fsdp: false)"),
        (
            {"train_encoders": ["motion_mixed"], "align_epochs": 0},
            "learn: distill trains the LoRA alone, no train_encoders",
        ),
        (
            {"score_hints": False},
            "ridge, align_epochs and learn: distill need score_hints, and the model has none",
        ),
        ({"lora": None}, "learn: distill trains the LoRA, and the model has none"),
    ],
)
def test_what_distilling_does_not_go_with(distilling, options, message):
    with pytest.raises(FitError) as error:
        fit.main(replace(distilling, **options))
    assert str(error.value) == message
