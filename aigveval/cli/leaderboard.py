"""`aigveval leaderboard`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from .console import print_errors, say, step_progress
from .evaluate import deliver
from .options import (
    Address,
    BatchSize,
    Device,
    Dtype,
    Engine,
    ModelName,
    Processes,
    Quiet,
    Report,
    Tables,
    Workers,
    cluster_of,
)

if TYPE_CHECKING:
    from ..evaluation.ratings import RatedClip

LEADERBOARD_HELP = """\
Ranks generators by the mean score of their clips.

INPUT is a folder that holds one folder of videos per generator, which are scored first; or a file
with scores: results of `aigveval score`, or any table with `video` and scores, human ones too. In a
file, the generator is the column `generator`, else what `--manifest` says of the video, else the
folder that the video is in.

Each mean has a bootstrap interval; where generators share prompts, whole prompts are drawn.
Generators that share a letter in the column `group` do not differ significantly.

Examples:

- `aigveval leaderboard clips --prompts prompts.csv --report leaderboard.html`
- `aigveval leaderboard results.jsonl --manifest clips.csv --by motion --out leaderboard.tex`

The exit code is 0 when all clips had scores, 1 when some could not be scored, 2 when there is no
leaderboard.
"""


def leaderboard(
    source: Annotated[
        Path, typer.Argument(metavar="INPUT", help="Folder or file.", show_default=False)
    ],
    manifest: Annotated[
        Optional[Path],
        typer.Option(
            metavar="FILE", help="Table with `video` and `generator`, and `prompt` if known."
        ),
    ] = None,
    by: Annotated[str, typer.Option(help="The score that ranks.")] = "overall",
    prompts: Annotated[
        Optional[Path],
        typer.Option(metavar="FILE", help="Prompts of the videos, as in `aigveval score`."),
    ] = None,
    model: ModelName = "lite",
    results: Annotated[
        Path,
        typer.Option(
            metavar="FILE", help="Where scores of a folder go. What it has already is kept."
        ),
    ] = Path("leaderboard.jsonl"),
    batch_size: BatchSize = 8,
    workers: Workers = 2,
    device: Device = None,
    dtype: Dtype = "auto",
    engine: Engine = "local",
    address: Address = None,
    processes: Processes = None,
    draws: Annotated[
        int, typer.Option(min=0, help="Bootstrap samples; 0 for no intervals and no groups.")
    ] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")] = 0,
    out: Tables = None,
    report: Report = None,
    quiet: Quiet = False,
) -> None:
    from ..assessment import SCORE_FIELDS
    from ..errors import InputError
    from ..evaluation.figures import Sampling
    from ..evaluation.leaderboard import generators_of_folders, rank
    from ..evaluation.ratings import read_predictions
    from ..reports.html.ranking import write_report
    from ..reports.tables import board_tables, check_outputs
    from .score import score_into, stop_if_interrupted

    if by not in SCORE_FIELDS:
        raise InputError(f"{by!r} is no score; there are {', '.join(SCORE_FIELDS)}")
    check_outputs(out or [], report, sources=[source, *([manifest] if manifest else [])])
    cluster = cluster_of(
        engine, address=address, processes=processes, device=device, workers=workers
    )
    if source.is_dir():
        empty = _check_folder(source, prompts, manifest)
        if empty and not quiet:
            say(f"note: no video is in {', '.join(empty)}", style="yellow")
        done = score_into(
            results,
            [str(source)],
            prompt=None,
            prompts=prompts,
            model=model,
            batch_size=batch_size,
            workers=workers,
            device=device,
            cluster=cluster,
            dtype=dtype,
            resume=True,
            quiet=quiet,
        )
        print_errors(done.rows)
        stop_if_interrupted(done, results)
        # rows of other models and versions stay before those of this run
        clips = read_predictions(results)[-len(done.rows) :]
    else:
        clips = read_predictions(source)
    if manifest is not None:
        clips = _with_manifest(clips, manifest, source)
    clips = generators_of_folders(clips)
    with step_progress("resampling", quiet=quiet) as advance:
        board = rank(clips, by=by, sampling=Sampling(draws=draws, seed=seed), progress=advance)
    shown = board_tables(board)
    deliver(board, shown, out=out, report=report, write_report=write_report, quiet=quiet)
    raise typer.Exit(int(any(by not in clip.scores for clip in clips)))


def _check_folder(source: Path, prompts: Path | None, manifest: Path | None) -> list[str]:
    """Finds out before hours of scoring whether there are generators; gives folders without any.

    Raises:
        InputError: there are none, or the manifest lacks a video.
    """
    from ..data.inputs import collect
    from ..evaluation.leaderboard import check_generators, generators_of_folders
    from ..evaluation.ratings import RatedClip

    found = collect([str(source)], prompt=None, prompts=prompts).clips
    clips = [RatedClip(row=0, video=clip.video, path=clip.path, scores={}) for clip in found]
    if manifest is not None:
        clips = _with_manifest(clips, manifest, source)
    check_generators(clip.generator for clip in generators_of_folders(clips))
    inside = {parent for clip in clips for parent in clip.path.parents}
    folders = sorted(path for path in source.iterdir() if path.is_dir())
    return [path.name for path in folders if path not in inside and path.name[0] != "."]


def _with_manifest(clips: Sequence[RatedClip], manifest: Path, source: Path) -> list[RatedClip]:
    """The clips with the generator and prompt that the manifest has for them."""
    from ..errors import InputError
    from ..evaluation.ratings import match, read_predictions

    known = read_predictions(manifest)
    partners, _ = match(clips, known, wanted_folder=source.parent, path=manifest)
    lost = [clip.video for clip, partner in zip(clips, partners) if partner is None]
    if lost:
        others = f" and {len(lost) - 1} others" if len(lost) > 1 else ""
        raise InputError(f"{manifest}: has no row for {lost[0]}{others}")
    return [
        replace(
            clip,
            generator=partner.generator or clip.generator,
            prompt=partner.prompt or clip.prompt,
        )
        for clip, partner in zip(clips, partners)
        if partner is not None
    ]
