"""Damage to frames: deterministic, growing with severity, within its time range."""

import inspect

import numpy as np
import pytest

from aigveval.distortion import motion as damage_motion
from aigveval.distortion import technical as damage_technical
from aigveval.distortion.base import MIN_MOTION_FRAMES
from aigveval.distortion.prompts import WRONG_PROMPTS
from aigveval.distortion.registry import DISTORTIONS, SEVERITIES, damaged
from prompts.defects import DEFECTS

FPS = 12.0
TECHNICAL = [name for name, spec in DISTORTIONS.items() if spec.dimension == "technical"]
TIMED = ["freeze", "shuffled_frames", "shake", "flicker", "scene_cut"]  # only part of the clip


def scene(count=24, height=96, width=128, seed=0, speed=3):
    """Texture at several scales that moves sideways, `speed` pixels per frame."""
    rng = np.random.default_rng(seed)
    wide = np.zeros((height, width + speed * count, 3), np.float32)
    for size in (2, 8, 32):
        grid = rng.random((height // size + 1, wide.shape[1] // size + 1, 3), dtype=np.float32)
        wide += grid.repeat(size, 0).repeat(size, 1)[:height, : wide.shape[1]]
    wide = 20 + wide * 70
    return np.stack([wide[:, i * speed : i * speed + width] for i in range(count)]).astype(np.uint8)


def run(frames, kind, severity, seed=5):
    return damaged(frames, kind, severity, seed, FPS, other=255 - frames[::-1])


def difference(one, two):
    return np.abs(one.astype(np.float32) - two).mean()


@pytest.fixture(scope="module")
def frames():
    return scene()


@pytest.mark.parametrize("kind", DISTORTIONS)
def test_every_type_damages_and_is_deterministic(frames, kind):
    before = frames.copy()
    for severity in SEVERITIES:
        out, start, end = run(frames, kind, severity)
        assert out.shape == frames.shape and out.dtype == np.uint8
        assert 0 <= start < end <= len(frames) / FPS
        assert not np.array_equal(out, frames)
        again, *times = run(frames, kind, severity)
        assert np.array_equal(out, again) and times == [start, end]
    assert np.array_equal(frames, before)


@pytest.mark.parametrize("kind", TECHNICAL + ["flicker", "ghosting", "warping", "scene_cut"])
@pytest.mark.parametrize("size", [(96, 128), (240, 160)])
def test_damage_grows_with_severity(kind, size):
    clip = scene(16, *size)
    errors = [difference(run(clip, kind, severity)[0], clip) for severity in SEVERITIES]
    assert all(high > 1.03 * low for low, high in zip(errors, errors[1:])), errors


@pytest.mark.parametrize("count", [8, 16, 100])
@pytest.mark.parametrize("seed", range(4))
def test_faults_in_time_grow_with_severity(count, seed):
    # One grey level per frame: the output tells which frame went where.
    clip = np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
    held, lost, astray = [], [], []
    for severity in SEVERITIES:
        order = run(clip, "freeze", severity, seed)[0][:, 0, 0, 0].astype(int)
        held.append(int((order != np.arange(count)).sum()))
        order = run(clip, "dropped_frames", severity, seed)[0][:, 0, 0, 0].astype(int)
        lost.append(count - len(set(order)))
        assert (np.diff(order) >= 0).all()
        order = run(clip, "shuffled_frames", severity, seed)[0][:, 0, 0, 0].astype(int)
        assert sorted(order) == list(range(count))
        astray.append(int(np.abs(order - np.arange(count)).sum()))
    for counts in (held, lost):
        assert counts == sorted(set(counts)) and counts[0] > 0, counts
    assert astray[0] > 0 and astray[-1] > 2 * astray[0] and astray[4] > astray[2] > 0, astray


def test_shake_moves_whole_pixels_further_with_severity():
    clip = scene(16, 200, 240, speed=0)
    errors = [difference(run(clip, "shake", severity)[0], clip) for severity in SEVERITIES]
    assert errors == sorted(set(errors)), errors
    out, start, end = run(clip, "shake", 1)
    first = round(start * FPS)
    assert set(np.unique(out[first])) <= set(np.unique(clip))  # nothing was interpolated


def test_near_static_slows_motion_and_keeps_it_smooth():
    clip = scene(24, 128, 160)
    moves = []
    for severity in SEVERITIES:
        out = run(clip, "near_static", severity)[0]
        moves.append(np.mean([difference(a, b) for a, b in zip(out, out[1:])]))
    clean = np.mean([difference(a, b) for a, b in zip(clip, clip[1:])])
    assert clean > moves[0] and moves == sorted(moves, reverse=True), (clean, moves)
    assert moves[-1] > 0  # slow, not frozen


@pytest.mark.parametrize("kind", TIMED)
def test_nothing_happens_outside_the_time_range(frames, kind):
    for severity in SEVERITIES:
        out, start, end = run(frames, kind, severity)
        first, last = round(start * FPS), round(end * FPS)
        changed = [i for i in range(len(frames)) if not np.array_equal(out[i], frames[i])]
        assert changed and first <= changed[0] and changed[-1] < last


@pytest.mark.parametrize("kind", ["freeze", "shake", "flicker", "colour_cast", "noise", "warping"])
def test_severity_changes_nothing_but_the_strength(frames, kind):
    one, two = (run(frames, kind, severity, seed=1)[0].astype(int) - frames for severity in (3, 4))
    other = run(frames, kind, 3, seed=4)[0].astype(int) - frames

    def alike(a, b):
        return np.corrcoef(a.ravel(), b.ravel())[0, 1]

    assert alike(one, two) > alike(one, other)


@pytest.mark.parametrize("kind", DISTORTIONS)
@pytest.mark.parametrize("shape", [(1, 16, 16), (2, 64, 2), (8, 16, 16), (8, 2, 80), (240, 16, 16)])
def test_small_clips(kind, shape):
    clip = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    if len(clip) < DISTORTIONS[kind].min_frames:
        message = f"^{kind} needs at least {MIN_MOTION_FRAMES} frames, got {len(clip)}$"
        with pytest.raises(ValueError, match=message):
            run(clip, kind, 5)
        return
    for severity in (1, 5):
        assert run(clip, kind, severity)[0].shape == clip.shape


def test_wrong_arguments(frames):
    with pytest.raises(ValueError, match="^unknown distortion 'blurr'; supported: blur, noise,"):
        damaged(frames, "blurr", 1)
    with pytest.raises(ValueError, match=r"^severity must be one of \(1, 2, 3, 4, 5\), got 6$"):
        damaged(frames, "blur", 6)
    with pytest.raises(ValueError, match="^expected uint8 frames"):
        damaged(frames.astype(np.float32), "blur", 1)
    with pytest.raises(ValueError, match="^scene_cut needs `other`, the frames of another clip$"):
        damaged(frames, "scene_cut", 1)
    with pytest.raises(ValueError, match="^fps must be above 0, got 0$"):
        damaged(frames, "blur", 1, fps=0)


@pytest.mark.parametrize(
    "module, dimension",
    [
        (damage_technical, "technical"),
        (damage_motion, "motion"),
    ],
)
def test_every_function_of_damage_is_in_the_table(module, dimension):
    written = {
        name
        for name, item in vars(module).items()
        if inspect.isfunction(item)
        and item.__module__ == module.__name__
        and list(inspect.signature(item).parameters) == ["frames", "strength", "rng", "fps"]
    }
    listed = {name for name, spec in DISTORTIONS.items() if spec.dimension == dimension}
    assert written == listed and len(written) >= 8


def test_every_kind_of_damage_is_a_known_defect():
    assert {*DISTORTIONS, *WRONG_PROMPTS} <= set(DEFECTS)
    assert {DEFECTS[name].dimension for name in WRONG_PROMPTS} == {"semantic"}
    assert not set(DISTORTIONS) & set(WRONG_PROMPTS)
