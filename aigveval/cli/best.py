"""`aigveval best`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import typer

from ..assessment import Assessment
from ..errors import InputError, as_text
from .console import (
    LEVEL_NUMBERS,
    native_stderr_silenced,
    plain,
    print_errors,
    print_json,
    print_wide,
    say,
    video_progress,
)
from .options import (
    SCALE,
    AsJson,
    BatchSize,
    Device,
    Dtype,
    Fps,
    ModelName,
    Prompt,
    Workers,
    check_fps,
)

if TYPE_CHECKING:
    from ..data.manifest import Clip

ScoreName = Literal["overall", "technical", "motion", "semantic"]

CHANCES = """\
A chance is computed from the scores as independent normal distributions. Their standard deviation
comes from the score's 80 % interval, (high - low) / 2.563 (twice its longer side in place of
high - low, where it ends at 1 or 5), or where a model gives none, from the spread of its belief;
`basis` says which. Clips of one prompt have errors in common, so chances are rather too near to a
coin's than too far.
"""
BEST_HELP = f"""\
Picks the best of several videos of one prompt.

INPUTS are those of `aigveval score`: files, folders, patterns, manifests, folders of numbered
pictures. Videos with the same prompt compete; videos without a prompt compete with those of their
folder. So `--prompt` makes one contest of all, and a folder for each prompt makes as many as there
are: `--prompts folders` takes their names as the prompts.

{CHANCES}
{SCALE}
Examples:

- `aigveval best out/*.mp4 --prompt "a dog runs on the beach"`
- `aigveval best out --prompts folders`
- `aigveval best out --prompts prompts.csv --by motion --json`

The exit code is 0 when all videos were scored, 1 when some could not be (the best of the others is
picked), 2 when the command could not be carried out.
"""


def best(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUTS...", help="Files, folders, patterns, manifests."),
    ],
    prompt: Prompt = None,
    prompts: Annotated[
        Optional[Path],
        typer.Option(metavar="FILE|names|folders", help="Prompts, as for `aigveval score`."),
    ] = None,
    by: Annotated[ScoreName, typer.Option(help="The score that counts.")] = "overall",
    fps: Fps = None,
    model: ModelName = "lite",
    batch_size: BatchSize = 8,
    workers: Workers = 2,
    device: Device = None,
    dtype: Dtype = "auto",
    as_json: AsJson = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print the names of the best alone.")
    ] = False,
) -> None:
    from ..data.inputs import collect

    found = collect(inputs, prompt=prompt, prompts=prompts)
    for note in [] if quiet or as_json else found.notes:
        say(f"note: {note}", style="yellow")
    rows = assess(
        found.clips,
        model,
        fps=fps,
        quiet=quiet or as_json,
        batch_size=batch_size,
        workers=workers,
        device=device,
        dtype=dtype,
    )
    if not any(getattr(row, by) for row in rows) and any(row.error is None for row in rows):
        why = "; it needs prompts" if by == "semantic" else ""
        raise InputError(f"no video has a score for {by}{why}")
    groups: dict[tuple[str, str], list[Assessment]] = {}
    for clip, row in zip(found.clips, rows):
        key = ("prompt", row.prompt) if row.prompt else ("folder", as_text(clip.path.parent))
        groups.setdefault(key, []).append(row)
    contests = [_contest(kind, name, group, by) for (kind, name), group in groups.items()]
    if as_json:
        print_json({"by": by, "contests": contests})
    elif quiet:
        for contest in contests:
            if contest["best"] is not None:
                typer.echo(contest["best"])
    else:
        _print(contests, by)
    print_errors(rows)
    raise typer.Exit(int(any(row.error is not None for row in rows)))


def assess(
    clips: Sequence[Clip], model: str, *, fps: float | None, quiet: bool, **options: Any
) -> list[Assessment]:
    """Scores clips with a progress bar, in their order.

    Raises:
        InputError: when there is nothing to open, or the frame rate is none.
    """
    check_fps(fps)
    from ..inference.assessor import load

    if all(clip.problem for clip in clips):
        raise InputError(f"nothing to score: {clips[0].video}: {clips[0].problem}")
    assessor = load(model, **options)
    rows = []
    with native_stderr_silenced(), video_progress(quiet=quiet) as progress:
        task = progress.add_task("scoring", total=len(clips))
        for row in assessor.score_many(clips, fps=fps):
            rows.append(row)
            progress.advance(task)
    return rows


def _contest(kind: str, name: str, rows: Sequence[Assessment], by: str) -> dict[str, Any]:
    """What a contest came to, its clips from the best to the worst, then those without a score."""
    from ..inference.choice import basis_of, chances_of_best

    scored = [row for row in rows if getattr(row, by) is not None]
    scores = [getattr(row, by) for row in scored]
    chances = dict(zip(map(id, scored), chances_of_best(scores) if scores else []))
    scored.sort(key=lambda row: -getattr(row, by).score)
    clips = [row.to_dict() | {"chance": round(chances[id(row)], 4)} for row in scored]
    failed = [row for row in rows if id(row) not in chances]
    return {
        kind: name,
        "best": scored[0].video if scored else None,
        "chance": clips[0]["chance"] if clips else None,
        "basis": basis_of(scores) if scores else None,
        "clips": clips + [row.to_dict() | {"chance": None} for row in failed],
    }


def _print(contests: Sequence[dict[str, Any]], by: str) -> None:
    """One contest with all its clips; of several, the best of each."""
    from rich.table import Table
    from rich.text import Text

    from ..inference.choice import percent

    several = len(contests) > 1
    table = Table(show_edge=False, caption=LEVEL_NUMBERS)
    for column in ("prompt or folder",) * several + ("best" if several else "video",):
        table.add_column(column, overflow="fold")
    for column in (by, "chance to be the best") + ("of",) * several:
        table.add_column(column, justify="right", no_wrap=True)
    for contest in contests:
        for clip in contest["clips"][:1] if several else contest["clips"]:
            known = clip[by] is not None
            cells = [
                Text(plain(clip["video"])) if known or not several else Text("none", style="red"),
                Text(f"{clip[by]['score']:.2f}" if known else "-"),
                Text(percent(clip["chance"]) if known else "-"),
            ]
            if several:
                name = contest.get("prompt") or contest["folder"]
                cells = [Text(plain(name)), *cells, Text(str(len(contest["clips"])))]
            table.add_row(*cells)
    print_wide(table)
    bases = {contest["basis"] for contest in contests if contest["basis"]}
    if bases:
        typer.echo(f"chances are from the {' and the '.join(sorted(bases))} of the scores")
