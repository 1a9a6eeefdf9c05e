import numpy as np
import pytest

from encoders import sampling


@pytest.mark.parametrize(
    ("num_frames", "count", "expected"),
    [
        (100, 4, [12, 37, 62, 87]),
        (8, 8, list(range(8))),
        (3, 8, [0, 1, 2]),
        (1, 32, [0]),
        (10, 1, [5]),
        (9, 2, [2, 6]),
    ],
)
def test_uniform_takes_the_centres_of_equal_segments(num_frames, count, expected):
    indices = sampling.uniform(num_frames, count)
    assert indices.dtype == np.int64
    assert indices.tolist() == expected


@pytest.mark.parametrize("num_frames", [*range(1, 70), 132, 18_000])
@pytest.mark.parametrize("count", [1, 2, 7, 8, 32])
def test_uniform_and_paired_are_ascending_unique_and_inside(num_frames, count):
    for indices, most in (
        (sampling.uniform(num_frames, count), count),
        (sampling.paired(num_frames, count), 2 * count),
        (sampling.paired(num_frames, count, group=5), 5 * count),
    ):
        assert 1 <= len(indices) <= min(most, num_frames)
        assert (np.diff(indices) > 0).all()
        assert indices[0] >= 0 and indices[-1] < num_frames
    assert len(sampling.uniform(num_frames, count)) == min(count, num_frames)


def test_uniform_covers_both_halves_equally():
    indices = sampling.uniform(18_000, 32)
    assert np.ptp(np.diff(indices)) <= 1
    assert (
        indices[0] == 18_000 - 1 - indices[-1] or abs(indices[0] - (18_000 - 1 - indices[-1])) <= 1
    )


def test_paired_takes_neighbours_around_each_position():
    assert sampling.paired(100, 4).tolist() == [12, 13, 37, 38, 62, 63, 87, 88]
    assert sampling.paired(100, 2, group=3).tolist() == [24, 25, 26, 74, 75, 76]


def test_paired_merges_runs_that_overlap():
    assert sampling.paired(4, 4).tolist() == [0, 1, 2, 3]
    assert sampling.paired(1, 4, group=3).tolist() == [0]
    assert sampling.paired(5, 1, group=9).tolist() == [0, 1, 2, 3, 4]


def test_clips_of_a_long_video():
    indices = sampling.clips(300, 32, 2, 4)
    assert indices.shape == (4, 32)
    assert (np.diff(indices, axis=1) == 2).all()
    assert indices.min() >= 0 and indices.max() < 300
    assert np.ptp(np.diff(indices[:, 0])) <= 1  # the starts are spread evenly


def test_clips_of_a_short_video_wrap_around():
    indices = sampling.clips(5, 4, 2, 1)
    assert indices.tolist() == [[0, 2, 4, 1]]


def test_temporal_fragments_lie_in_the_middle_of_each_part():
    assert sampling.temporal_fragments(80, 2, 4, 2).tolist() == [16, 18, 20, 22, 56, 58, 60, 62]
    assert sampling.temporal_fragments(12, 3, 2, 1).tolist() == [1, 2, 5, 6, 9, 10]


@pytest.mark.parametrize("num_frames", [64, 65, 100, 240, 18000])
def test_temporal_fragments_stay_in_their_part_of_the_video(num_frames):
    runs = sampling.temporal_fragments(num_frames, 8, 4, 2).reshape(8, 4)
    assert (np.diff(runs, axis=1) == 2).all()
    for n, run in enumerate(runs):
        assert n * num_frames // 8 <= run[0] and run[-1] < (n + 1) * num_frames // 8


def test_temporal_fragments_of_a_short_video_reach_into_the_next_and_wrap_around():
    assert sampling.temporal_fragments(8, 2, 4, 2).tolist() == [0, 2, 4, 6, 4, 6, 0, 2]
    assert sampling.temporal_fragments(1, 4, 2, 1).tolist() == [0] * 8


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sampling.uniform(0, 1), "num_frames must be at least 1, got 0"),
        (lambda: sampling.uniform(5, -1), "count must be at least 1, got -1"),
        (lambda: sampling.paired(5, 1, group=0), "group must be at least 1, got 0"),
        (lambda: sampling.clips(5, 1, 0, 1), "frame_interval must be at least 1, got 0"),
        (lambda: sampling.temporal_fragments(5, 0, 1, 1), "count must be at least 1, got 0"),
    ],
)
def test_arguments_below_one_are_named(call, message):
    with pytest.raises(ValueError) as caught:
        call()
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("milliseconds", "expected"),
    [
        ([40] * 10 + [1200] + [40] * 10, [1] * 10 + [30] + [1] * 10),
        ([40] * 12 + [120] * 12, [1] * 12 + [3] * 12),
        ([17, 17, 16, 17, 33, 1000], [1, 1, 1, 1, 2, 59]),  # whole milliseconds, 60 a second
        ([30, 30, 40] * 9, [1] * 27),  # GIF, 30 a second
        ([33, 50] * 12, [1] * 24),  # films at 60 a second
        ([1, *[33] * 12], [1] * 13),  # a recorder's first frame
        ([4] * 20 + [8] * 2 + [200], [1] * 22 + [12]),  # never more than 60 a second
        ([1000] * 20 + [100], [1] * 21),  # a show of slides
        ([42] * 20 + [83] + [42] * 20, [1] * 41),  # one was dropped, which nobody sees
        ([42] * 20 + [83, 125] + [42] * 20, [1] * 20 + [2, 3] + [1] * 20),
        ([40], [1]),
        ([40, 400], [1, 1]),
    ],
)
def test_times_shown(milliseconds, expected):
    found = sampling.times_shown(np.array(milliseconds) / 1000)
    assert found.dtype == np.int64 and found.tolist() == expected


def test_a_jittery_clock_changes_nothing():
    seconds = np.random.default_rng(0).normal(1 / 30, 0.004, 900)
    assert sampling.times_shown(seconds).tolist() == [1] * 900


def test_a_forged_time_does_not_take_all_memory():
    found = sampling.times_shown(np.array([0.04] * 20 + [1e12]))
    assert found.sum() < 2**21
