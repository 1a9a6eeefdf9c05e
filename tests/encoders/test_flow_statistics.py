"""Motion of one kind moves the statistics that were made for it, the right way."""

import math

import cv2
import numpy as np
import pytest

from encoders.flow_statistics import (
    NUM_CHANGE,
    NUM_GAP,
    NUM_PAIR,
    Field,
    Picture,
    change_statistics,
    gap_statistics,
    new_flow,
    pair_statistics,
)

from . import plain_flow_statistics as plain
from .pictures import blurred, scaled, texture, tinted

# Columns of `pair_statistics` that tests read.
LENGTH, DRIFT, DRIFT_SHARE, ROUGH, CAMERA, AFFINE, RESIDUAL = 0, 4, 5, 6, 10, 11, 12
ERROR, STRUCTURE, DIFFERENCE, BRIGHTNESS, BRIGHTER, FROZEN, HISTOGRAM = 14, 17, 21, 23, 24, 25, 26
COLOUR, MOVING, STILL, DETAIL, JERK, KEPT_DIRECTION, TURN = 27, 28, 29, 30, 31, 32, 34

# Motion: a window of 120 x 160 px that looks at a larger picture.

HEIGHT, WIDTH = 120, 160
WORLD = texture(5, 400, 400)


def window(x=100.0, y=100.0, zoom=1.0, angle=0.0):
    """What a camera at (x, y) sees of the world, with sub-pixel accuracy."""
    turn = cv2.getRotationMatrix2D((0, 0), angle, zoom)
    centre = np.array([WIDTH / 2, HEIGHT / 2])
    turn[:, 2] = np.array([x, y]) + centre - turn[:, :2] @ centre
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(WORLD, turn, (WIDTH, HEIGHT), flags=flags)


def warped(picture, seed, strength=4.0):
    """Local warping that has no direction as a whole, as a generator's morphing."""
    rng = np.random.default_rng(seed)
    push = [
        cv2.resize(rng.standard_normal((6, 8)).astype(np.float32), (WIDTH, HEIGHT))
        for _ in range(2)
    ]
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    return cv2.remap(
        picture,
        x + strength * push[0],
        y + strength * push[1],
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT,
    )


def gray_of(frame):
    return cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)


def picture_of(frame):
    return Picture(frame, gray_of(frame))


def flow_of(first, second):
    return new_flow().calc(gray_of(first), gray_of(second), None)


def pair(first, second, before=None):
    before = None if before is None else Field(before)
    field = Field(flow_of(first, second))
    return np.array(pair_statistics(picture_of(first), picture_of(second), field, before))


def gap(first, second):
    field = Field(flow_of(first, second))
    return np.array(gap_statistics(picture_of(first), gray_of(second), field))


START = window()
STATIC = pair(START, START)
PAN = pair(START, window(104))


def test_a_still_pair_is_frozen_and_explained():
    assert STATIC[FROZEN] == 1 and STATIC[STILL] == 1 and STATIC[MOVING] == 0
    assert STATIC[ERROR] == pytest.approx(math.log(0.1), abs=1e-3)
    assert STATIC[STRUCTURE] == pytest.approx(1, abs=1e-4)
    assert STATIC[BRIGHTNESS] == STATIC[HISTOGRAM] == STATIC[DETAIL] == 0


def test_a_pan_is_drift_of_its_own_length():
    shares = math.exp(PAN[DRIFT]) - 1e-3, math.exp(PAN[CAMERA]) - 1e-3
    assert shares == pytest.approx((4 / HEIGHT, 4 / HEIGHT), rel=0.1)
    assert PAN[DRIFT_SHARE] > 0.9 and PAN[MOVING] > 0.9
    assert PAN[FROZEN] == 0 and PAN[STILL] < 0.01
    assert PAN[RESIDUAL] < PAN[LENGTH] - 1.5  # the camera explains nearly all of it
    assert PAN[ERROR] < PAN[DIFFERENCE] - 1  # and so does the flow


