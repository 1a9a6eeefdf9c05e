"""Preference pairs: how they become rows, batches and a loss, and that a model learns them."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from transformers import EvalPrediction

from aigveval.data.preference_pairs import PreferencePair, read_pairs
from aigveval.features.cache import FeatureCache, extract
from aigveval.train import fit, losses
from aigveval.train.config import FitError
from aigveval.train.dataset import (
    PADDING,
    PAIR,
    PREFERENCES,
    ROW,
    WEIGHT,
    Collator,
    EpochSampler,
    QualityDataset,
)
from aigveval.train.predict import predict
from aigveval.train.rows import Part, read_training_manifest
from aigveval.train.validation import ValidationMetrics, metric_lines
from prompts import SCORES

from ..fit_case import ENCODERS, history

SEMANTIC = SCORES.index("semantic")


def dataset(folder, **options) -> QualityDataset:
    rows, pairs = read_training_manifest(folder / "train.jsonl"), read_pairs(folder / "pairs.jsonl")
    cache, encoders = FeatureCache(folder / "cache"), [make() for make in ENCODERS.values()]
    digests = extract([row.video for row in rows], encoders, cache, progress=False).digests
    return QualityDataset([rows], digests, encoders, cache, pairs=pairs, **options)


# ---- the loss ----


def likelihood(a: float, b: float, *, scale: float, tie: float) -> tuple[float, float, float]:
    """Rao and Kupper's probabilities that a wins, b wins, neither, by their definition."""
    x, y = math.exp(scale * a), math.exp(scale * b)
    won, lost = x / (x + tie * y), y / (y + tie * x)
    same = (tie**2 - 1) * x * y / ((x + tie * y) * (y + tie * x))
    assert won + lost + same == pytest.approx(1.0)
    return won, lost, same


@pytest.mark.parametrize("a, b", [(3.0, 3.0), (4.2, 1.1), (1.5, 2.0)])
@pytest.mark.parametrize("scale, tie", [(2.0, 5.0), (0.5, 1.5)])
def test_pair_loss_is_bradley_terry_with_ties(a, b, scale, tie):
    scores = torch.tensor([a], dtype=torch.float64), torch.tensor([b], dtype=torch.float64)
    for preference, expected in zip((1.0, -1.0, 0.0), likelihood(a, b, scale=scale, tie=tie)):
        loss = losses.pair_loss(*scores, torch.tensor([preference]), scale=scale, tie=tie)
        assert float(loss) == pytest.approx(-math.log(expected))


def test_unknown_preferences_and_weights():
    first, second = torch.tensor([[4.0, 2.0]]), torch.tensor([[1.0, 2.5]])
    first.requires_grad_()
    some = torch.tensor([[1.0, math.nan]])
    loss = losses.pair_loss(first, second, some)
    alone = losses.pair_loss(first[0, :1], second[0, :1], torch.tensor([1.0]))
    assert loss.item() == pytest.approx(alone.item())
    loss.backward()
    assert first.grad[0, 0] < 0 and first.grad[0, 1] == 0  # better still is better
    none = losses.pair_loss(first, second, torch.full((1, 2), math.nan))
    assert none.item() == 0 and none.requires_grad
    both = torch.tensor([[1.0, 1.0]])
    single = [losses.pair_loss(first[0, i], second[0, i], both[0, i]).item() for i in (0, 1)]
    weighted = losses.pair_loss(first, second, both, torch.tensor([[3.0, 1.0]]))
    assert weighted.item() == pytest.approx((3 * single[0] + single[1]) / 4)


def test_a_pair_is_two_neighbours_and_the_rest_is_left_alone():
    logits = torch.randn(6, 4, 5, generator=torch.Generator().manual_seed(0))
    numbers = torch.tensor([-1, 7, 7, 3, 3, 9])  # 9 has lost its other side
    preferences = torch.full((6, 4), math.nan)
    preferences[1:3, 0], preferences[3:5, 2], preferences[5, 1] = 1.0, -1.0, 1.0
    found = losses.preference_loss(logits, numbers, preferences, torch.ones(6), scale=2.0, tie=5.0)
    scores = losses.score_levels(logits)[0]
    parts = [
        losses.pair_loss(scores[1, 0], scores[2, 0], torch.tensor(1.0)),
        losses.pair_loss(scores[3, 2], scores[4, 2], torch.tensor(-1.0)),
    ]
    assert float(found) == pytest.approx(float(sum(parts)) / 2)


# ---- rows and batches ----


def test_sides_of_a_pair_are_rows_without_scores(fit_data):
    data = dataset(fit_data)
    assert data.pairs_from == 24 and len(data) == 24 + 2 * 20
    for number, pair in enumerate(data.pairs):
        first, second = data[24 + 2 * number], data[25 + 2 * number]
        videos = [data.rows[item["row"]].video for item in (first, second)]
        assert videos == [pair.video_a, pair.video_b]
        for item in (first, second):
            assert item["prompt"] == pair.prompt and np.isnan(item["scores"]).all()
            signs = {"A": 1.0, "B": -1.0, "same": 0.0, None: math.nan}
            expected = [signs[preference] for preference in pair.preferences]
            assert np.array_equal(item["preferences"], expected, equal_nan=True)
            assert item["pair"] == number
    assert data[3]["pair"] == -1 and np.isnan(data[3]["preferences"]).all()


