"""Training end to end on a tiny random LLM: it learns, it resumes, and it says what is wrong."""

import csv
import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from aigveval.errors import ManifestError
from aigveval.features.cache import FeatureCache, extract
from aigveval.model.modeling import AIGVEvalModel
from aigveval.model.processing import AIGVEvalProcessor
from aigveval.train import build, fit
from aigveval.train.config import FitConfig, FitError, default_of
from aigveval.train.dataset import EpochSampler, QualityDataset
from aigveval.train.predict import predict
from aigveval.train.rows import Part, read_training_manifest
from aigveval.train.validation import ValidationMetrics

from ..fit_case import ENCODERS, Brightness, losses, run_and_kill


def test_it_learns_and_its_model_loads(fit_config, fit_data):
    config = replace(
        fit_config,
        epochs=25,
        feature_noise=0.0,
        learning_rate=2e-2,
        lora_learning_rate=3e-3,
        save_steps=None,
    )
    result = fit.main(config)
    assert result.steps == 25 * 4 and result.resumed_from is None
    logged = losses(config.output_dir)
    assert logged[-1] < 0.7 * logged[0]
    for name in ("technical", "motion", "semantic"):
        assert result.metrics[f"valid_plcc_{name}"] > 0.9
    assert "valid_srocc_overall" not in result.metrics  # nobody rated it
    assert result.metrics["srocc"] == pytest.approx(
        np.mean(
            [result.metrics[f"valid_srocc_{name}"] for name in ("technical", "motion", "semantic")]
        )
    )

    # what was measured is what the saved folder gives, from the cache and from the video files
    rows = read_training_manifest(fit_data / "valid.jsonl")
    absent = replace(rows[0], video="absent.mp4")
    cached = predict(result.model, [absent, *rows], FeatureCache(config.cache_dir), progress=False)
    assert np.isnan(cached[0]).all()

    model = AIGVEvalModel.from_pretrained(result.model)
    processor = AIGVEvalProcessor.from_pretrained(result.model)
    model.load_encoders(processor.encoders)
    prompts = [row.prompt for row in rows]
    views = [processor.encode_video(row.video) for row in rows]
    views = {name: torch.stack([view[name] for view in views]) for name in views[0]}
    batch = processor.encode_prompts(prompts)
    scores = model.score(**batch, features=model.encode(views, prompts)).scores
    assert np.allclose(cached[1:], scores.numpy(), atol=1e-5)
    part = Part(path="", name="valid", rows=rows)
    rated = QualityDataset([rows], dict.fromkeys([r.video for r in rows], ""), [], None)
    labels = np.array([[*row.scores, 1.0, -1, 0, i] for i, row in enumerate(rows)], np.float32)
    again = ValidationMetrics([part], rated)(_prediction(scores.numpy(), labels))
    assert again == pytest.approx(result.metrics, abs=1e-6)

    kept = load_file(result.model / "model.safetensors")
    assert all(".projectors." in key or ".lora_" in key for key in kept)


def _prediction(predictions, labels):
    from transformers import EvalPrediction

    return EvalPrediction(predictions=predictions, label_ids=labels)


@pytest.mark.parametrize("grad_accum, steps", [(1, 8), (2, 5)])
def test_resumed_equals_uninterrupted(fit_config, tmp_path, monkeypatch, grad_accum, steps):
    config = replace(fit_config, grad_accum=grad_accum, group_batches=True, group_size=3)
    whole = fit.main(config)

    cut = replace(config, output_dir=str(tmp_path / "cut"))
    run_and_kill(cut, monkeypatch, step=steps)
    # a checkpoint that the kill left unfinished must not count
    unfinished = Path(cut.output_dir) / "checkpoint-999"
    unfinished.mkdir()
    (unfinished / "trainer_state.json").write_text('{"global_step": 9')
    torch.rand(7)  # another process has another random state

    result = fit.main(cut)
    assert result.resumed_from is not None and result.resumed_from.name != "checkpoint-999"
    assert 0 < int(result.resumed_from.name[11:]) < steps
    assert result.steps == whole.steps
    assert result.metrics == whole.metrics
    left, right = (load_file(r.model / "model.safetensors") for r in (whole, result))
    assert left.keys() == right.keys()
    for key, value in left.items():
        assert torch.equal(value, right[key]), key
    last = sorted(Path(config.output_dir).glob("checkpoint-*"), key=lambda p: int(p.name[11:]))[-1]
    twin = Path(cut.output_dir) / last.name
    left, right = (torch.load(folder / "optimizer.pt")["state"] for folder in (last, twin))
    for key, state in left.items():
        assert torch.equal(state["exp_avg_sq"], right[key]["exp_avg_sq"])


