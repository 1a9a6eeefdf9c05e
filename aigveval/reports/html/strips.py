"""Contact strips: a few small frames of a clip side by side, as a JPEG inside a data URI."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import one_line

FRAMES = 4
HEIGHT_PX = 72
WIDEST_FRAME_PX = 128  # one of 16:9 is whole; a wider one is cut at the sides
_GAP_PX = 2
_QUALITY = 65  # of JPEG, 0 to 95


@dataclass(frozen=True, kw_only=True)
class Strip:
    """A contact strip, or why there is none.

    Args:
        uri: `data:image/jpeg;base64,...`; empty without picture.
        width_px, height_px: of the picture.
        reason: why there is no picture; one line.
    """

    uri: str = ""
    width_px: int = 0
    height_px: int = 0
    reason: str = ""


def make_strip(path: Path) -> Strip:
    """Reads four frames, evenly spread over the clip; a file that cannot be read gives a reason."""
    from PIL import Image

    from encoders.sampling import uniform
    from encoders.video import FrameRequest, VideoError, read_frames

    request = FrameRequest(indices=lambda count, fps: uniform(count, FRAMES), stream="fast")
    try:
        _, found = read_frames(path, {"strip": request}, fast_short_side_px=2 * HEIGHT_PX)
    except VideoError as error:
        return Strip(reason=one_line(error.reason))
    frames = found["strip"].pixels.permute(0, 2, 3, 1).numpy()  # (t, h, w, 3)
    height, width = frames.shape[1:3]
    width = max(1, round(width * HEIGHT_PX / height))
    shown = min(width, WIDEST_FRAME_PX)
    left = (width - shown) // 2
    parts: list[np.ndarray] = []
    for frame in frames:
        small = Image.fromarray(frame).resize((width, HEIGHT_PX), Image.Resampling.LANCZOS)
        parts += [np.asarray(small)[:, left:left + shown], np.full((HEIGHT_PX, _GAP_PX, 3), 255)]
    picture = np.concatenate(parts[:-1], axis=1).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="JPEG", quality=_QUALITY, optimize=True)
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Strip(
        uri=f"data:image/jpeg;base64,{encoded}", width_px=picture.shape[1], height_px=HEIGHT_PX
    )


def make_strips(
    paths: Sequence[Path], *, workers: int = 2, quiet: bool = False
) -> dict[Path, Strip]:
    """Makes the strips of all paths, each once, with a progress bar on a terminal."""
    unique = list(dict.fromkeys(paths))
    with _progress(quiet=quiet, total=len(unique)) as advance, ThreadPoolExecutor(workers) as pool:
        strips = {}
        for path, strip in zip(unique, pool.map(make_strip, unique)):
            strips[path] = strip
            advance()
    return strips


@contextmanager
def _progress(*, quiet: bool, total: int) -> Iterator[Callable[[], None]]:
    from ...cli.console import native_stderr_silenced, video_progress

    with native_stderr_silenced(), video_progress(quiet=quiet) as bar:
        task = bar.add_task("contact strips", total=total)
        yield lambda: bar.advance(task)
