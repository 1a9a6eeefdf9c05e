"""What was saved under old names loads, scores the same, and is saved under the new ones."""

import json
import logging

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from aigveval.model.config import AIGVEvalConfig, new_options
from aigveval.model.modeling import AIGVEvalModel

from tests.aigveval.tiny_llm import make_batch, make_llm, make_model

OLD_OPTIONS = {"score_hints": "impressions", "detector": "signs"}
OLD_WEIGHTS = {
    ".score_head.": ".told.",
    "model.detector.presence.": "model.signs.whether.",
    "model.detector.severity.": "model.signs.degree.",
    "model.detector.timing.": "model.signs.when.",
}


def with_old_names(folder):
    """Rewrite a saved model as earlier versions wrote it."""
    config = json.loads((folder / "config.json").read_text())
    config = {OLD_OPTIONS.get(name, name): value for name, value in config.items()}
    assert {"impressions", "signs"} <= config.keys()
    (folder / "config.json").write_text(json.dumps(config))
    weights = {}
    for key, value in load_file(folder / "model.safetensors").items():
        for new, old in OLD_WEIGHTS.items():
            key = key.replace(new, old)
        weights[key] = value
    assert {"model.projectors.look.told.weight", "model.signs.when.bias"} <= weights.keys()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture
def saved(tmp_path):
    """A model, and a folder that has it under the old names."""
    model, processor = make_model(detector=["blur", "shake"])
    with torch.no_grad():
        for linear in (
            model.model.detector.presence,
            model.model.detector.severity,
            model.model.detector.timing,
        ):
            torch.nn.init.normal_(linear.weight)
    model.save_pretrained(tmp_path / "old")
    with_old_names(tmp_path / "old")
    return model, make_batch(processor, model.config, ["a dog", None]), tmp_path / "old"


def test_a_model_with_old_names_scores_the_same_and_is_saved_with_the_new(saved, tmp_path):
    model, batch, folder = saved
    loaded = AIGVEvalModel.from_pretrained(folder, llm=make_llm())
    assert torch.equal(loaded.score(**batch).level_logits, model.score(**batch).level_logits)
    scores = [{"technical": 2.0, "motion": 2.5}] * 2
    assert loaded.detection_lines(batch, scores) == model.detection_lines(batch, scores)
    loaded.save_pretrained(tmp_path / "new")
    config = json.loads((tmp_path / "new" / "config.json").read_text())
    assert config["score_hints"] is True and config["detector"] == ["blur", "shake"]
    assert not {"impressions", "signs"} & config.keys()
    weights = load_file(tmp_path / "new" / "model.safetensors")
    assert weights.keys() == loaded.trained_keys()
    old = load_file(folder / "model.safetensors")
    assert torch.equal(weights["model.detector.timing.weight"], old["model.signs.when.weight"])


def test_a_config_with_old_names(saved):
    folder = saved[-1]
    for config in (AIGVEvalConfig.from_pretrained(folder), AutoConfig.from_pretrained(folder)):
        assert config.score_hints is True and config.detector == ["blur", "shake"]
        assert not hasattr(config, "signs")
    with pytest.raises(TypeError, match="^option 'impressions' is now called 'score_hints'$"):
        AIGVEvalConfig(impressions=False)


def test_a_checkpoint_of_a_run_that_goes_on(saved):
    model, _, folder = saved
    other, _ = make_model(detector=["blur", "shake"])
    with torch.no_grad():
        for parameter in other.model.projectors.parameters():
            parameter.zero_()
    old = load_file(folder / "model.safetensors")
    found = other.load_state_dict(old, strict=False)  # as the Trainer does
    assert not found.unexpected_keys
    for key, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[key], value), key


def test_options_of_fit_with_old_names_and_values(caplog):
    old = {"impressions": False, "signs": True, "learn": "reading", "epochs": 2}
    with caplog.at_level(logging.WARNING):
        assert new_options(old, warn=True) == {
            "score_hints": False,
            "detector": True,
            "learn": "distill",
            "epochs": 2,
        }
    assert [record.getMessage() for record in caplog.records] == [
        "impressions is now called score_hints",
        "signs is now called detector",
        "learn: reading is now called learn: distill",
    ]
    assert new_options({"impressions": False, "score_hints": True}) == {"score_hints": True}
