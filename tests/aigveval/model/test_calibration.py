"""Intervals and familiarity: against numbers worked out by hand, and coverage on drawn errors."""

import math

import numpy as np
import pytest
import torch

from aigveval.model.calibration import Calibration, clip_vectors, half_width


def fitted(tokens, groups, *, rank=4):
    calibration = Calibration(width=tokens.shape[1], rank=rank, clips=len(tokens), scores=4)
    calibration.fit(tokens, groups)
    calibration.known.copy_(torch.tensor([0.5, 0.6, 0.7, 0.4]))
    calibration.unknown.copy_(torch.tensor([1.5, 1.6, 1.7, 1.4]))
    return calibration


@pytest.fixture(scope="module")
def tokens():
    return torch.randn(90, 12, generator=torch.Generator().manual_seed(0))


class TestFamiliarity:
    def test_clips_alike_are_familiar_and_others_are_not(self, tokens):
        calibration = fitted(tokens, [str(n // 3) for n in range(90)])
        familiar, _ = calibration(tokens.mean(0, keepdim=True))
        strange, widths = calibration(tokens[:1] + 50)
        assert familiar > 90 and strange == 0
        torch.testing.assert_close(widths, calibration.unknown[None])

    def test_a_new_prompts_clips_are_spread_over_all_percentiles(self, tokens):
        """Their familiarity is a percentile: its mean is 50, as far as chance allows."""
        fresh = torch.randn(400, 12, generator=torch.Generator().manual_seed(1))
        found, _ = fitted(tokens, [str(n) for n in range(90)])(fresh)
        assert 35 < found.mean() < 60 and (found < 25).float().mean() > 0.1

    def test_a_clip_is_not_compared_with_those_of_its_prompt(self):
        """Twins, of one prompt each: leaving only the clip itself out would give distances of 0."""
        half = torch.randn(20, 6, generator=torch.Generator().manual_seed(2))
        twins = torch.cat([half, half])
        calibration = fitted(twins, [str(n % 20) for n in range(40)], rank=3)
        assert calibration.distances.min() > 0

    def test_intervals_widen_as_familiarity_falls(self, tokens):
        calibration = fitted(tokens, [str(n) for n in range(90)])
        steps = torch.linspace(0, 60, 30)[:, None] * torch.ones(12) / 12**0.5
        familiarity, widths = calibration(tokens.mean(0) + steps)
        assert (familiarity.diff() <= 0).all() and (widths.diff(dim=0) >= -1e-6).all()
        torch.testing.assert_close(widths[0], calibration.known)
        torch.testing.assert_close(widths[-1], calibration.unknown)

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


class TestHalfWidth:
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
            covered.append(float(np.mean(np.abs(rng.normal(size=200)) <= half_width(errors)[0])))
        assert 0.79 <= np.mean(covered) <= 0.83