def test_a_pair_with_a_wrong_prompt_prefers_the_right_one(fit_data):
    data = dataset(fit_data, mismatch_probability=0.4, prompt_dropout=0.2, seed=1)
    kinds = {"own": 0, "wrong": 0, "none": 0}
    for epoch in range(20):
        for number, pair in enumerate(data.pairs):
            first, second = (data[epoch, 24 + 2 * number + side] for side in (0, 1))
            assert np.array_equal(first["preferences"], second["preferences"], equal_nan=True)
            preferences = first["preferences"]
            if first["prompt"] is None:
                kinds["none"] += 1
                assert second["prompt"] is None and math.isnan(preferences[SEMANTIC])
                assert preferences[0] == {"A": 1, "B": -1, "same": 0}[pair.preferences[0]]
            elif second["prompt"] == pair.prompt:
                kinds["own"] += 1
            else:
                kinds["wrong"] += 1
                assert first["prompt"] == pair.prompt
                assert preferences[SEMANTIC] == 1.0 and np.isnan(np.delete(preferences, 2)).all()
                own = data.tokens(24 + 2 * number, pair.prompt)
                for token, same in zip(second["tokens"][:2], own):  # these encoders don't read
                    assert torch.equal(token, same)
    total = sum(kinds.values())
    assert kinds["wrong"] / total == pytest.approx(0.4, abs=0.08)
    assert kinds["none"] / total == pytest.approx(0.2, abs=0.06)


def test_nothing_is_swapped_where_alignment_was_not_judged(fit_data):
    data = dataset(fit_data)
    rows = [replace(row, scores=(3.0, *row.scores[1:2], math.nan, math.nan)) for row in data.rows]
    known = [pair.preferences[0] or "A" for pair in data.pairs]
    pairs = [replace(p, preferences=(k, None, None, None)) for p, k in zip(data.pairs, known)]
    plain = QualityDataset(
        [rows[:24]], data.digests, data.encoders, data.cache, pairs=pairs, mismatch_probability=0.9
    )
    for index, row in enumerate(plain.rows):
        assert all(plain[epoch, index]["prompt"] == row.prompt for epoch in range(5))


@pytest.mark.parametrize("singles", [24, 23, 0])
def test_pairs_stay_side_by_side_in_every_batch(singles):
    groups = [-1] * (singles + 40)
    orders = []
    for epoch in range(3):
        sampler = EpochSampler(groups, batch_size=6, pairs_from=singles, multiple_of=6, seed=2)
        sampler.set_epoch(epoch)
        order = [index for _, index in sampler]
        orders.append(order)
        assert len(order) == len(sampler) == 6 * math.ceil(len(groups) / 6)
        assert sorted(i for i in order if i != PADDING) == list(range(len(groups)))
        for start in range(0, len(order), 6):
            batch = order[start : start + 6]
            for place, index in enumerate(batch):
                if index >= singles and (index - singles) % 2 == 0:
                    assert batch[place + 1] == index + 1
    assert orders[0] != orders[1]


def test_padding_counts_for_nothing(fit_data):
    data = dataset(fit_data)
    collate = Collator(encode_prompts=lambda prompts: {})
    labels = collate([data[0, 1], data[0, 24], data[0, 25], data[0, PADDING]])["labels"]
    assert labels[:, WEIGHT].tolist() == [1, 1, 1, 0]
    assert labels[:, PAIR].tolist() == [-1, 0, 0, -1]
    assert labels[:, ROW].tolist() == [1, 24, 25, 0]
    assert labels[3, : len(SCORES)].isnan().all()
    assert labels[1, PREFERENCES].tolist()[0] in (-1, 0, 1)


# ---- validation ----


def prediction(scores, rows, weight=None) -> EvalPrediction:
    labels = np.zeros((len(rows), 13), np.float32)
    labels[:, ROW], labels[:, WEIGHT] = rows, 1.0 if weight is None else weight
    return EvalPrediction(predictions=np.array(scores, np.float32), label_ids=labels)


def pair(a, b, *preferences) -> PreferencePair:
    return PreferencePair(video_a=a, video_b=b, prompt="p", preferences=preferences)


