"""Training the vision-language model: the regression stage, and the stages with answers."""

import json
from dataclasses import replace

import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

from aigveval.cli.app import app
from aigveval.data.cot import write_cot
from aigveval.inference.assessor import load
from aigveval.train.build import build_model
from aigveval.train.config import FitConfig, FitError, default_of
from aigveval.train.fit import main
from aigveval.train.stages import read_fit_config, read_stages, run_stages
from prompts.facts import Fact

from tests.aigveval.fit_case import losses
from tests.aigveval.stage_case import make_labels
from tests.aigveval.tiny_vlm import FRAMES, make_vlm, save_vlm

EVIDENCE = [
    Fact(
        kind="asked_seen",
        name="dog",
        value=2,
        confidence=0.91,
        start_seconds=0.1,
        end_seconds=0.4,
        at_seconds=0.3,
        box=(0.1, 0.4, 0.3, 0.6),
    ).to_dict(),
    Fact(kind="sharpness", value=9.0, percentile=30).to_dict(),
    Fact(kind="speed", value=0.1, percentile=60).to_dict(),
    Fact(kind="duration", value=0.5).to_dict(),
]
VIDEOS = ("videos/0.mp4", "videos/6.mp4", "videos/11.mp4", "videos/18.mp4")


@pytest.fixture(scope="module")
def vlm(tmp_path_factory):
    return save_vlm(tmp_path_factory.mktemp("vlm"))


@pytest.fixture
def config(tmp_path, fit_data, vlm):
    """A config that takes two steps, on four clips of which each score is known."""
    rows = [
        {
            "video": str(fit_data / video),
            "prompt": "a scene",
            "technical": 1.0 + n,
            "motion": 3.0,
            "semantic": 4.0 - n % 2,
            "overall": 2.0 + n,
        }
        for n, video in enumerate(VIDEOS)
    ]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield FitConfig(
        train=[str(tmp_path / "train.jsonl")],
        valid=[str(tmp_path / "train.jsonl")],
        output_dir=str(tmp_path / "run"),
        cache_dir=str(tmp_path / "cache"),
        vlm=vlm,
        frames=FRAMES,
        epochs=1,
        batch_size=2,
        lora_learning_rate=1e-2,
        device="cpu",
        report_to=[],
        log_steps=1,
        warmup=0.0,
        mismatch_probability=0.2,
        workers=1,
        save_minutes=None,
        lora={"r": 2, "alpha": 4, "dropout": 0.0, "target_modules": ["q_proj", "v_proj"]},
    )
    torch.set_num_threads(threads)


def test_the_regression_stage_trains_and_saves_the_lora_alone(config, fit_data):
    result = main(config)
    assert result.steps == 2 and "srocc" in result.metrics
    assert len(losses(config.output_dir)) == 2
    saved = load_file(result.model / "model.safetensors")
    assert saved and all(".lora_" in name and "language_model" in name for name in saved)
    assert all(value.abs().max() > 0 for name, value in saved.items() if "lora_B" in name)
    row = load(result.model).score(fit_data / VIDEOS[0], prompt="a scene")
    assert row.semantic is not None and row.explanation is None
    again = main(
        replace(
            config,
            output_dir=config.output_dir + "2",
            base=str(result.model),
            vlm=None,
            frames={},
            lora=default_of("lora"),
            max_steps=1,
            gradient_checkpointing=True,
            valid=[],
        )
    )
    assert again.steps == 1
    more = load_file(again.model / "model.safetensors")
    assert set(more) == set(saved)
    assert any(not torch.equal(more[name], saved[name]) for name in saved)


