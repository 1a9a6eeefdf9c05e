"""`learn: reading`: the LoRA learns to say what the projectors tell, and they stay as they are."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from scipy.stats import spearmanr

from aigveval.data.cache import FeatureCache
from aigveval.modeling import AIGVEvalModel
from aigveval.processing import AIGVEvalProcessor
from aigveval.train import fit
from aigveval.train.align import read_axes
from aigveval.train.data import read_training_manifest
from aigveval.train.fit_config import FitError
from aigveval.train.predict import predict


@pytest.fixture
def reading(fit_config):
    return replace(
        fit_config, learn="reading", align_epochs=40, valid=[], feature_noise=0.0,
        lora={"r": 8, "alpha": 16, "dropout": 0.0, "target_modules": "all-linear"},
        loss={"level": 1.0, "plcc": 0.5},
    )


def test_the_model_comes_to_say_what_its_projectors_tell(reading):
    config = replace(reading, epochs=24, lora_learning_rate=1e-2, save_steps=None)
    result = fit.main(config)
    rows = read_training_manifest(config.train[0])
    said = predict(result.model, rows, FeatureCache(config.cache_dir), progress=False)
    model = AIGVEvalModel.from_pretrained(result.model)
    processor = AIGVEvalProcessor.from_pretrained(result.model)
    model.load_encoders(processor.encoders)
    views = [processor.encode_video(row.video) for row in rows]
    views = {name: torch.stack([view[name] for view in views]) for name in views[0]}
    with torch.no_grad():
        features = model.encode(views, [row.prompt for row in rows])
        told = read_axes(model.model, features).clamp(1.0, 5.0)
    # the clips' brightness is their technical score, which the projectors were aligned with
    assert spearmanr(told[:, 0], [row.scores[0] for row in rows]).statistic > 0.9
    for column in (0, 1):
        assert spearmanr(told[:, column], said[:, column]).statistic > 0.6


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
        ({"lora": None}, "learn: reading trains the LoRA, and the model has none"),
    ],
)
def test_what_reading_does_not_go_with(reading, options, message):
    with pytest.raises(FitError) as error:
        fit.main(replace(reading, **options))
    assert str(error.value) == message
