"""`aigveval ladder`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from .console import say
from .options import Quiet


def ladder(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCES...", help="Clean videos: files, folders, patterns, manifests."
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write; made if missing.")],
    prompts: Annotated[
        Optional[Path],
        typer.Option(metavar="FILE", help="Prompts of the sources, as for `score`."),
    ] = None,
    types: Annotated[
        Optional[list[str]],
        typer.Option("--type", help="Type of damage, may be repeated; by default all."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random details.")] = 0,
    workers: Annotated[
        Optional[int], typer.Option(min=1, help="Processes; by default one per CPU.")
    ] = None,
    max_side: Annotated[
        int, typer.Option(min=16, metavar="PX", help="Larger frames are shrunk to this side.")
    ] = 640,
    max_seconds: Annotated[
        float, typer.Option(min=0.1, help="Longer clips are cut to their middle.")
    ] = 5.0,
    quiet: Quiet = False,
) -> None:
    """Damages clean videos in known ways: for training, and to test a model.

    From each clip it makes versions with one type of damage in five steps of severity, and writes
    `DIR/manifest.jsonl`: the type, severity, time range and prompt of each version, and the score
    that it should lose on technical, motion and semantic quality. A run that was stopped goes on
    where it was.

    Example: `aigveval ladder clips --out ladder --prompts prompts.csv --type blur --type freeze`
    """
    from ..distortion.ladder import TYPES, make_ladder
    from ..errors import InputError

    unknown = [name for name in types or [] if name not in TYPES]
    if unknown:
        raise InputError(f"no damage of type {unknown[0]!r}; there are {', '.join(TYPES)}")
    failed: list[str] = []

    def report(path: str, reason: str) -> None:
        failed.append(path)
        say(f"failed: {path}: {reason}", style="red")

    manifest = make_ladder(
        sources,
        out,
        types=types or None,
        seed=seed,
        workers=workers,
        max_side_px=max_side,
        max_seconds=max_seconds,
        prompts=prompts,
        quiet=quiet,
        on_error=report,
    )
    if not quiet:
        typer.echo(f"the ladder is described in {manifest}")
    raise typer.Exit(int(bool(failed)))
