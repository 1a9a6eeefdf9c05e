"""`aigveval evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

from .console import native_stderr_silenced, say, step_progress
from .options import Quiet, Report, Tables

if TYPE_CHECKING:
    from ..evaluation.evaluate import Evaluation
    from ..evaluation.leaderboard import Leaderboard
    from ..reports.tables import Table

EVALUATE_HELP = """\
Measures how well predicted scores agree with human ones.

PREDICTIONS are results of `aigveval score`, or any `.csv`, `.json`, `.jsonl` or `.parquet` with
`video` and scores (`overall`, `technical`, `motion`, `semantic`; NTIRE's `predict_score` counts as
`overall`). MANIFEST holds `video` and human scores, and optionally `prompt`, `generator` and the
raters' own scores (`motion_rater1`, ...). Videos are matched by path, or by its unique end.

Shown are SROCC, PLCC, KROCC, RMSE, the main score of NTIRE's challenges (SROCC + PLCC) / 2, and the
accuracy on pairs, with bootstrap intervals; inside and between generators, inside prompts; and what
one human rater reaches, where raters' scores are given.

Examples:

- `aigveval evaluate results.jsonl ratings.csv --report report.html`
- `aigveval evaluate results.jsonl ratings.csv --where split=test --out table.tex --out all.json`
- `aigveval evaluate new.jsonl ratings.csv --against old.jsonl`
- `aigveval evaluate musiq.csv ratings.csv --column musiq --prediction-scale 0:100`

The exit code is 0 when every score could be evaluated, 1 when some could not, 2 when none could.
"""


def evaluate(
    predictions: Annotated[
        Path, typer.Argument(metavar="PREDICTIONS", help="Predicted scores.", show_default=False)
    ],
    manifest: Annotated[
        Path, typer.Argument(metavar="MANIFEST", help="Human scores.", show_default=False)
    ],
    against: Annotated[
        Optional[Path],
        typer.Option(metavar="FILE", help="Other predictions, to compare with: paired bootstrap."),
    ] = None,
    score: Annotated[
        Optional[list[str]],
        typer.Option(help="Score to evaluate; repeatable. By default all that both files have."),
    ] = None,
    column: Annotated[
        Optional[str],
        typer.Option(help="Column of PREDICTIONS that is taken for `overall`, and no other."),
    ] = None,
    against_column: Annotated[Optional[str], typer.Option(help="The same for `--against`.")] = None,
    where: Annotated[
        Optional[list[str]],
        typer.Option(
            metavar="COLUMN=VALUE",
            help="Only rows of MANIFEST with this value, or with `COLUMN!=VALUE` without it; "
            "repeatable.",
        ),
    ] = None,
    scale: Annotated[
        str, typer.Option(metavar="LOW:HIGH", help="Scale of the human scores; figures are on it.")
    ] = "1:5",
    prediction_scale: Annotated[
        str, typer.Option(metavar="LOW:HIGH", help="Scale of the predictions.")
    ] = "1:5",
    against_scale: Annotated[
        Optional[str],
        typer.Option(
            metavar="LOW:HIGH",
            show_default="that of PREDICTIONS",
            help="The same for `--against`.",
        ),
    ] = None,
    tie_margin: Annotated[
        Optional[float],
        typer.Option(
            min=0.0,
            show_default="an eighth of the scale",
            help="Human scores that differ by no more than this are tied, in pairs.",
        ),
    ] = None,
    draws: Annotated[
        int, typer.Option(min=0, help="Bootstrap samples; 0 for no intervals.")
    ] = 1000,
    resample: Annotated[
        Literal["auto", "clip", "prompt"],
        typer.Option(help="What is drawn: `auto` draws whole prompts where prompts repeat."),
    ] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")] = 0,
    details: Annotated[
        bool, typer.Option("--details", help="Also a table with every prompt.")
    ] = False,
    out: Tables = None,
    report: Report = None,
    quiet: Quiet = False,
) -> None:
    from ..data.scales import Scale
    from ..evaluation.evaluate import evaluate as run
    from ..evaluation.figures import Sampling
    from ..reports.html.evaluation import write_report
    from ..reports.tables import check_outputs, tables

    sources = [path for path in (predictions, manifest, against) if path is not None]
    check_outputs(out or [], report, sources=sources)
    with step_progress("resampling", quiet=quiet) as advance:
        found = run(
            predictions,
            manifest,
            against=against,
            scores=score or (),
            column=column,
            against_column=against_column,
            where=where or (),
            scale=Scale.parse(scale),
            prediction_scale=Scale.parse(prediction_scale),
            against_scale=None if against_scale is None else Scale.parse(against_scale),
            tie_margin=tie_margin,
            unit=resample,
            sampling=Sampling(draws=draws, seed=seed),
            progress=advance,
        )
    shown = tables(found, details=details)
    deliver(found, shown, out=out, report=report, write_report=write_report, quiet=quiet)
    for name, reason in found.undefined.items():
        say(f"{name} cannot be evaluated: {reason}", style="red")
    raise typer.Exit(int(bool(found.undefined)))


def deliver(
    found: Evaluation | Leaderboard,
    shown: Sequence[Table],
    *,
    out: Sequence[Path] | None,
    report: Path | None,
    write_report: Callable[..., None],
    quiet: bool,
) -> None:
    """Writes the tables of an evaluation or a leaderboard and its report, and prints them."""
    from ..reports.tables import print_tables, write_tables

    for path in out or []:
        write_tables(path, shown, found.to_dict())
    if report is not None:
        with native_stderr_silenced(), step_progress("contact strips", quiet=quiet) as advance:
            write_report(report, found, progress=advance)
    if not quiet:
        print_tables(shown)
        for note in found.notes:
            say(f"note: {note}", style="yellow")
        for path in [*(out or []), *([report] if report else [])]:
            typer.echo(f"written: {path}")
