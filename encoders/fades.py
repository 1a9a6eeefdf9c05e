"""Fades from black and to black, at the ends of a clip."""

from collections.abc import Sequence

import numpy as np

# Mean gray of the first frame beside the clip's median: frames are left out between those that are
# looked at, so that a fade needn't begin with a black one.
_DARK = 0.5
_BLACK = 0.1  # likewise, of frames before the fade
_RISES = 1.0  # gray, of 255, from frame to frame; what changes less has its own brightness
_LONGEST = 1 / 3  # of the clip, at each end


def between_fades(grays: Sequence[np.ndarray]) -> tuple[int, int]:
    """First and last frame, exclusive, of what lies between a fade from black and one to black.

    A fade begins with a frame that is dark beside the clip, and brightens without a halt. Optical
    flow takes that for movement.

    Args:
        grays: t gray frames (h, w), uint8.
    """
    brightness = np.array([gray.mean() for gray in grays])
    level, most = float(np.median(brightness)), int(_LONGEST * len(grays))
    first, last = (_faded(values, level, most) for values in (brightness, brightness[::-1]))
    if first + last == len(grays) - 1:  # of three frames a single one, in which nothing moves
        return 0, len(grays)
    return first, len(grays) - last


def _faded(brightness: np.ndarray, level: float, most: int) -> int:
    """How many frames at the beginning belong to a fade; it's over within `most` of them."""
    if brightness[0] > _DARK * level:
        return 0
    going_on = (np.diff(brightness) > _RISES) | (brightness[:-1] < _BLACK * level)
    count = int(np.argmin(np.append(going_on, False)))
    return count if count <= most else 0
