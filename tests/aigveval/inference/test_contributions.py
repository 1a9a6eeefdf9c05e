"""How far each dimension's evidence moves the overall score."""

import math

import pytest
import torch

from aigveval.assessment import Contributions
from aigveval.inference.explain import contributions_of
from aigveval.model.config import AIGVEvalConfig
from aigveval.model.modeling import AIGVEvalModel
from aigveval.model.processing import AIGVEvalProcessor
from prompts import SCORES

from ..engines import tiny_assessor
from ..tiny_llm import make_batch, make_config, make_llm, make_tokenizer


def with_mean(model, features, dimensions):
    """By hand: the tokens of the dimensions' encoders become the mean of their statistics."""
    features, start = features.clone(), 0
    for entry in model.config.encoders:
        stop = start + entry["num_tokens"]
        if entry["dimension"] in dimensions:
            mean = model.model.projectors[entry["name"]].mean
            features[:, start:stop, : entry["dim"]] = mean
        start = stop
    return features


def test_contributions_by_hand_and_in_one_batch(monkeypatch):
    engine = tiny_assessor().engine
    model = engine.model
    batch = make_batch(engine.processor, model.config, ["a cat", None, "two boats, one sun"])
    overall = SCORES.index("overall")
    full = model.score(**batch).scores
    calls = []
    real = AIGVEvalModel.forward
    monkeypatch.setattr(
        AIGVEvalModel,
        "forward",
        lambda self, **inputs: calls.append(len(inputs["features"])) or real(self, **inputs),
    )
    with torch.inference_mode():
        rows = contributions_of(model, batch, full)
    assert calls == [4 * 3]
    single = [["technical"], ["motion"], ["semantic"]]
    for dimensions in (*single, ["technical", "motion", "semantic"]):
        inputs = batch | {"features": with_mean(model, batch["features"], dimensions)}
        without = model.score(**inputs).scores[:, overall]
        for row, moved in enumerate(rows):
            if len(dimensions) == 1:
                expected = (full[row, overall] - without[row]).item()
                assert getattr(moved, dimensions[0]) == pytest.approx(expected, abs=2e-5)
                assert abs(expected) > 1e-3  # the evidence counts
            else:
                assert moved.baseline == pytest.approx(without[row].item(), abs=2e-5)
    for row, moved in enumerate(rows):
        total = moved.baseline + moved.sum + moved.residue
        assert total == pytest.approx(full[row, overall].item(), abs=2e-5)


def test_a_clip_like_the_training_mean_moves_nothing():
    engine = tiny_assessor().engine
    batch = make_batch(engine.processor, engine.model.config, ["a cat", "a dog"])
    everything = ["technical", "motion", "semantic"]
    batch["features"] = with_mean(engine.model, batch["features"], everything)
    for moved in contributions_of(engine.model.eval(), batch, engine.model.score(**batch).scores):
        for value in (moved.technical, moved.motion, moved.semantic, moved.residue):
            assert value == pytest.approx(0, abs=2e-5)


def test_no_contribution_of_a_dimension_without_encoder():
    entries = [entry for entry in make_config().encoders if entry["dimension"] != "motion"]
    config = AIGVEvalConfig(llm="tiny", encoders=entries)
    processor = AIGVEvalProcessor.from_config(config, tokenizer=make_tokenizer())
    model = AIGVEvalModel(config, llm=make_llm()).eval()
    batch = make_batch(processor, config, ["a cat"])
    with torch.inference_mode():
        (moved,) = contributions_of(model, batch, model.score(**batch).scores)
    assert moved.motion is None and moved.technical is not None
    assert moved.to_dict()["motion"] is None and moved.sum == pytest.approx(
        moved.technical + moved.semantic, abs=1e-5
    )


def test_contributions_are_validated():
    with pytest.raises(ValueError, match="^contribution of motion must be finite and in -4..4"):
        Contributions(baseline=3.0, residue=0.0, motion=4.5)
    with pytest.raises(ValueError, match="^baseline must be finite"):
        Contributions(baseline=math.nan, residue=0.0)
