"""`learn: reading`: the LoRA learns to say what the LLM is shown; the projectors stay."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from aigveval.train import fit
from aigveval.train.dataset import GROUP, PAIR, WEIGHT
from aigveval.train.fit_config import FitError
from aigveval.train.trainer import QualityTrainer
from prompts import SCORES


@pytest.fixture
def reading(fit_config):
    return replace(
        fit_config, learn="reading", align_epochs=5, valid=[], feature_noise=0.0,
        lora={"r": 8, "alpha": 16, "dropout": 0.0, "target_modules": "all-linear"},
        loss={"level": 1.0, "plcc": 0.5},
    )


def test_the_target_is_what_the_llm_is_shown(reading, monkeypatch):
    seen = []
    made = QualityTrainer.compute_loss

    def watched(self, model, inputs, *args):
        with torch.no_grad():
            shown = self.quality_model.model.impressions(inputs["features"])
        seen.append((shown.clamp(1.0, 5.0), inputs["labels"].clone()))
        return made(self, model, inputs, *args)

    monkeypatch.setattr(QualityTrainer, "compute_loss", watched)
    fit.main(replace(reading, epochs=2, save_steps=None))
    assert len(seen) == 8
    for shown, labels in seen:
        assert torch.equal(shown, labels[:, : len(SCORES)])
        assert (labels[:, WEIGHT] == 1).all() and (labels[:, [GROUP, PAIR]] == -1).all()
    # shifted as a whole, each time by something else
    assert torch.stack([shown.mean(0) for shown, _ in seen]).std(0).min() > 0.2


def test_projectors_stay_and_a_stopped_run_goes_on(reading, tmp_path, monkeypatch):
    config = replace(reading, align_epochs=2, epochs=2)
    whole = fit.main(config)
    early = load_file(Path(config.output_dir) / "checkpoint-6" / "model.safetensors")
    late = load_file(whole.model / "model.safetensors")
    for name, value in late.items():
        assert torch.equal(early[name], value) == (".projectors." in name), name

    cut = replace(config, output_dir=str(tmp_path / "cut"))
    step_end = fit.ProgressCallback.on_step_end

    def kill(self, args, state, control, **kwargs):
        if state.global_step == 5:
            raise KeyError
        step_end(self, args, state, control, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(fit.ProgressCallback, "on_step_end", kill)
        with pytest.raises(KeyError):
            fit.main(cut)
    result = fit.main(cut)
    assert result.resumed_from is not None
    resumed = load_file(result.model / "model.safetensors")
    assert all(torch.equal(value, resumed[name]) for name, value in late.items())


@pytest.mark.parametrize(
    "options, message",
    [
        ({"fsdp": True}, "learn: reading can't be combined with fsdp; use DDP (fsdp: false)"),
        ({"train_encoders": ["motion_mixed"], "align_epochs": 0},
         "learn: reading trains the LoRA alone, no train_encoders"),
        ({"impressions": False},
         "align_epochs and learn: reading need impressions, and the model has none"),
        ({"lora": None}, "learn: reading trains the LoRA, and the model has none"),
    ],
)
def test_what_reading_does_not_go_with(reading, options, message):
    with pytest.raises(FitError) as error:
        fit.main(replace(reading, **options))
    assert str(error.value) == message
