"""`aigveval timeline`."""

from __future__ import annotations

import glob
import os
from pathlib import Path
from typing import Annotated, Optional

import typer

from ..errors import InputError
from .console import native_stderr_silenced, print_windows, video_progress
from .options import SCALE, Device, Dtype, Fps, ModelName, Quiet, check_fps

TIMELINE_HELP = f"""\
Scores a video along its time.

A window slides over the video, and each stretch is scored as a clip of its own. The scores go into
a plot and a CSV file with one row per window. If the model explains, the defects of the whole
video are marked in the plot with their time ranges, and named in the rows of the windows that they
touch.

{SCALE}
A window much shorter than the clips that the model was trained on (`lite`: 2 to 10 seconds) gets
less certain scores, and what shows only over time, such as a lack of motion, needs a longer one.

Examples:

- `aigveval timeline clip.mp4`
- `aigveval timeline clip.mp4 --prompt "a dog runs" --window 3 --step 1 --plot clip.svg`
"""


def timeline(
    video: Annotated[Path, typer.Argument(metavar="VIDEO", help="The video.")],
    prompt: Annotated[
        Optional[str], typer.Option(help="Text that the video was generated from.")
    ] = None,
    window: Annotated[float, typer.Option(metavar="SECONDS", help="Length of a window.")] = 2.0,
    step: Annotated[
        Optional[float],
        typer.Option(
            metavar="SECONDS",
            help="From a window's start to the next one's. By default 0.5, or a shorter window's "
            "length.",
        ),
    ] = None,
    fps: Fps = None,
    model: ModelName = "lite",
    plot: Annotated[
        Optional[Path],
        typer.Option(
            metavar="FILE",
            help="Plot: `.png`, `.svg` or `.pdf`. By default `VIDEO.timeline.png` in the current "
            "folder, after the folder for a pattern of pictures.",
        ),
    ] = None,
    csv: Annotated[
        Optional[Path],
        typer.Option(
            metavar="FILE", help="Scores: `.csv`. By default `VIDEO.timeline.csv` likewise."
        ),
    ] = None,
    device: Device = None,
    dtype: Dtype = "auto",
    quiet: Quiet = False,
) -> None:
    several = glob.has_magic(video.name) and not os.path.lexists(video)
    name = (video.parent.name or "frames") if several else video.stem
    plot = Path(f"{name}.timeline.png") if plot is None else plot
    csv = Path(f"{name}.timeline.csv") if csv is None else csv
    check_fps(fps)
    _check(window, step, plot, csv)
    from ..inference.assessor import load
    from ..inference.timeline import make_timeline
    from ..reports.plots import plot_timeline, write_timeline

    assessor = load(model, device=device, dtype=dtype)
    with native_stderr_silenced(), video_progress(quiet=quiet, unit="window") as progress:
        task = progress.add_task("scoring", total=None)
        found = make_timeline(
            assessor,
            video,
            prompt=prompt,
            fps=fps,
            window_seconds=window,
            step_seconds=step,
            on_window=lambda done, total: progress.update(task, completed=done, total=total),
        )
    write_timeline(found, csv)
    plot_timeline(found, plot)
    if not quiet:
        print_windows(found)
        typer.echo(f"the plot is {plot}, the scores are {csv}")


def _check(window: float, step: float | None, plot: Path, csv: Path) -> None:
    """Fails before the work is done rather than after it."""
    if not 0 < window < float("inf"):
        raise InputError(f"--window ({window:g}) must be above 0")
    if step is not None and not 0 < step <= window:
        raise InputError(f"--step ({step:g}) must be above 0 and at most --window ({window:g})")
    for path, suffixes, what in (
        (plot, (".png", ".svg", ".pdf"), "a plot"),
        (csv, (".csv",), "the file of scores"),
    ):
        if path.suffix.lower() not in suffixes:
            raise InputError(f"{path}: {what} is one of {', '.join(suffixes)}")
        folder = path.parent
        if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
            raise InputError(f"{path}: cannot be written, see the folder {folder}")