@pytest.mark.parametrize("name", ["optimizer.pt", "rng_state.pth", "model.safetensors"])
def test_a_damaged_file_of_a_checkpoint_is_named(fit_config, name):
    config = replace(fit_config, epochs=1)
    fit.main(config)
    path = Path(config.output_dir, "checkpoint-4", name)
    whole = path.read_bytes()
    middle = len(whole) // 2
    for damaged in (b"", whole[:middle], whole[: middle - 50] + bytes(100) + whole[middle + 50 :]):
        if path.suffix == ".safetensors" and len(damaged) == len(whole):
            continue  # it has no checksums
        path.write_bytes(damaged)
        with pytest.raises(FitError) as error:
            fit.main(config)
        assert str(error.value) == (
            f"{path} is damaged; remove checkpoint-4, and the run goes on from the checkpoint "
            "before it, if there is one"
        )
    if path.suffix != ".safetensors":
        kind = whole.rindex(b"PK\1\2") + 10  # of compression, in a zip
        path.write_bytes(whole[:kind] + b"\x63\0" + whole[kind + 2 :])
        with pytest.raises(FitError, match="is damaged; remove checkpoint-4"):
            fit.main(config)
        path.unlink()
        path.mkdir()
        with pytest.raises(FitError, match=f"^{re.escape(str(path))}: cannot be read: Is a dir"):
            fit.main(config)


def test_a_finished_run_is_not_trained_again(fit_config, capfd):
    config = replace(fit_config, epochs=1)
    first = fit.main(config)
    again = fit.main(config)
    assert again.steps == first.steps and again.metrics == first.metrics
    assert "Going on from step 4" in capfd.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"learning_rate": math.inf}, "the training has diverged: the loss is nan; take a lower"),
        ({"align_epochs": 2, "align_learning_rate": 1e30}, "align_epochs has diverged"),
    ],
)
def test_a_training_that_diverges_ends_and_leaves_no_model(fit_config, options, message):
    config = replace(fit_config, save_steps=None, **options)
    with pytest.raises(FitError, match=message):
        fit.main(config)
    assert not Path(config.output_dir, "model").exists()


@pytest.mark.parametrize("ema", [None, 0.9])
def test_a_run_that_max_steps_ended_within_an_epoch_takes_no_further_step(fit_config, ema):
    config = replace(fit_config, max_steps=2, ema=ema, valid=[], save_steps=None)
    first = fit.main(config)
    trained = load_file(first.model / "model.safetensors")
    again = fit.main(config)
    assert again.steps == first.steps == 2
    for key, value in load_file(again.model / "model.safetensors").items():
        assert torch.equal(value, trained[key]), key


@pytest.mark.parametrize("ema", [None, 0.9])
def test_a_finished_run_that_was_moved_keeps_its_best_model(fit_config, tmp_path, monkeypatch, ema):
    values = iter([0.2, 0.1])
    measure = ValidationMetrics.__call__
    monkeypatch.setattr(
        ValidationMetrics, "__call__", lambda *found: measure(*found) | {"srocc": next(values)}
    )
    config = replace(fit_config, epochs=2, ema=ema)
    first = fit.main(config)
    best = load_file(first.model / "model.safetensors")
    moved = Path(config.output_dir).rename(tmp_path / "moved")
    again = fit.main(replace(config, output_dir=str(moved)))
    assert again.metrics == first.metrics and again.metrics["srocc"] == 0.2
    for key, value in load_file(again.model / "model.safetensors").items():
        assert torch.equal(value, best[key]), key


def test_a_run_starts_from_the_feature_cache(fit_config, monkeypatch, capfd):
    """What another run has encoded is not decoded again."""
    first = fit.main(replace(fit_config, epochs=1))

    def preprocess(self, frames, *, seed=0):
        raise AssertionError("decoded again")

    monkeypatch.setattr(Brightness, "preprocess", preprocess)
    again = fit.main(replace(fit_config, epochs=1, output_dir=fit_config.output_dir + "-again"))
    assert "0 of them newly encoded" in capfd.readouterr().err
    assert again.metrics == first.metrics


