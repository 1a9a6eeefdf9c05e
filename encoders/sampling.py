"""Which frames of a clip to look at: pure functions from a frame count to frame indices.

Everything here is deterministic and spreads over the whole clip, whatever its length or frame
rate. Indices are int64 and count displayed frames from 0.
"""

import numpy as np

_SHORTEST_SECONDS = 1 / 60  # what is shown for less doesn't set the pace
_USUAL = 0.1  # share of the frames that may be briefer than the pace, and one more
_ALMOST = 0.25  # of a frame's usual time, that may be missing from a multiple of it
_HELD_SECONDS = 0.1  # what is shown for less is no rest, such as of one frame that was dropped
_MOST = 2**20  # frames that one may count as, all together: hours of them


def uniform(num_frames: int, count: int) -> np.ndarray:
    """Centres of `count` equal segments of the clip.

    Args:
        num_frames: Frames in the clip, at least 1.
        count: Frames wanted, at least 1.

    Returns:
        (min(count, num_frames),) ascending, unique: every frame, where the clip has fewer than
        `count`. For example `uniform(100, 4)` is `[12, 37, 62, 87]`.

    Raises:
        ValueError: An argument is below 1.
    """
    _check(num_frames=num_frames, count=count)
    count = min(count, num_frames)
    # Integer arithmetic: (i + 0.5) * n / count without rounding that differs between machines.
    return (2 * np.arange(count, dtype=np.int64) + 1) * num_frames // (2 * count)


def paired(num_frames: int, count: int, group: int = 2) -> np.ndarray:
    """Short runs of consecutive frames around `count` positions spread over the clip.

    Motion between neighbouring frames needs neighbours; one run of `group` frames per position
    gives them without decoding more of a long clip.

    Args:
        num_frames: Frames in the clip, at least 1.
        count: Positions, at least 1.
        group: Consecutive frames at each position, at least 1.

    Returns:
        At most count * group indices, ascending and unique. Runs that overlap are merged, so a
        short clip gives fewer; one shorter than `group` gives every frame.

    Raises:
        ValueError: An argument is below 1.
    """
    _check(num_frames=num_frames, count=count, group=group)
    group = min(group, num_frames)
    starts = np.clip(uniform(num_frames, count) - (group - 1) // 2, 0, num_frames - group)
    return np.unique(starts[:, None] + np.arange(group, dtype=np.int64))


def clips(num_frames: int, clip_len: int, frame_interval: int, num_clips: int) -> np.ndarray:
    """Clips of evenly spaced frames, as FAST-VQA and the action networks sample them.

    Each of `num_clips` equal parts of the video gives one clip, taken from the middle of the
    range where a clip can start. A video that is too short wraps around to its beginning.

    Args:
        num_frames: Frames in the video, at least 1.
        clip_len: Frames per clip, at least 1.
        frame_interval: Distance in frames between two frames of a clip, at least 1.
        num_clips: Clips, at least 1.

    Returns:
        (num_clips, clip_len); a row is ascending unless it wraps around. Pass `np.unique` of it
        to a `FrameRequest`.

    Raises:
        ValueError: An argument is below 1.
    """
    _check(
        num_frames=num_frames,
        clip_len=clip_len,
        frame_interval=frame_interval,
        num_clips=num_clips,
    )
    spare = max(num_frames - clip_len * frame_interval + 1, 1)
    starts = (2 * np.arange(num_clips, dtype=np.int64) + 1) * spare // (2 * num_clips)
    offsets = np.arange(clip_len, dtype=np.int64) * frame_interval
    return (starts[:, None] + offsets) % num_frames


def temporal_fragments(num_frames: int, count: int, length: int, frame_interval: int) -> np.ndarray:
    """Short runs of frames, one from each of `count` equal parts of a video, as in FasterVQA.

    Upstream draws where a run starts in its part, in tests too; here it lies in the middle.

    Args:
        num_frames: Frames in the video, at least 1.
        count: Parts, at least 1.
        length: Frames per run, at least 1.
        frame_interval: Distance in frames between two frames of a run, at least 1.

    Returns:
        (count * length,), run after run. A run longer than its part reaches into the next ones,
        and beyond the last it wraps around to the video's beginning.

    Raises:
        ValueError: An argument is below 1.
    """
    _check(num_frames=num_frames, count=count, length=length, frame_interval=frame_interval)
    edges = np.arange(count + 1, dtype=np.int64) * num_frames // count
    spare = np.maximum(np.diff(edges) - length * frame_interval, 0)
    offsets = np.arange(length, dtype=np.int64) * frame_interval
    starts = edges[:-1] + spare // 2
    return (starts[:, None] + offsets).flatten() % num_frames


def times_shown(seconds: np.ndarray) -> np.ndarray:
    """How many frames of the clip's own pace each frame is shown for.

    Encoders leave out what equals the frame before, which then stays for longer: screen recorders,
    and those of GIF, APNG and WebP. One that is counted as often as others would have fitted in
    gives the clip as it is seen. Clocks that are rounded, or that jitter, change nothing.

    Args:
        seconds: (n,) how long each frame is shown, n at least 1.

    Returns:
        (n,) int64, each at least 1; all 1 at a constant frame rate, or where none stays for long.
    """
    last = len(seconds) - 1
    brief = np.sort(seconds)[min(last, 1 + int(_USUAL * last))]
    alike = (seconds <= 1.5 * brief) & (1.5 * seconds >= brief)
    pace = float(seconds[alike].mean())
    pace = max(pace, _SHORTEST_SECONDS, float(seconds.sum()) / _MOST)
    counts = np.maximum(1, np.floor(seconds / pace + _ALMOST)).astype(np.int64)
    held = seconds[counts > 1] >= _HELD_SECONDS
    return counts if held.any() else np.ones_like(counts)


def _check(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
