"""Intervals and familiarity: against numbers worked out by hand, and coverage on drawn errors."""

import math

import numpy as np
import pytest
import torch

from aigveval.model.base import name_scores
from aigveval.model.calibration import (
    Calibration,
    clip_vectors,
    distance,
    half_widths,
    left_out_distances,
    mixed,
)
from aigveval.model.modeling import AIGVEvalModel
from prompts.rubric import SCORES

from ..tiny_llm import make_batch, make_llm, make_model


def fitted(tokens, groups):
    calibration = Calibration(width=tokens.shape[1], clips=len(tokens), scores=4)
    calibration.fit(tokens, groups)
    calibration.known.copy_(torch.tensor([0.5, 0.6, 0.7, 0.4]))
    calibration.unknown.copy_(torch.tensor([1.5, 1.6, 1.7, 1.4]))
    return calibration


def drawn(count, *, seed):
    """Clips' vectors of width 12."""
    vectors = torch.randn(count, 12, generator=torch.Generator().manual_seed(seed))
    return vectors * 0.6 ** torch.arange(12)


@pytest.fixture(scope="module")
def tokens():
    return drawn(90, seed=0)


def test_distances_lie_where_the_vectors_do(tokens):
    groups = [str(n) for n in range(90)]
    with torch.device("meta"):  # stands for any other device
        found = left_out_distances(tokens, groups)
    assert torch.equal(found, left_out_distances(tokens, groups))