def test_scores_on_another_scale_train_the_same(fit_config, fit_data, tmp_path, capfd):
    config = replace(fit_config, max_steps=2, valid=[], save_steps=None)
    fit.main(config)
    rows = []
    for line in (fit_data / "train.jsonl").read_text().splitlines():
        row = json.loads(line)
        for name in ("technical", "motion", "semantic"):
            if row[name] is not None:
                row[name] = 25 * (row[name] - 1)
        rows.append(json.dumps(row | {"video": str(fit_data / row["video"])}) + "\n")
    (tmp_path / "percent.jsonl").write_text("".join(rows))
    percent = replace(
        config,
        train=[str(tmp_path / "percent.jsonl")],
        scale="0:100",
        output_dir=config.output_dir + "-percent",
    )
    told = "Ratings on 0-100 count as 1-5, the scale of the model's scores"
    assert told not in capfd.readouterr().err
    fit.main(percent)
    assert told in capfd.readouterr().err
    assert losses(percent.output_dir) == pytest.approx(losses(config.output_dir), abs=1e-5)


def test_another_run_in_the_same_folder_is_refused(fit_config):
    fit.main(replace(fit_config, epochs=1))
    with pytest.raises(FitError) as error:
        fit.main(replace(fit_config, epochs=1, learning_rate=1e-4, seed=5, save_steps=7))
    assert str(error.value) == (
        f"{fit_config.output_dir} holds checkpoints of a run with other learning_rate, seed; "
        "choose another output_dir, or remove it to start over"
    )


def test_a_folder_that_cannot_be_written_is_told_before_videos_are_encoded(
    fit_config, tmp_path, monkeypatch
):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(fit, "_encode", lambda *_: pytest.fail("encodes"))
    with pytest.raises(FitError) as error:
        fit.main(replace(fit_config, output_dir=str(tmp_path / "file")))
    assert str(error.value) == f"{tmp_path / 'file'}: cannot be written: File exists"


def test_a_clip_that_is_trained_on_and_validated_on_is_told(fit_config, fit_data, tmp_path, capfd):
    fit.main(replace(fit_config, epochs=1))
    assert "trained on too" not in capfd.readouterr().err
    rows = list(map(json.loads, (fit_data / "valid.jsonl").read_text().splitlines()))
    for row in rows:
        row["video"] = str(fit_data / row["video"])
    copied = shutil.copy(fit_data / "videos/1.mp4", tmp_path / "copied.mp4")
    rows.append({**rows[0], "video": str(copied), "prompt": "another"})
    leaking = tmp_path / "valid.jsonl"
    leaking.write_text("".join(json.dumps(row) + "\n" for row in rows))
    fit.main(replace(fit_config, epochs=1, valid=[str(leaking)], output_dir=str(tmp_path / "leak")))
    assert (
        f"1 of 7 validation videos are trained on too, such as {copied}: what is "
        "measured on them is too good\n"
    ) in capfd.readouterr().err


def test_a_trained_model_can_be_the_base(fit_config, tmp_path):
    first = fit.main(replace(fit_config, epochs=1))
    fresh = FitConfig(
        train=fit_config.train,
        output_dir=str(tmp_path / "more"),
        cache_dir=fit_config.cache_dir,
        base=str(first.model),
        epochs=1,
        batch_size=6,
        learning_rate=1e-12,
        lora_learning_rate=0.0,
        weight_decay=0.0,
        device="cpu",
    )
    second = fit.main(fresh)  # without validation, and nearly without learning
    assert second.metrics == {}
    left, right = (load_file(r.model / "model.safetensors") for r in (first, second))
    for key, value in left.items():
        assert torch.allclose(value, right[key], atol=1e-9), key
    with pytest.raises(FitError, match="llm comes with the base model; leave it out"):
        replace(fresh, llm="other")