def test_accuracy_is_the_share_of_preferred_videos_that_score_higher():
    pairs = [
        pair("x", "y", "A", None, None, "A"),
        pair("y", "z", "B", None, None, "same"),
        pair("x", "z", "B", None, None, "A"),
        pair("z", "w", "A", "same", None, None),
    ]
    part = Part(path="", name="p", pairs=pairs)
    clips = part.clips
    assert sorted(clip.video for clip in clips) == ["w", "x", "y", "z"]  # each once
    data = QualityDataset([clips], dict.fromkeys("wxyz", ""), [], None)
    metrics = ValidationMetrics([part], data)
    assert metrics.defined == ["p_accuracy_overall", "p_accuracy_technical"]
    assert metrics.main == "accuracy"
    value = {"w": 1.0, "x": 4.0, "y": 2.0, "z": 3.0}
    scores = [[value[clip.video]] * 4 for clip in clips]
    found = metrics(prediction(scores, range(4)))
    # x > y right, y < z right, x < z wrong, z > w right; overall x > y and x > z
    assert found == pytest.approx(
        {
            "accuracy": (0.75 + 1.0) / 2,
            "p_accuracy_technical": 0.75,
            "p_accuracy_overall": 1.0,
        }
    )
    assert metric_lines(found, ["p"]) == ["  p  accuracy  technical 0.750   overall 1.000"]
    flat = metrics(prediction([[3.0] * 4] * 4, range(4)))
    assert flat["p_accuracy_technical"] == 0.5
    # x's file could not be read: its pairs are not counted
    weight = [float(clip.video != "x") for clip in clips]
    found = metrics(prediction(scores, range(4), weight))
    assert found == {"accuracy": 1.0, "p_accuracy_technical": 1.0}


def test_what_nobody_looks_at_is_not_asked_for():
    part = Part(
        path="",
        name="p",
        pairs=[pair("x", "y", "A", None, "A", None), pair("x", "y", "B", None, None, None)],
    )
    left = part.usable(dict.fromkeys("xy", ""), unscored=["technical"])
    assert left.pairs == [pair("x", "y", None, None, "A", None)]


# ---- end to end ----


def test_a_model_learns_from_pairs_alone(fit_config, fit_data, capfd):
    """The brighter clip was preferred: accuracy on the pairs, and order of clips never rated."""
    pairs = str(fit_data / "pairs.jsonl")
    config = replace(
        fit_config,
        train=[pairs],
        valid=[pairs],
        batch_size=10,
        epochs=14,
        feature_noise=0.0,
        loss={"pair": 1.0},
        lora_learning_rate=1e-2,
        mismatch_probability=0.1,
        prompt_dropout=0.0,
        save_steps=None,
    )
    result = fit.main(config)
    assert result.metrics["pairs_accuracy_technical"] > 0.9
    rows = read_training_manifest(fit_config.valid[0])
    rows = [replace(row, prompt="a scene of kind 1") for row in rows]  # as pairs have
    scores = predict(result.model, rows, FeatureCache(config.cache_dir), progress=False)
    assert spearmanr(scores[:, 0], [row.scores[0] for row in rows]).statistic > 0.5
    logged = [entry["loss"] for entry in history(config.output_dir) if "loss" in entry]
    assert np.mean(logged[-4:]) < 0.8 * np.mean(logged[:4])
    said = capfd.readouterr().err
    assert "40 of them are preference pairs" in said
    assert "  pairs  accuracy  technical " in said


def test_pairs_alone_can_choose_the_best_model(fit_config, fit_data, capfd):
    pairs = str(fit_data / "pairs.jsonl")
    config = replace(
        fit_config, train=[pairs], valid=[pairs], loss={"pair": 1.0}, epochs=2, early_stop=1
    )
    result = fit.main(config)
    assert set(result.metrics) == {
        "accuracy",
        "pairs_accuracy_technical",
        "pairs_accuracy_semantic",
    }
    assert "Best mean accuracy" in capfd.readouterr().err


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"loss": {"plcc": 1.0}},
            "there are preference pairs, but the loss has no weight for pair",
        ),
        (
            {"align_epochs": 1},
            "align_epochs needs rated clips, and there are preference pairs alone",
        ),
        ({"batch_size": 5}, "batch_size must be even with preference pairs, got 5"),
        ({"group_batches": True}, "group_batches can't be combined with preference pairs"),
    ],
)
def test_what_pairs_do_not_go_with(fit_config, fit_data, options, message):
    config = replace(fit_config, train=[str(fit_data / "pairs.jsonl")])
    with pytest.raises(FitError) as error:
        fit.main(replace(config, **options))
    assert str(error.value) == message


def test_pairs_of_videos_that_cannot_be_read_are_left_out(fit_config, fit_data, tmp_path, capfd):
    rows = (fit_data / "pairs.jsonl").read_text().splitlines()[:6]
    rows = [row.replace("videos/", f"{fit_data}/videos/") for row in rows]
    gone = json.loads(rows[0]) | {"video_b": "gone.mp4"}
    manifest = tmp_path / "some.jsonl"
    manifest.write_text("\n".join([*rows, json.dumps(gone)]))
    fit.main(replace(fit_config, train=[str(manifest)], epochs=1))
    said = capfd.readouterr().err
    assert "gone.mp4: no such file" in said and "Training on 6 rows" in said
    manifest.write_text(json.dumps(gone))
    with pytest.raises(FitError, match="none of its 1 pairs can be used"):
        fit.main(replace(fit_config, train=[str(manifest)], output_dir=str(tmp_path / "none")))
