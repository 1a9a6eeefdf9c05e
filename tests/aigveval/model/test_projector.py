"""Projectors: what becomes of the encoders' tokens before the LLM reads them."""

import math

import pytest
import torch

from aigveval.model.projector import (
    FeatureProjector,
    bounded,
    mix_levels,
    pack_features,
    unpack_features,
)
from prompts import SCORES, level_distribution

from ..tiny_llm import make_batch, make_llm, make_model

PROMPTS = ["a cat on a roof in the rain", None, "dog", "two boats, one sun"]


@pytest.fixture(scope="module")
def batch():
    model, processor = make_model()
    return make_batch(processor, model.config, PROMPTS)


def test_pack_and_unpack():
    parts = [torch.randn(2, 3, 7), torch.randn(2, 4, 5), torch.randn(2, 2, 11)]
    packed = pack_features(parts)
    assert packed.shape == (2, 9, 11)
    assert packed[:, 3:7, 5:].abs().sum() == 0
    shapes = [tuple(part.shape[1:]) for part in parts]
    back = unpack_features(packed, shapes)
    assert all(torch.equal(a, b) for a, b in zip(parts, back, strict=True))


def projector(**options):
    torch.manual_seed(0)
    defaults = {"hidden": 64, "embedding_rms": 0.1, "clip": 10.0, "dropout": 0.0, "noise": 0.0}
    new = FeatureProjector(6, 20, 32, **{**defaults, **options})
    torch.nn.init.normal_(new.down.weight, std=0.1)
    return new


def test_a_new_projector_gives_positions_as_large_as_the_embeddings():
    new = projector(embedding_rms=0.1)
    torch.nn.init.zeros_(new.down.weight)
    embeddings, *points = new(torch.randn(50, 6, 20))
    assert torch.equal(embeddings, new.position.expand(50, -1, -1))
    for part in points:
        assert part.shape == (50, 6, len(SCORES)) and not part.any()
    assert new.position.square().mean().sqrt().item() == pytest.approx(0.1, rel=0.15)


def test_standardisation_and_clip():
    mean, std = torch.arange(20.0), torch.full((20,), 2.0)
    std[3] = 0.0  # a constant feature
    plain, standardised = projector(), projector()
    standardised.set_stats(mean, std)
    z = torch.randn(4, 6, 20)
    assert standardised.std[3] == 1
    torch.testing.assert_close(
        standardised(z * standardised.std + mean), plain(z), atol=1e-5, rtol=1e-5
    )
    freak = torch.full((1, 6, 20), 1e6)
    torch.testing.assert_close(plain(freak), plain(torch.full((1, 6, 20), 10.0)))


def test_a_probe_adds_exactly_what_it_says():
    new = projector()
    weight, bias = torch.randn(len(SCORES), 20), torch.arange(4.0)
    tokens = torch.randn(3, 6, 20)
    before = sum(new(tokens)[1:])
    new.set_stats(torch.full((20,), 0.5), torch.full((20,), 2.0))
    shifted = 0.5 + 2.0 * tokens
    new.set_probe(weight, bias)
    torch.testing.assert_close(
        sum(new(shifted)[1:]), before + tokens @ weight.T + bias, atol=1e-4, rtol=1e-4
    )


def test_what_is_learnt_of_damage_only_takes_points_off(batch, tmp_path):
    model, _ = make_model()
    backbone, features = model.model, batch["features"]
    backbone.learn_damage_only()
    for projector in backbone.projectors.values():
        projector.reset_parameters()
        projector.set_probe(torch.randn(projector.probe.shape) * 0.1, torch.full((4,), 0.2))
    with torch.no_grad():
        given = backbone.score_hints(features)
        for points, expected in ((2.0, 0.0), (-0.5, -1.5), (-1.0, -3.0)):
            for projector in backbone.projectors.values():
                projector.score_head.bias.fill_(points)
            taken = backbone.score_hints(features) - given
            # where nothing was learnt yet, the bend took off ln 2 of a tenth of a point
            taken -= 0.1 * math.log(2)
            torch.testing.assert_close(taken, torch.full_like(taken, expected), atol=1e-3, rtol=0)
        hints = backbone.score_hints(features)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path, llm=make_llm())
    assert again.config.damage_only
    assert torch.equal(again.model.score_hints(features), hints)


def test_what_a_clip_misses_of_its_prompt_counts_in_the_overall_score(batch, tmp_path):
    model, _ = make_model()
    backbone, features = model.model, batch["features"]
    backbone.learn_damage_only()
    semantic, overall = SCORES.index("semantic"), SCORES.index("overall")
    with torch.no_grad():
        for projector in backbone.projectors.values():
            projector.reset_parameters()
        before = backbone.score_hints(features)
        next(iter(backbone.projectors.values())).score_head.bias[semantic] = -3
        backbone.config.prompt_share = 0.5
        fallen = backbone.score_hints(features) - before
    expected = torch.zeros_like(fallen)
    expected[:, semantic], expected[:, overall] = -3, -1.5
    # from the bend, of new heads too
    torch.testing.assert_close(fallen, expected, atol=0.08, rtol=0)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path, llm=make_llm())
    assert torch.equal(again.model.score_hints(features), backbone.score_hints(features))