class TestFamiliarity:
    def test_clips_alike_are_familiar_and_others_are_not(self, tokens):
        calibration = fitted(tokens, [str(n // 3) for n in range(90)])
        familiar, _ = calibration(tokens.mean(0, keepdim=True))
        strange, widths = calibration(tokens[:1] + 50)
        assert familiar > 80 and strange == 0
        torch.testing.assert_close(widths, calibration.unknown[None])

    def test_a_new_prompts_clips_are_spread_over_all_percentiles(self, tokens):
        """Their familiarity is a percentile: its mean is 50, as far as chance allows."""
        fresh = drawn(400, seed=1)
        found, _ = fitted(tokens, [str(n) for n in range(90)])(fresh)
        assert 40 < found.mean() < 60 and (found < 25).float().mean() > 0.1

    def test_a_clip_is_not_compared_with_those_of_its_prompt(self):
        """Twins, of one prompt each: leaving only the clip itself out would give distances of 0."""
        half = torch.randn(20, 6, generator=torch.Generator().manual_seed(2))
        twins = torch.cat([half, half])
        calibration = fitted(twins, [str(n % 20) for n in range(40)])
        assert calibration.distances.min() > 0

    def test_intervals_widen_as_familiarity_falls(self, tokens):
        calibration = fitted(tokens, [str(n) for n in range(90)])
        steps = torch.linspace(1, 20, 30)[:, None] * torch.eye(12)[0]
        familiarity, widths = calibration(tokens.mean(0) + steps)
        assert (familiarity.diff() <= 0).all() and (widths.diff(dim=0) >= -1e-6).all()
        torch.testing.assert_close(calibration(tokens.mean(0)[None])[1][0], calibration.known)
        torch.testing.assert_close(widths[-1], calibration.unknown)

    def test_between_two_percentiles_they_are_a_mix(self, tokens):
        calibration = fitted(tokens, [str(n) for n in range(90)])
        familiarity, widths = calibration(drawn(400, seed=1))
        assert all(((low < familiarity) & (familiarity < low + 10)).any() for low in (0, 50, 85))
        share = ((familiarity - 40) / 40).clamp(0, 1)[:, None]
        mix = share * calibration.known + (1 - share) * calibration.unknown
        torch.testing.assert_close(widths, mix)

    def test_the_batch_changes_no_digit(self, tokens):
        calibration = fitted(tokens, [str(n) for n in range(90)])
        together = calibration(tokens)
        for number in (0, 41, 89):
            alone = calibration(tokens[number : number + 1])
            assert torch.equal(alone[0][0], together[0][number])
            assert torch.equal(alone[1][0], together[1][number])


def test_each_encoder_counts_the_same_however_wide():
    narrow, wide = torch.ones(1, 3, 2), torch.ones(1, 5, 200)
    vector = clip_vectors([narrow, wide])
    assert vector.shape == (1, 202)
    torch.testing.assert_close(vector[0, :2].norm(), vector[0, 2:].norm())


def half_width(errors):
    """Of clips that are all as familiar as can be; others are as far off."""
    known = errors, torch.full((len(errors),), 100.0)
    return half_widths(known, (errors, torch.zeros(len(errors))))[0]


class TestHalfWidths:
    def test_the_conformal_quantile(self):
        """Of nine errors, the eighth covers 80 %: (9 + 1) x 0.8."""
        errors = torch.arange(1.0, 10.0)[:, None]
        assert half_width(errors) == 8

    def test_of_too_few_the_largest(self):
        assert half_width(torch.tensor([[1.0], [3.0], [2.0]])) == 3

    def test_unknown_ones_are_left_out(self):
        errors = torch.tensor([[1.0, math.nan], [2.0, math.nan], [math.nan, math.nan]])
        found = half_width(errors)
        assert found[0] == 2 and found[1].isnan()

    def test_coverage_on_new_errors(self):
        rng = np.random.default_rng(0)
        covered = []
        for _ in range(300):
            errors = torch.from_numpy(np.abs(rng.normal(size=(40, 1))))
            covered.append(
                float(np.mean(np.abs(rng.normal(size=200)) <= float(half_width(errors))))
            )
        assert 0.79 <= np.mean(covered) <= 0.83

    def test_both_kinds_are_covered_whatever_mix_their_clips_get(self):
        """Clips of other data sets are often as familiar as some whose prompts were left out."""
        rng = np.random.default_rng(1)

        def drawn(scale, low, high):
            errors = scale * np.abs(rng.normal(size=(3000, 2)))
            familiarity = rng.uniform(low, high, 3000)
            return torch.from_numpy(errors), torch.from_numpy(familiarity)

        known, unknown = half_widths(drawn(1, 0, 100), drawn(1.5, 0, 70))
        assert (known < unknown).all()
        for scale, low, high in ((1, 0, 100), (1.5, 0, 70)):
            errors, familiarity = drawn(scale, low, high)
            inside = errors <= mixed(known, unknown, familiarity)
            assert inside.double().mean(0).sub(0.8).abs().max() < 0.03

    def test_errors_that_no_width_of_theirs_can_cover_make_it_no_wider_than_they_are(self):
        """As the clips of an other data set that all count as known, and are all wrong."""
        known = torch.ones(50, 1), torch.full((50,), 90.0)
        unknown = torch.full((50, 1), 3.0), torch.full((50,), 90.0)
        assert [float(one) for one in half_widths(known, unknown)] == pytest.approx([1.0, 3.0])

    def test_a_clip_that_is_not_known_never_gets_less(self):
        known = torch.full((50, 1), 2.0), torch.linspace(0, 100, 50)
        unknown = torch.full((50, 1), 0.5), torch.linspace(0, 100, 50)
        one, two = half_widths(known, unknown)
        assert float(one) == float(two) == pytest.approx(2.0)


class TestInAModel:
    def calibrated(self):
        model, processor = make_model(likeness=True)
        likeness = model.model.likeness
        likeness.weight.normal_(generator=torch.Generator().manual_seed(3))
        likeness.threshold.fill_(0.1)
        likeness.reach.fill_(0.5)
        likeness.gain.copy_(torch.tensor([2.0, 1.0, 0.0, 2.0]))
        calibration = model.model.add_calibration(20)
        clips = torch.randn(20, 5, generator=torch.Generator().manual_seed(4))
        calibration.fit(clips, [str(n // 2) for n in range(20)])
        calibration.known.fill_(0.25)
        calibration.unknown.fill_(1.0)
        return model, processor

    def test_saved_and_loaded_gives_the_same(self, tmp_path):
        model, processor = self.calibrated()
        batch = make_batch(processor, model.config, ["a dog", "a cat"])
        model.save_pretrained(tmp_path)
        again = AIGVEvalModel.from_pretrained(tmp_path, llm=make_llm())
        one, other = model.score(**batch), again.score(**batch)
        for name in ("scores", "familiarity", "half_widths"):
            assert torch.equal(getattr(one, name), getattr(other, name))
        assert one.familiarity.shape == (2,) and one.half_widths.shape == (2, 4)

    def test_rows_have_intervals_on_the_scale(self):
        model, processor = self.calibrated()
        batch = make_batch(processor, model.config, ["a dog", None])
        rows = name_scores(model.score(**batch), batch["slot_mask"])
        for row in rows:
            assert 0 <= row["familiarity"] <= 100
            for name in SCORES:
                if (score := row[name]) is not None:
                    assert 1 <= score.low <= score.score <= score.high <= 5
                    assert score.high - score.low <= 2.0 + 1e-4
        assert rows[1]["semantic"] is None

    def test_a_model_without_has_none(self):
        model, processor = make_model()
        batch = make_batch(processor, model.config, ["a dog"])
        output = model.score(**batch)
        assert output.familiarity is None and output.half_widths is None
        assert "familiarity" not in name_scores(output, batch["slot_mask"])[0]

    def test_likeness_lifts_what_lies_beyond_its_threshold_and_no_more_than_its_reach(self):
        model, processor = self.calibrated()
        batch = make_batch(processor, model.config, ["a dog"] * 40)
        backbone = model.model
        with_lift = backbone.score_hints(batch["features"])
        likeness, backbone.likeness = backbone.likeness, None
        lift = with_lift - backbone.score_hints(batch["features"])
        means = torch.cat([t.mean(1) for t in backbone.standardised(batch["features"])], dim=1)
        expected = (means @ likeness.weight - 0.1).clamp(0, 0.5)[:, None] * likeness.gain
        torch.testing.assert_close(lift, expected, atol=1e-5, rtol=0)
        assert 0 < (expected[:, 0] > 0).sum() < 40 and (expected[:, 0] == 1.0).any()

    def test_a_local_expert_speaks_near_its_clips_and_nowhere_else(self):
        model, processor = self.calibrated()
        batch = make_batch(processor, model.config, ["a dog"] * 40)
        backbone = model.model
        for projector in backbone.projectors.values():  # what is learnt comes on top
            projector.score_head.weight.data.zero_()
            projector.score_head.bias.data.zero_()
        said = backbone.score_hints(batch["features"])
        tokens = backbone.standardised(batch["features"])
        vectors = backbone.compared(tokens)
        expert = backbone.add_local_expert(10)
        expert.place(vectors[:10], [str(n) for n in range(10)])
        expert.bias.copy_(torch.tensor([4.5, 9.0, 9.0, 9.0]))
        expert.weight[0, 3] = 0.2
        expert.share[0] = 1
        expert.reach.fill_(1.2)
        found = backbone.score_hints(batch["features"])
        own = 4.5 + 0.2 * torch.cat([t.mean(1) for t in tokens], dim=1)[:, 3]
        moved = (own - said[:, 0]).clamp(-1.2, 1.2)
        assert (moved == 1.2).any() and (moved != 1.2).any()
        apart = distance(vectors, expert.clips)
        gate = ((expert.far - apart) / (expert.far - expert.near)).clamp(0, 1)
        far = gate == 0
        assert far.any() and not far.all()
        torch.testing.assert_close(found[:, 0], said[:, 0] + gate * moved)
        assert torch.equal(found[:, 1:], said[:, 1:]) and torch.equal(found[far], said[far])

    def test_a_local_expert_is_saved_and_goes_where_the_model_is_trained_on(self, tmp_path):
        model, processor = self.calibrated()
        batch = make_batch(processor, model.config, ["a dog", "a cat"])
        plain = model.model.score_hints(batch["features"])
        expert = model.model.add_local_expert(2)
        vectors = model.model.compared(model.model.standardised(batch["features"]))
        expert.place(vectors, ["a dog", "a cat"])
        expert.far.add_(100)  # else both are as far as each other
        expert.share.fill_(1)
        expert.reach.fill_(0.3)
        model.save_pretrained(tmp_path)
        again = AIGVEvalModel.from_pretrained(tmp_path, llm=make_llm())
        hints = again.model.score_hints(batch["features"])
        assert torch.equal(hints, model.model.score_hints(batch["features"]))
        assert not torch.equal(hints, plain)
        again.model.remove_measured()
        assert again.config.local_expert == 0
        assert torch.equal(again.model.score_hints(batch["features"]), plain)

    def test_a_base_that_is_trained_on_loses_its_intervals(self):
        model, _ = self.calibrated()
        model.model.remove_measured()
        assert model.config.calibration == 0
        assert not any("calibration" in key for key in model.trained_keys())
        assert any("likeness" in key for key in model.trained_keys())

    def test_sizes_are_checked(self):
        for name in ("calibration", "local_expert"):
            with pytest.raises(ValueError, match=rf"^{name} must not be negative, got -1$"):
                make_model(**{name: -1})