def test_whether_it_beats_its_base_is_said_in_one_line(fit_config, tmp_path, capfd):
    first = fit.main(replace(fit_config, epochs=1))
    assert "against" not in capfd.readouterr().err
    fit.main(
        FitConfig(
            train=fit_config.train,
            valid=fit_config.valid,
            cache_dir=fit_config.cache_dir,
            batch_size=fit_config.batch_size,
            output_dir=str(tmp_path / "more"),
            base=str(first.model),
            epochs=1,
            learning_rate=1e-12,
            lora_learning_rate=0.0,
            weight_decay=0.0,
            device="cpu",
        )
    )
    (line,) = [x for x in capfd.readouterr().err.splitlines() if " against " in x]
    assert line.startswith(f"technical against {first.model} on ")
    assert line.endswith("difference +0.00 [+0.00, +0.00]: not certain to differ")


def test_bad_videos_are_left_out(fit_config, fit_data, tmp_path, capfd):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"nothing")
    rows = (fit_data / "train.jsonl").read_text().splitlines()[:6]
    rows = [row.replace("videos/", f"{fit_data}/videos/") for row in rows]
    manifest = tmp_path / "some.jsonl"
    bad = json.dumps({"video": "broken.mp4", "technical": 2.0})
    manifest.write_text("\n".join([*rows, bad]))
    fit.main(replace(fit_config, train=[str(manifest)], epochs=1))
    said = capfd.readouterr().err
    assert "1 videos can't be used" in said and "broken.mp4" in said
    assert "Training on 6 rows" in said

    manifest.write_text(bad)
    with pytest.raises(FitError, match="none of its 1 videos can be used"):
        fit.main(replace(fit_config, train=[str(manifest)], output_dir=str(tmp_path / "none")))
    assert "broken.mp4: not a readable video" in capfd.readouterr().err


def _dataset(fit_data, **options) -> QualityDataset:
    rows = [read_training_manifest(fit_data / "train.jsonl")]
    cache, encoders = FeatureCache(fit_data / "cache"), [make() for make in ENCODERS.values()]
    digests = extract([row.video for row in rows[0]], encoders, cache, progress=False).digests
    return QualityDataset(rows, digests, encoders, cache, **options)


def test_feature_stats_are_those_of_all_tokens(fit_data):
    dataset = _dataset(fit_data)
    stats = build.feature_stats(dataset)
    for position, (mean, std) in enumerate(stats):
        parts = [dataset.tokens(i, row.prompt)[position] for i, row in enumerate(dataset.rows)]
        tokens = torch.cat(parts).double()
        assert torch.allclose(mean.double(), tokens.mean(0), atol=1e-4)
        assert torch.allclose(std.double(), tokens.std(0, correction=0), atol=1e-4)


def test_prompts_are_swapped_and_dropped_as_asked(fit_data):
    dataset = _dataset(fit_data, mismatch_probability=0.3, prompt_dropout=0.2, seed=3)
    kinds = {"own": 0, "wrong": 0, "none": 0}
    for epoch in range(40):
        for i, row in enumerate(dataset.rows):
            item = dataset[epoch, i]
            assert np.array_equal(item["scores"], dataset[epoch, i]["scores"], equal_nan=True)
            technical, motion, semantic, overall = item["scores"]
            assert technical == row.scores[0]
            assert motion == row.scores[1] or math.isnan(motion) and math.isnan(row.scores[1])
            if item["prompt"] is None:
                kinds["none"] += 1
                assert math.isnan(semantic) and math.isnan(overall)
            elif item["prompt"] == row.prompt:
                kinds["own"] += 1
                assert semantic == row.scores[2]
            else:
                kinds["wrong"] += 1
                assert 1.0 <= semantic <= 1.5 and math.isnan(overall)
                group = dataset.groups[i]
                of_group = {r.prompt for r, g in zip(dataset.rows, dataset.groups) if g == group}
                assert item["prompt"] not in of_group
    total = sum(kinds.values())
    assert kinds["none"] / total == pytest.approx(0.2, abs=0.05)
    # some rows have no wrong prompt, because their group has all of the four
    assert 0.1 < kinds["wrong"] / total < 0.35
    plain = dataset[3]  # as validation sees it
    assert plain["prompt"] == dataset.rows[3].prompt


@pytest.mark.parametrize("group_size", [1, 4])
def test_an_epoch_has_every_row_once(group_size):
    groups = [0] * 9 + [1] * 4 + [2] * 3 + [-1] * 7 + [3] * 17
    sampler = EpochSampler(groups, batch_size=8, group_size=group_size, seed=1)
    orders = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        keys = list(sampler)
        assert {key[0] for key in keys} == {epoch} and len(keys) == len(sampler)
        assert sorted(key[1] for key in keys) == list(range(len(groups)))
        assert keys == list(sampler)
        orders.append([key[1] for key in keys])
    assert orders[0] != orders[1] != orders[2]