def test_frozen_weights_stay_as_they_are(config):
    built = build_model(config)
    trained = {n for n, p in built.model.named_parameters() if p.requires_grad}
    assert trained and all(".lora_" in name for name in trained)
    assert built.model.trained_keys() == trained
    before = make_vlm().state_dict()
    after = {
        name.removeprefix("model.vlm.").replace(".base_layer.", "."): value
        for name, value in built.model.state_dict().items()
        if name not in trained
    }
    assert set(after) == set(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_three_stages_one_after_the_other(tmp_path, config, fit_data):
    """SFT with scores, GRPO on sampled answers, SFT on the best of them; with facts of the clips."""
    labels = make_labels(fit_data)
    rows = [json.loads(line) | {"evidence": EVIDENCE} for line in labels.read_text().splitlines()]
    rated = labels.with_name("with_facts.jsonl")
    rated.write_text("".join(json.dumps(row) + "\n" for row in rows))
    labels = tmp_path / "cot.jsonl"
    write_cot([rated], labels, times="seconds")
    path = tmp_path / "stages.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "train": str(labels),
                "output_dir": "stages",
                "cache_dir": "cache",
                "vlm": config.vlm,
                "frames": FRAMES,
                "batch_size": 2,
                "max_steps": 1,
                "lora": config.lora,
                "lora_learning_rate": 1e-3,
                "device": "cpu",
                "report_to": [],
                "log_steps": 1,
                "warmup": 0.0,
                "answer_times": "seconds",
                "answer_variants": 1,
                "workers": 1,
                "mismatch_probability": 0.0,
                "best_threshold": 0.0,
                "stages": [
                    {"stage": "sft"},
                    {"stage": "grpo", "grpo": {"group": 2, "max_new_tokens": 8}},
                ],
            }
        )
    )
    stages = read_stages(path)
    sft, grpo = run_stages(stages)
    weights = [load_file(result.model / "model.safetensors") for result in (sft, grpo)]
    assert set(weights[0]) == set(weights[1])
    assert all(".lora_" in name for name in weights[0])
    saved = json.loads((grpo.model / "config.json").read_text())
    assert saved["explains"] and saved["answer_times"] == "seconds" and saved["reads_facts"]
    completions = tmp_path / "stages" / "2-grpo" / "completions.jsonl"
    rows = [json.loads(line) for line in completions.read_text().splitlines()]
    assert len(rows) == 2
    for row in rows:
        assert (
            "\nFacts: dog asked and seen, 2 at most, 91 % sure, on the left, 0.1-0.4 s; "
            in (row["given"])
        )
        assert row["rewards"]["facts"] == 0  # eight random tokens
    for row in rows:  # random weights end no answer: as if they had written a good one
        row.update(completion="Defects: none\nScores: 3.0 3.0 3.0 3.0", finished=True, reward=0.9)
    best = tmp_path / "best.jsonl"
    best.write_text("".join(json.dumps(row) + "\n" for row in rows))
    last = main(
        replace(
            stages[0],
            stage="sft2",
            vlm=None,
            frames={},
            lora=default_of("lora"),
            base=str(grpo.model),
            output_dir=str(tmp_path / "sft2"),
            completions=[str(best)],
        )
    )
    assert last.steps == 1
    found = load_file(last.model / "model.safetensors")
    assert any(not torch.equal(found[name], weights[1][name]) for name in found)
    row = load(last.model, explain=True).score(fit_data / VIDEOS[0], prompt="a scene")
    assert row.explanation is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoders": ["semantic_lite"]}, "encoders has no place beside vlm"),
        ({"align_epochs": 1}, "align_epochs has no place beside vlm"),
        (
            {"frames": {"num_slov": 4}},
            "unknown field of frames 'num_slov'; did you mean 'num_slow'?",
        ),
        ({"frames": FRAMES, "vlm": None}, "frames needs a vlm; encoders have frames of their own"),
    ],
)
def test_what_does_not_go_with_it_is_refused(config, options, message):
    with pytest.raises(FitError, match=message):
        replace(config, **options)


def test_a_missing_model_is_one_line(tmp_path, config):
    path = tmp_path / "fit.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "preset": "qsave",
                "train": config.train,
                "output_dir": "out",
                "cache_dir": "cache",
                "device": "cpu",
                "bf16": False,
            }
        )
    )
    assert read_fit_config(path).vlm == "Qwen/Qwen3-VL-8B-Instruct"
    result = CliRunner().invoke(app, ["fit", str(path)])
    assert result.exit_code != 0 and len(result.stderr.splitlines()) == 1
    assert "Qwen/Qwen3-VL-8B-Instruct: the vision-language model is not on this machine" in (
        result.stderr
    )
    assert "give that folder as vlm" in result.stderr


def test_an_unreadable_clip_counts_for_nothing(config, tmp_path, fit_data):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    rows = [json.loads(line) for line in open(config.train[0])]
    rows[0]["video"] = str(bad)
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(replace(config, max_steps=1, batch_size=4, valid=[])).steps == 1