def test_a_faster_pan_is_longer():
    lengths = [pair(START, window(100 + step))[LENGTH] for step in (1, 2, 4, 8)]
    assert (np.diff(lengths) > 0.4).all()


@pytest.mark.parametrize("move", [{"zoom": 0.95}, {"angle": 3}])
def test_zoom_and_rotation_are_camera_motion_without_drift(move):
    out = pair(START, window(**move))
    assert out[DRIFT_SHARE] < 0.3 < PAN[DRIFT_SHARE]
    assert out[AFFINE] > PAN[AFFINE] + 1
    assert out[RESIDUAL] < out[LENGTH] - 1


def test_warping_is_rough_and_no_camera_explains_it():
    values = np.stack([PAN, *(pair(START, warped(window(104), 3, s)) for s in (1, 2, 4))])
    for column in (ROUGH, RESIDUAL, ERROR):
        assert (np.diff(values[:, column]) > 0).all(), values[:, column]
    assert (np.diff(values[:, STRUCTURE]) < 0).all()
    assert values[-1, ROUGH] > PAN[ROUGH] + 1.5


def test_a_cut_is_explained_by_nothing():
    cut = pair(START, texture(9, HEIGHT, WIDTH))
    assert cut[ERROR] > PAN[ERROR] + 1 and cut[STRUCTURE] < PAN[STRUCTURE] - 0.3
    assert cut[DIFFERENCE] > PAN[DIFFERENCE] and cut[HISTOGRAM] > PAN[HISTOGRAM]


def test_flicker_is_brightness_change_with_a_sign():
    lighter = pair(START, scaled(START, 1.15))
    darker = pair(scaled(START, 1.15), START)
    assert lighter[BRIGHTER] > 1 and darker[BRIGHTER] == -lighter[BRIGHTER]
    assert lighter[BRIGHTNESS] == darker[BRIGHTNESS] == lighter[BRIGHTER]
    assert abs(PAN[BRIGHTNESS]) < 0.2
    assert lighter[HISTOGRAM] > PAN[HISTOGRAM]


def test_a_colour_that_jumps_is_seen_without_a_change_of_brightness():
    swapped = START[..., ::-1].copy()
    out = pair(START, tinted(START, 0))
    assert out[COLOUR] > 4 > 2 > PAN[COLOUR]
    assert pair(swapped, swapped)[COLOUR] == 0


def test_lost_detail_is_seen():
    assert pair(START, blurred(START, 2))[DETAIL] > 0.5 > 0.2 > PAN[DETAIL]


def test_shake_turns_back_and_a_pan_goes_on():
    there, back = window(104), START
    flow = flow_of(START, there)
    goes_on = pair(there, window(108), flow)
    turns = pair(there, back, flow)
    assert goes_on[KEPT_DIRECTION] > 0.8 and goes_on[TURN] > 0.9
    assert turns[KEPT_DIRECTION] < -0.8 and turns[TURN] < -0.9
    assert turns[JERK] > goes_on[JERK] + 2


def test_without_a_flow_before_motion_counts_as_steady():
    assert PAN[[KEPT_DIRECTION, TURN]].tolist() == [1, 1] and PAN[JERK] == math.log(1e-3)


def test_a_wider_gap_shows_slow_morphing_that_neighbours_hide():
    static, pan, morph = gap(START, START), gap(START, window(104)), gap(START, warped(START, 2))
    length, drift, error, structure, rough = 0, 3, 4, 7, 11
    assert static[length] < pan[length] and static[error] < pan[error] < morph[error]
    assert pan[drift] > morph[drift] and morph[rough] > pan[rough] + 1.5
    assert static[structure] > pan[structure] > morph[structure]
    assert len(pan) == NUM_GAP