def test_groups_stay_together():
    groups = [number for number in range(40) for _ in range(6)]
    pairs = {}
    for group_size in (1, 6):
        order = [i for _, i in EpochSampler(groups, batch_size=16, group_size=group_size)]
        batches = [order[i : i + 16] for i in range(0, len(order), 16)]
        pairs[group_size] = sum(
            groups[a] == groups[b] for batch in batches for a in batch for b in batch if a < b
        )
    assert pairs[6] > 0.75 * 40 * 15 > 5 * pairs[1]


def test_the_manifest_forms_agree(tmp_path):
    rows = [
        {
            "video": "a.mp4",
            "prompt": " a dog ",
            "technical": 2.5,
            "motion": None,
            "group": "x",
            "semantic": 4,
            "weight": 0.5,
            "notes": "ignored",
        },
        {"video": "/b.mp4", "prompt": "", "overall": 3},
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    names = ["video", "prompt", "technical", "motion", "semantic", "overall", "group", "weight"]
    with open(tmp_path / "m.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    first, second = read_training_manifest(tmp_path / "m.jsonl")
    assert (first.video, first.prompt) == (str(tmp_path / "a.mp4"), " a dog ")
    assert first.scores[0] == 2.5 and math.isnan(first.scores[1]) and first.scores[2] == 4
    assert (first.group, first.weight) == ("x", 0.5)
    assert (second.video, second.prompt, second.group, second.weight) == ("/b.mp4", None, None, 1)
    assert repr(read_training_manifest(tmp_path / "m.csv")) == repr([first, second])


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("m.jsonl", '{"video": "a", "motion": 2}\n{"prompt"', ": row 2 is not JSON: Exp"),
        ("m.jsonl", "[1]", ": row 1 is not an object: [1]"),
        ("m.jsonl", '{"motion": 2}', ": row 1 has no 'video' (or path, "),
        ("m.jsonl", '{"video": "a", "motion": 7}', ": row 1: motion must lie in 1-5, got 7"),
        ("m.jsonl", '{"video": "a", "motion": true}', ": row 1: motion must be a number, got True"),
        ("m.csv", "video,motion\na,good\n", ": row 2: motion must be a number, got 'good'"),
        ("m.csv", "video,motion\na,\n", ": row 2: none of technical, motion, semantic, overall"),
        ("m.jsonl", '{"video": "a", "semantic": 2}', ": row 1: a semantic score needs a prompt"),
        ("m.jsonl", '{"video": "a", "motion": 2, "weight": 0}', ": row 1: weight must be above 0"),
        ("m.csv", "video,motion\n", ": holds no rows"),
        ("m.txt", "x", ": a manifest is one of .json, .jsonl, .csv, .parquet"),
    ],
)
def test_manifest_errors_name_the_line(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ManifestError) as error:
        read_training_manifest(tmp_path / name)
    assert str(error.value).startswith(f"{tmp_path / name}{message}")
    with pytest.raises(ManifestError, match="No such file"):
        read_training_manifest(tmp_path / "absent.jsonl")


def test_what_goes_on_from_a_merged_model_finds_its_llm(fit_config, fit_llm, tmp_path):
    """The LLM's own folder is on another machine; a published config has but its name."""
    llm = tmp_path / "llm"
    shutil.copytree(fit_llm, llm)
    config = replace(fit_config, llm=str(llm), epochs=1, save_steps=None)
    merged = tmp_path / "merged"
    AIGVEvalModel.from_pretrained(fit.main(config).model).save_pretrained(merged, merge=True)
    shutil.rmtree(llm)
    saved = json.loads((merged / "config.json").read_text())
    (merged / "config.json").write_text(json.dumps({**saved, "llm": "llm"}))
    names = ("llm", "encoders", "lora", "projector_hidden")
    own = {name: default_of(name) for name in names}  # come with the base
    output = str(tmp_path / "on")
    result = fit.main(replace(config, base=str(merged), output_dir=output, **own))
    AIGVEvalModel.from_pretrained(result.model)