def test_the_mix_of_level_words():
    levels = torch.eye(5)
    mixed = mix_levels(torch.tensor([[-7.0, 1.5, 2.25], [4.5, 4.0, 99.0]]), levels)
    expected = torch.tensor(
        [
            [[1, 0, 0, 0, 0], [0.5, 0.5, 0, 0, 0], [0, 0.75, 0.25, 0, 0]],
            [[0, 0, 0, 0.5, 0.5], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1]],
        ]
    )
    torch.testing.assert_close(mixed, expected)
    middle = torch.tensor(3.0, requires_grad=True)  # where new projectors begin
    mix_levels(middle, levels)[3].backward()
    assert middle.grad == 1
    unknown = mix_levels(torch.tensor([math.nan, 2.0]), levels)
    assert unknown.isnan().all(1).tolist() == [True, False]
    for score in (1.5, 1.7, 3.0, 4.4):
        assert mix_levels(torch.tensor(score), levels).tolist() == pytest.approx(
            level_distribution(score), abs=1e-6
        )


def test_scores_beyond_the_scale_keep_their_order():
    scores = torch.linspace(-1, 7, 801, dtype=torch.float64, requires_grad=True)
    found = bounded(scores)
    found.sum().backward()
    inside = (scores >= 1.5) & (scores <= 4.5)
    torch.testing.assert_close(found[inside], scores[inside])
    assert (found.diff() > 0).all() and found[0] > 1 and found[-1] < 5
    assert (found - scores).diff().abs().max() < 0.01  # no jump
    assert (scores.grad > 0).all() and scores.grad[inside].tolist() == [1.0] * int(inside.sum())


def test_what_stands_in_the_placeholders(batch):
    """The features' embeddings with their own dimension's level, then the four score hints."""
    model, _ = make_model()
    plain, _ = make_model(score_hints=False)
    plain.load_state_dict(model.state_dict())
    features = batch["features"]
    with torch.no_grad():
        shown = model.model.project(features)
        score_hints = model.model.score_hints(features)
        difference = shown[:, :9] - plain.model.project(features)
        levels = model.get_input_embeddings().weight[model.config.level_token_ids]
        outputs = [
            project(part)
            for project, part in zip(
                model.model.projectors.values(),
                unpack_features(features, model.config.feature_shapes),
            )
        ]
    assert shown.shape == (len(features), 9 + len(SCORES), 32)
    assert score_hints.std() > 0.1
    torch.testing.assert_close(shown[:, 9:], mix_levels(score_hints, levels))
    column = SCORES.index("motion")  # tokens 3 to 6 are those of `flow`
    torch.testing.assert_close(
        difference[:, 3:7],
        mix_levels(3 + sum(outputs[1][1:])[..., column], levels),
        atol=1e-5,
        rtol=1e-4,
    )
    expected = 3 + sum((learnt + given).mean(1) for _, learnt, given in outputs)
    torch.testing.assert_close(score_hints, expected)


def test_feature_stats_by_name_or_dimension():
    model, _ = make_model()
    model.set_feature_stats("technical", torch.ones(11), torch.full((11,), 3.0))
    model.set_feature_stats("flow", torch.full((5,), 2.0), torch.ones(5))
    assert model.model.projectors["crisp"].std.tolist() == [3.0] * 11
    assert model.model.projectors["flow"].mean.tolist() == [2.0] * 5
    with pytest.raises(ValueError, match=r"expected one of \['look', 'flow', 'crisp'\], .*'blur'"):
        model.set_feature_stats("blur", torch.ones(11), torch.ones(11))
    with pytest.raises(ValueError, match=r"^std must be finite and of shape \(5,\), got \(7,\)$"):
        model.set_feature_stats("flow", torch.zeros(5), torch.ones(7))
    with pytest.raises(ValueError, match="^mean must be finite"):
        model.set_feature_stats("flow", torch.full((5,), math.nan), torch.ones(5))


def test_new_parts_are_where_the_projectors_are():
    """Not where the LLM is: in 4 bits it is on the GPU before all else goes there."""
    model, _ = make_model()
    model.model.language_model.to("meta")
    model.model.add_detector(["blur"])
    assert {value.device.type for value in model.model.detector.parameters()} == {"cpu"}


def test_dropout_takes_whole_encoders_and_only_in_training():
    drop = projector(dropout=0.5)
    tokens = torch.randn(400, 6, 20)
    (clean, *_), (empty, *_) = drop.eval()(tokens), drop(torch.zeros(1, 6, 20))
    dropped, *_ = drop.train()(tokens)
    is_empty = torch.isclose(dropped, empty).all(2).all(1)
    is_clean = torch.isclose(dropped, clean).all(2).all(1)
    assert (is_empty ^ is_clean).all()
    assert 0.4 < is_empty.float().mean() < 0.6


def test_noise_only_in_training(batch):
    model, _ = make_model(feature_noise=0.1, lora=None)
    quiet = model.score(**batch)[0]
    model.train()
    assert torch.equal(model.score(**batch)[0], quiet) and model.training
    assert not torch.allclose(model(**batch)[0], quiet)