@pytest.mark.parametrize("scale", range(NUM_CHANGE // 2))
def test_second_differences_tell_flicker_from_motion(scale):
    def ratio(frames):
        changes = change_statistics([gray_of(frame) for frame in frames])
        return changes[:, 2 * scale : 2 * scale + 2].mean(0)

    fade = ratio([scaled(START, 1 - 0.05 * n) for n in range(8)])
    flicker = ratio([scaled(START, 1 - 0.05 * (n % 2)) for n in range(8)])
    still = ratio([START] * 8)
    assert flicker[1] > 0.5 and fade[1] < -1  # log of the second difference over the first
    assert still[0] == pytest.approx(math.log(0.05))
    assert flicker[0] > still[0] + 3


@pytest.mark.parametrize("count", [2, 3, 9])
def test_changes_are_one_row_per_step(count):
    grays = [np.full((20, 30), 10 * n, np.uint8) for n in range(count)]
    assert change_statistics(grays).shape == (count - 1, NUM_CHANGE)


FRAMES = {
    "black": np.zeros((HEIGHT, WIDTH, 3), np.uint8),
    "white": np.full((HEIGHT, WIDTH, 3), 255, np.uint8),
    "noise": np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8),
    "scene": START,
}


@pytest.mark.parametrize("first", FRAMES)
@pytest.mark.parametrize("second", FRAMES)
def test_motion_statistics_are_finite_and_small(first, second):
    first, second = FRAMES[first], FRAMES[second]
    flow = flow_of(first, second)
    for before in (None, flow, np.zeros_like(flow)):
        out = pair(first, second, before)
        assert out.shape == (NUM_PAIR,) and np.isfinite(out).all() and np.abs(out).max() < 100
    out = gap(first, second)
    assert np.isfinite(out).all() and np.abs(out).max() < 100
    out = change_statistics([gray_of(first), gray_of(second)])
    assert np.isfinite(out).all() and np.abs(out).max() < 100


def test_statistics_do_not_depend_on_where_in_memory_the_flow_lies():
    """OpenCV's fastest functions round the pixels at the ends of a row of memory otherwise."""
    flow = np.random.default_rng(0).standard_normal((HEIGHT, WIDTH, 2)).astype(np.float32)
    kept, speeds = [], []
    for n in range(48):
        kept.append(np.empty(16 * n + 5, np.uint8))
        speeds.append(Field(flow).speed)
    assert len({speed.ctypes.data % 64 for speed in speeds}) > 1
    assert all(np.array_equal(speed, speeds[0]) for speed in speeds)


SEQUENCES = {
    "pan": [window(100 + 3 * n) for n in range(6)],
    "morphing": [warped(window(100 + n), n) for n in range(6)],
    "flicker": [scaled(window(100 + n), 1 - 0.2 * (n % 2)) for n in range(6)],
    "still": [START] * 3,
    "a cut to black": [START, window(102), FRAMES["black"], FRAMES["black"], FRAMES["noise"]],
    "two frames": [START, FRAMES["noise"]],
    "odd size": [window(100 + n)[:37, :111].copy() for n in range(4)],
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_statistics_are_those_of_the_plain_formulas(name):
    """The shipped checkpoint was trained on them, so sharing work must not change a value."""
    frames = SEQUENCES[name]
    grays = [gray_of(frame) for frame in frames]
    pictures = [picture_of(frame) for frame in frames]
    same = {"rtol": 1e-6, "atol": 1e-7}
    before = field = None
    for n in range(len(frames) - 1):
        before, field = field, Field(flow_of(frames[n], frames[n + 1]))
        found = pair_statistics(pictures[n], pictures[n + 1], field, before)
        expected = plain.pair_statistics(
            frames[n], frames[n + 1], field.flow, None if before is None else before.flow
        )
        np.testing.assert_allclose(found, expected, **same)
        flow = flow_of(frames[n], frames[-1])
        found = gap_statistics(pictures[n], grays[-1], Field(flow))
        np.testing.assert_allclose(found, plain.gap_statistics(grays[n], grays[-1], flow), **same)
    found = change_statistics(grays)
    assert found.shape == (len(frames) - 1, NUM_CHANGE)
    np.testing.assert_allclose(found, plain.change_statistics(grays), **same)
