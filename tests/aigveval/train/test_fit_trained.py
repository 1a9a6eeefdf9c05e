"""Encoders that are trained with the rest, as AIGVEval does with Video-Swin and SlowFast."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from aigveval.features.cache import FeatureCache, extract
from aigveval.inference.assessor import load
from aigveval.model.modeling import AIGVEvalModel
from aigveval.model.processing import AIGVEvalProcessor
from aigveval.train import fit
from aigveval.train.build import build_model
from aigveval.train.config import FitError
from aigveval.train.dataset import QualityDataset
from aigveval.train.predict import predict
from aigveval.train.rows import read_training_manifest
from encoders.video import read_views

from ..fit_case import REGISTERED, history, losses, run_and_kill

# The whole preset `aigveval`, each part as small as it gets.
PAPER = [
    {"name": "semantic_blip", "options": {"weights": "random", "num_frames": 2}},
    {"name": "motion_slowfast", "options": {"weights": "random", "num_frames": 8, "size": 32}},
    {
        "name": "technical_fastvqa",
        "options": {
            "weights": "random",
            "variant": "kinetics",
            "num_frames": 4,
            "segments": 4,
            "time_steps": 1,
            "embed_dim": 12,
            "drop_path": 0.1,
        },
    },
]
TRAINED = ["motion_slowfast", "technical_fastvqa"]


@pytest.fixture
def mixed(fit_config):
    """Two of three toy encoders from the cache; the third has a layer and a batch norm to train."""
    return replace(
        fit_config,
        encoders=["technical_sharp", "motion_mixed", "semantic_matching"],
        train_encoders=["mixed"],
        encoder_learning_rate=1e-2,
        workers=2,
        epochs=3,
    )


class Gradients(TrainerCallback):
    """The largest gradient that each parameter has had."""

    def __init__(self):
        self.largest: dict[str, float] = {}
        self.frozen: set[str] = set()

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        for name, parameter in model.named_parameters():
            if parameter.grad is None:
                self.frozen.add(name)
            else:
                now = parameter.grad.abs().max().item()
                self.largest[name] = max(self.largest.get(name, 0.0), now)


@pytest.mark.slow
def test_the_papers_configuration_trains_as_a_whole(fit_config, monkeypatch, tmp_path):
    rows = read_training_manifest(fit_config.train[0])[::4]
    manifest = tmp_path / "six.jsonl"
    manifest.write_text(
        "".join(
            json.dumps(
                {
                    "video": row.video,
                    "prompt": row.prompt,
                    "technical": row.scores[0],
                    "semantic": 3.0,
                    "overall": row.scores[0],
                }
            )
            + "\n"
            for row in rows
        )
    )
    config = replace(
        fit_config,
        train=[str(manifest)],
        valid=[],
        encoders=PAPER,
        train_encoders=TRAINED,
        epochs=8,
        batch_size=6,
        encoder_learning_rate=1e-3,
        learning_rate=3e-3,
        feature_noise=0.0,
        mismatch_probability=0.0,
        prompt_dropout=0.0,
        loss={"level": 1.0, "plcc": 1.0, "rank": 0.3},
        save_steps=None,
        warmup=0.0,
    )
    gradients = Gradients()
    made = fit.QualityTrainer.__init__

    def watched(self, **options):
        made(self, **options)
        self.add_callback(gradients)

    monkeypatch.setattr(fit.QualityTrainer, "__init__", watched)
    start = {name: value.clone() for name, value in build_model(config).model.state_dict().items()}
    result = fit.main(config)

    logged = losses(config.output_dir)
    assert len(logged) == 8 and np.mean(logged[-2:]) < 0.8 * np.mean(logged[:2])
    # Gradients reach every part that is trained, and no other.
    assert not gradients.frozen & gradients.largest.keys()
    assert all(value > 0 for value in gradients.largest.values())
    kinds = {
        "Swin": "encoders.technical_fastvqa.",
        "SlowFast": "encoders.motion_slowfast.",
        "projectors": "model.projectors.",
        "LoRA": "lora_",
    }
    for kind, part in kinds.items():
        names = [name for name in gradients.largest if part in name]
        assert names, kind
        every = [name for name in start if part in name and name not in gradients.frozen]
        running = ("running_mean", "running_var", "num_batches_tracked", "relative_position_index")
        fixed = (".mean", ".std", ".probe", "attn_mask", *running)
        assert set(every) - set(names) <= {name for name in every if name.endswith(fixed)}, kind
    frozen = [name for name in gradients.frozen if "lora_" not in name]
    blip = "encoders.semantic_blip."
    assert not any(name.startswith(blip) for name in start)  # cached, not in the model at all
    assert any("language_model" in name for name in frozen)
    assert not any(name.startswith("encoders.") for name in frozen)

    # The folder has the trained encoders; a new process makes the model again from it.
    saved = load_file(result.model / "model.safetensors")
    for name in TRAINED:
        own = {key for key in saved if key.startswith(f"encoders.{name}.")}
        assert own == {key for key in start if key.startswith(f"encoders.{name}.")}
        assert any(not torch.equal(saved[key], start[key]) for key in own)
    assert not any(key.startswith(blip) for key in saved)
    clip = rows[0]
    cached = predict(result.model, rows[:1], FeatureCache(config.cache_dir), progress=False)
    live = load(result.model, device="cpu").score(clip.video, clip.prompt)
    assert live.technical.score == pytest.approx(cached[0, 0], abs=1e-4)
    assert live.overall.score == pytest.approx(cached[0, 3], abs=1e-4)


# ---- with toy encoders ----


def test_trained_encoders_are_saved_loaded_and_told_apart(mixed, fit_data):
    result = fit.main(mixed)
    model = AIGVEvalModel.from_pretrained(result.model)
    assert model.config.trained_encoders == ["motion_mixed"]
    assert not model.encoders  # loaded when they are needed
    processor = AIGVEvalProcessor.from_pretrained(result.model)
    plain = processor.encoders["motion_mixed"]
    model.load_encoders(processor.encoders)
    trained = model.encoders["motion_mixed"]
    saved = load_file(result.model / "model.safetensors")
    assert torch.equal(trained.mix.weight, saved["encoders.motion_mixed.mix.weight"])
    assert not torch.equal(trained.mix.weight, plain.mix.weight)
    assert trained.fingerprint() != plain.fingerprint()  # so the cache keeps them apart
    # a batch norm's statistics stay those that the encoder came with
    assert torch.equal(trained.norm.running_mean, plain.norm.running_mean)
    assert not torch.equal(trained.norm.weight, plain.norm.weight)
    assert not any(parameter.requires_grad for parameter in trained.parameters())

    # what was validated is what the folder gives, from the cache and live
    rows = read_training_manifest(mixed.valid[0])
    cached = predict(result.model, rows, FeatureCache(mixed.cache_dir), progress=False)
    assessor = load(result.model, device="cpu")  # as the cached ones
    for row, scores in zip(rows, cached):
        found = assessor.score(row.video, row.prompt)
        assert found.motion.score == pytest.approx(scores[1], abs=1e-4)
    known = [i for i, row in enumerate(rows) if not np.isnan(row.scores[1])]
    correlation = np.corrcoef(cached[known, 1], [rows[i].scores[1] for i in known])[0, 1]
    assert correlation == pytest.approx(result.metrics["valid_plcc_motion"], abs=1e-4)

    # saved again, and merged, it is the same
    for options in ({}, {"merge": True}):
        again = result.model.with_name(f"again{len(options)}")
        model.save_pretrained(again, **options)
        assert load_file(again / "model.safetensors").keys() == saved.keys()
        other = AIGVEvalModel.from_pretrained(again, llm=None if options else _llm(mixed))
        other.load_encoders(processor.encoders)
        assert torch.equal(other.encoders["motion_mixed"].mix.weight, trained.mix.weight)


def _llm(config):
    from aigveval.model.backbones import load_llm

    return load_llm(config.llm)


def test_a_folder_with_other_encoders_is_refused(mixed):
    result = fit.main(replace(mixed, epochs=1, valid=[]))
    path = result.model / "config.json"
    written = json.loads(path.read_text())
    path.write_text(json.dumps(written | {"trained_encoders": []}))
    with pytest.raises(ValueError, match=r"has the encoders \['motion_mixed'\], the config says"):
        AIGVEvalModel.from_pretrained(result.model)


def test_resumed_equals_uninterrupted(mixed, tmp_path, monkeypatch):
    config = replace(mixed, ema=0.9, epochs=2)
    whole = fit.main(config)
    cut = replace(config, output_dir=str(tmp_path / "cut"))
    run_and_kill(cut, monkeypatch, step=5)
    result = fit.main(replace(cut, workers=1))
    assert result.resumed_from is not None and result.metrics == whole.metrics
    left, right = (load_file(r.model / "model.safetensors") for r in (whole, result))
    assert all(torch.equal(value, right[key]) for key, value in left.items())


def test_training_goes_on_from_trained_encoders(mixed, fit_config, tmp_path):
    first = fit.main(replace(mixed, epochs=1))
    more = replace(
        fit_config,
        base=str(first.model),
        output_dir=str(tmp_path / "more"),
        epochs=1,
        llm="smollm2-135m-instruct",
        encoders=["semantic_lite", "motion_flow", "technical_lite"],
        projector_hidden=512,
        lora={
            "r": 8,
            "alpha": 16,
            "dropout": 0.05,
            "target_modules": ["q_proj", "v_proj"],
            "use_dora": False,
            "use_rslora": False,
        },
    )
    frozen = build_model(more)
    assert frozen.trained == [] and list(frozen.model.encoders) == ["motion_mixed"]
    second = fit.main(more)  # now frozen and cached, but still part of the model
    left, right = (load_file(r.model / "model.safetensors") for r in (first, second))
    for name in left:
        if name.startswith("encoders."):
            assert torch.equal(left[name], right[name])
    third = fit.main(
        replace(
            more,
            train_encoders=["motion_mixed"],
            encoder_learning_rate=1e-2,
            output_dir=str(tmp_path / "third"),
        )
    )
    moved = load_file(third.model / "model.safetensors")
    assert not torch.equal(
        moved["encoders.motion_mixed.mix.weight"], left["encoders.motion_mixed.mix.weight"]
    )


def test_fragments_change_from_epoch_to_epoch_but_not_in_validation(fit_data):
    rows = [read_training_manifest(fit_data / "train.jsonl")]
    encoders = [make() for name, make in REGISTERED.items() if name != "motion_moving"]
    cache = FeatureCache(fit_data / "cache")
    frozen = [encoder for encoder in encoders if encoder.spec.name != "motion_mixed"]
    digests = extract([row.video for row in rows[0]], frozen, cache, progress=False).digests
    data = QualityDataset(rows, digests, encoders, cache, trained=["motion_mixed"])
    views = [data[key]["views"]["motion_mixed"] for key in (0, (4, 0), (4, 0), (5, 0), (6, 0))]
    plain = read_views(rows[0][0].video, {"motion_mixed": REGISTERED["motion_mixed"]()})
    assert torch.equal(views[0], plain["motion_mixed"])
    assert torch.equal(views[1], views[2])  # the same whenever that epoch is seen
    assert len({tuple(view.flatten().tolist()) for view in views[1:]}) == 3
    tokens = dict(zip([e.spec.name for e in encoders], data[0]["tokens"]))
    assert not tokens["motion_mixed"].any() and tokens["technical_sharp"].any()


def test_a_video_that_breaks_meanwhile_counts_for_nothing(mixed, fit_data, tmp_path, capfd):
    """Where every encoder is trained, a file is not decoded before the training."""
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"nothing")
    rows = (fit_data / "train.jsonl").read_text().splitlines()
    rows = [row.replace("videos/", f"{fit_data}/videos/") for row in rows]
    manifest = tmp_path / "some.jsonl"
    bad = json.dumps({"video": str(broken), "motion": 2.0})
    manifest.write_text("\n".join([*rows, bad]))
    config = replace(mixed, train=[str(manifest)], encoders=["motion_mixed"], epochs=1, workers=1)
    result = fit.main(config)
    said = capfd.readouterr().err
    assert f"left out of the training: {broken}" in said
    assert result.steps == 3  # 16 rows know the motion, and the broken one
    assert all(
        np.isfinite(entry["loss"]) for entry in history(config.output_dir) if "loss" in entry
    )


def test_an_encoder_that_is_not_there_cannot_be_trained(mixed):
    with pytest.raises(FitError) as error:
        fit.main(replace(mixed, train_encoders=["technical_lite"]))
    assert str(error.value) == (
        "train_encoders: technical_lite is not among the encoders "
        "semantic_matching, motion_mixed, technical_sharp"
    )
    with pytest.raises(FitError) as error:
        fit.main(replace(mixed, encoders=["motion_flow"], train_encoders=["flow"]))
    assert str(error.value) == (
        "train_encoders: motion_flow has no parameters that could be trained"
    )
    assert not Path(mixed.output_dir).exists()
