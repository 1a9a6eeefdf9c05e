"""Distinctness against a plain computation, and what it says of made maps and pictures."""

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from encoders import create_encoder
from encoders.lite_backbone import distinctness, maps_of


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def plain(cells):
    """Of the vectors (k, c) of one picture."""
    cells = cells - cells.mean(0)
    nearest = []
    for n, one in enumerate(cells):
        others = [other for m, other in enumerate(cells) if m != n]
        lengths = [np.linalg.norm(one) * np.linalg.norm(other) for other in others]
        nearest.append(min(1 - one @ o / length for o, length in zip(others, lengths)))
    return np.mean(nearest)


def test_it_is_what_its_words_say():
    maps = noise(2, 6, 7, 5) + 1
    found = distinctness(maps)
    assert found.shape == (2, 1) and found.dtype == torch.float32
    expected = [plain(one.reshape(6, -1).T) for one in maps.double().numpy()]
    assert found[:, 0].numpy() == pytest.approx(expected, abs=1e-5)


def test_what_is_found_twice_is_not_distinct():
    once = noise(1, 40, 8, 8)
    twice = torch.cat([once[..., :4], once[..., :4]], dim=3)
    smooth = interpolate(noise(1, 40, 4, 4), scale_factor=4, mode="bilinear")
    assert distinctness(twice) < 1e-5 < 0.3 < distinctness(once)
    assert distinctness(smooth) < 0.3 * distinctness(once)


def test_neither_brightness_nor_what_all_places_share_matters():
    maps = noise(1, 6, 5, 5)
    for other in (3 * maps, maps + noise(1, 6, 1, 1), maps.flip(3), maps.transpose(2, 3)):
        assert distinctness(other).item() == pytest.approx(distinctness(maps).item(), abs=1e-5)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, -0.3])
def test_where_there_is_nothing_to_see_it_is_a_number_all_the_same(value):
    assert 0 <= distinctness(torch.full((1, 112, 14, 14), value)) <= 2


def test_autocast_does_not_touch_it():
    maps = noise(1, 6, 7, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = distinctness(maps)
    assert torch.equal(found, distinctness(maps))


def test_the_encoder_has_it_behind_all_that_was_there_before(make_encoder):
    plain = make_encoder("technical_lite")
    more = create_encoder("technical_lite", distinctness=True)
    assert more.spec.dim == plain.spec.dim + 1
    assert "distinctness" not in plain.options()  # so that what was cached before is read
    assert plain.fingerprint() != more.fingerprint()
    seeded = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (8, 3, 64, 80), dtype=torch.uint8, generator=seeded)
    frames[4:] = frames[:1, :, :1, :1]  # half of them of one colour
    view = more.preprocess(frames)
    one, other = (encoder(view[None]) for encoder in (plain, more))
    assert torch.equal(other[..., :-1], one)
    expected = distinctness(maps_of(view[:, 0]))[:, 0]  # of the whole frames
    torch.testing.assert_close(other[0, :, -1], expected, atol=1e-5, rtol=0)
    assert other[0, :4, -1].min() > 2 * other[0, 4:, -1].max()


def test_of_a_clip_it_is_of_the_mean_of_its_frames(make_encoder):
    plain = make_encoder("technical_lite")
    own, whole = (create_encoder("technical_lite", distinctness=d) for d in ("frame", "clip"))
    assert own.fingerprint() == create_encoder("technical_lite", distinctness=True).fingerprint()
    assert whole.spec.dim == own.spec.dim
    assert len({one.fingerprint() for one in (plain, own, whole)}) == 3
    seeded = torch.Generator().manual_seed(0)
    picture = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8, generator=seeded)
    still = picture.repeat_interleave(14, 1).repeat_interleave(14, 2).expand(8, -1, -1, -1)
    moving = torch.stack([still[0].roll(20 * n, dims=2) for n in range(8)])
    views = torch.stack([whole.preprocess(frames) for frames in (still, moving)])
    found, of_frames = whole(views), own(views)
    assert torch.equal(found[..., :-1], of_frames[..., :-1])
    expected = [distinctness(maps_of(view[:, 0]).mean(0, keepdim=True)) for view in views]
    expected = torch.cat(expected).expand(-1, 8)
    torch.testing.assert_close(found[..., -1], expected, atol=1e-5, rtol=0)
    # Of a still picture that is what it is of a frame; what moves is lost in the mean.
    torch.testing.assert_close(found[0, :, -1], of_frames[0, :, -1], atol=1e-5, rtol=0)
    assert found[1, 0, -1] < 0.8 * of_frames[1, :, -1].min()


def test_another_word_is_refused():
    with pytest.raises(ValueError, match=r"^distinctness must be false, frame or clip, got 'all'"):
        create_encoder("technical_lite", distinctness="all")
