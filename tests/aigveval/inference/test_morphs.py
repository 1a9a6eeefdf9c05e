"""Things in photographs that dissolve into others, move, vanish, or stay."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from matplotlib.cbook import get_sample_data
from PIL import Image
from sklearn.datasets import load_sample_images

from aigveval.inference import morphs, observe
from aigveval.inference.facts import facts_of
from aigveval.inference.morphs import Morph, strongest_morph
from encoders import WeightsError, lite_backbone
from encoders.lite_backbone import maps_of, shared_backbone
from encoders.video import Frames
from prompts.consistency import claims, mentioned
from prompts.facts import defects_of, named, render_facts
from prompts.sentences import advice, sentences

SIDE, LEFT, TOP = 160, 240, 90
SHOTS = np.zeros(8, int)


@pytest.fixture(scope="module", autouse=True)
def weights():
    try:
        return shared_backbone()
    except WeightsError as error:
        pytest.skip(f"no weights for the network: {error}")


@pytest.fixture(scope="module")
def photographs():
    """A background, (360, 640, 3), and two things to put on it."""
    china, flower = load_sample_images().images
    with Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)) as opened:
        portrait = np.asarray(opened)
    things = (flower[50:380, 170:500], portrait[20:420, 80:480])
    ground = cv2.GaussianBlur(cv2.resize(china, (640, 360)), (0, 0), 3)
    return ground, *(cv2.resize(thing, (SIDE, SIDE)) for thing in things)


def clip(ground, thing_at, count=8):
    """uint8 (t, 3, h, w): what `thing_at(share of the time)` gives, with its left edge, on it."""
    frames = []
    for number in range(count):
        picture = ground.copy()
        thing, left = thing_at((number + 0.5) / count)
        if thing is not None:
            picture[TOP : TOP + SIDE, left : left + SIDE] = thing
        frames.append(torch.from_numpy(picture).permute(2, 0, 1))
    return torch.stack(frames)


def dissolving(first, second):
    def at(time):
        share = np.clip((time - 0.35) / 0.2, 0, 1)
        return ((1 - share) * first + share * second).astype(np.uint8), LEFT

    return at


def test_what_dissolves_into_another_thing_is_found_where_and_when_it_does(photographs):
    ground, first, second = photographs
    found = strongest_morph(clip(ground, dissolving(first, second)), SHOTS)
    assert found.strength > 0.34
    assert 2 <= found.first < found.last <= 5
    left, top, right, bottom = found.box
    assert LEFT / 640 - 0.1 < left < (left + right) / 2 < right < (LEFT + SIDE) / 640 + 0.1
    assert TOP / 360 - 0.1 < top < (top + bottom) / 2 < bottom < (TOP + SIDE) / 360 + 0.1


def test_what_stays_moves_or_is_covered_does_not_morph(photographs):
    ground, first, second = photographs
    for thing_at in (
        lambda time: (first, LEFT),
        lambda time: (first, int(40 + 400 * time)),
        lambda time: (None, 0),
    ):
        assert strongest_morph(clip(ground, thing_at), SHOTS).strength < 0.3
    covered = clip(ground, lambda time: (first, LEFT))
    for number, frame in enumerate(covered):  # another one passes in front of it
        x = 90 * number - 60
        left, right = max(0, x), min(640, x + SIDE)
        if left < right:
            part = torch.from_numpy(second[:, left - x : right - x].copy()).permute(2, 0, 1)
            frame[:, TOP + 40 : TOP + 40 + SIDE, left:right] = part
    assert strongest_morph(covered, SHOTS).strength < 0.3


def test_another_scene_is_no_morphing(photographs):
    ground, first, second = photographs
    cut = clip(ground, lambda time: (first if time < 0.5 else second, LEFT))
    assert strongest_morph(cut, SHOTS).strength > 0.3  # in one shot
    assert strongest_morph(cut, np.repeat([0, 1], 4)) is None  # no shot has frames enough
    other = cv2.resize(second, (640, 360)).astype(np.float32)
    shares = np.clip((np.arange(8) - 2.5) / 2, 0, 1)
    dissolve = [((1 - share) * ground + share * other).astype(np.uint8) for share in shares]
    frames = torch.from_numpy(np.stack(dissolve)).permute(0, 3, 1, 2).contiguous()
    found = strongest_morph(frames, SHOTS)
    assert found is None or found.strength < 0.25


def test_few_frames_and_pictures_of_any_shape():
    assert strongest_morph(torch.zeros(5, 3, 64, 64, dtype=torch.uint8), SHOTS) is None
    assert strongest_morph(torch.zeros(8, 3, 64, 64, dtype=torch.uint8), SHOTS).strength == 0
    noise = torch.randint(0, 256, (8, 3, 16, 640), dtype=torch.uint8)
    assert strongest_morph(noise, SHOTS) is None or strongest_morph(noise, SHOTS).strength < 0.3


def test_maps_are_the_networks_own(weights):
    pictures = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    maps = maps_of(pictures)
    assert maps.shape == (2, 112, 4, 6) and maps.dtype == torch.float32
    network, x = weights.network, (pictures.float() - 127) / 128
    with torch.no_grad():
        x = network.bn1(network.conv_stem(x))
        for block in network.blocks[:5]:
            x = block(x)
    torch.testing.assert_close(maps, x.contiguous(), atol=2e-4, rtol=2e-4)
    assert torch.equal(maps_of(pictures[1:]), maps[1:])  # whatever else is in the batch


def test_a_row_says_what_where_and_when(photographs, monkeypatch):
    ground, first, second = photographs
    pixels = clip(ground, dissolving(first, second))
    seconds = (np.arange(8) + 0.5) / 4
    frames = Frames(pixels=pixels, indices=np.arange(8), timestamps_seconds=seconds)
    monkeypatch.setattr(observe, "detect", lambda large: [[] for _ in large])
    seen = observe.measure(frames, frames, 2.0)
    facts = facts_of(seen)
    (fact,) = named(facts, "morphs")
    assert fact.dimension == "motion" and fact.value == round(seen.morph.strength, 3)
    assert fact.start_seconds < fact.at_seconds < fact.end_seconds
    assert "something turns into something else, in the middle" in render_facts(facts)
    defects = defects_of(facts)
    (defect,) = (one for one in defects if one.name == "morphing")
    span = fact.start_seconds, fact.end_seconds
    assert (defect.start_seconds, defect.end_seconds) == pytest.approx(span, abs=0.06)
    text = sentences(facts, [defect], dimensions=["motion"])["motion"]
    assert "in the middle" in text and f"{fact.start_seconds:.1f}-{fact.end_seconds:.1f} s" in text
    assert all(claim.true for claim in claims(text, facts, defects=[defect]))
    assert mentioned(text, "motion") == {"morphing"}
    assert advice(facts, [defect]) == (
        f"Try another seed, or less movement: something changes its shape at "
        f"{fact.start_seconds:.1f} s.",
    )
    for prompt in (
        "a flower turns into a temple",
        "a time-lapse of a flower",
        "A car morphs into a robot",
        "a dragon turning into a cloud",
        "a caterpillar becomes a butterfly",
        "a prince changed into a frog",
        "ice cubes melting in a glass",
        "a flower blooming",
    ):
        assert "morphing" not in {one.name for one in defects_of(facts, prompt=prompt)}
    for other in ({"strength": 0.33}, {"more_after": 0.05}, {"more_after": -0.05}):
        assert not named(facts_of(replace(seen, morph=replace(seen.morph, **other))), "morphs")


def test_what_appears_or_vanishes_is_told_from_what_morphs(photographs):
    ground, thing, _ = photographs
    for sign, there in ((-1, lambda time: time < 0.5), (1, lambda time: time > 0.5)):
        frames = clip(ground, lambda time: (thing if there(time) else None, LEFT))
        assert sign * strongest_morph(frames, SHOTS).more_after > 0.04


def test_a_morph_is_not_looked_for_between_frames_far_apart(photographs, monkeypatch):
    monkeypatch.setattr(observe, "detect", lambda large: [[] for _ in large])
    pixels = clip(photographs[0], dissolving(*photographs[1:]))
    for apart, looked in ((0.4, True), (0.5, False)):
        seconds = apart * np.arange(8)
        frames = Frames(pixels=pixels, indices=np.arange(8), timestamps_seconds=seconds)
        assert (observe.measure(frames, frames, 8 * apart).morph is not None) == looked


def test_settings_of_the_caller_change_no_maps():
    pictures = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8)
    expected = maps_of(pictures)
    lite_backbone._mapper.cache_clear()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.autocast("cpu", torch.bfloat16), torch.inference_mode(), torch.device("meta"):
            found = maps_of(pictures)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found, expected)


def test_without_the_network_a_row_has_a_warning(photographs, monkeypatch):
    def missing(*_):
        raise WeightsError("no network")

    monkeypatch.setattr(observe, "strongest_morph", missing)
    monkeypatch.setattr(observe, "detect", lambda large: [[] for _ in large])
    pixels = clip(photographs[0], lambda time: (None, 0))
    frames = Frames(pixels=pixels, indices=np.arange(8), timestamps_seconds=np.arange(8) / 4)
    seen = observe.measure(frames, frames, 2.0)
    assert seen.morph is None and "morphing not looked for: no network" in seen.warnings


def test_a_morph_is_not_looked_for_in_small_pictures(monkeypatch):
    monkeypatch.setattr(observe, "detect", lambda large: [[] for _ in large])
    monkeypatch.setattr(morphs, "maps_of", lambda _: pytest.fail("asked"))
    pixels = torch.randint(0, 256, (8, 3, 64, 96), dtype=torch.uint8)
    frames = Frames(pixels=pixels, indices=np.arange(8), timestamps_seconds=np.arange(8) / 4)
    assert observe.measure(frames, frames, 2.0).morph is None


def test_the_shipped_scene_does_not_morph():
    scene = Path(__file__).parents[3] / "examples/videos/scene_clean.mp4"
    found = observe.observe(scene).morph
    assert isinstance(found, Morph) and found.strength < 0.2
