"""`aigveval submit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

from .console import SHOWN_ROWS, say

if TYPE_CHECKING:
    from ..evaluation.ntire import Check

SUBMIT_HELP = """\
Makes the zip that NTIRE's challenge on AI-generated videos takes.

PREDICTIONS are results of `aigveval score`, or any table with `video` and `overall`. NAMES lists
the videos that have to be scored: the organisers' `.txt` (`name|prompt` a line), or a manifest.

The zip holds `output.json`, a list of `{video, predict_score}` in the order of NAMES, and
`readme.txt` with what the organisers ask for. Videos are matched by their file names. Names that
are missing, extra or there twice are listed, and there is no zip then.

Example:

- `aigveval submit results.jsonl ntire2025_test.txt --hardware gpu --no-extra-data`

The exit code is 0 when the zip was written, 1 when the names are not right, 2 when the command
could not be carried out.
"""


def submit(
    predictions: Annotated[
        Path, typer.Argument(metavar="PREDICTIONS", help="Predicted scores.", show_default=False)
    ],
    names: Annotated[
        Path, typer.Argument(metavar="NAMES", help="Videos to be scored.", show_default=False)
    ],
    hardware: Annotated[
        Literal["cpu", "gpu"], typer.Option(help="What the predictions were computed on.")
    ],
    extra_data: Annotated[
        bool,
        typer.Option(
            "--extra-data/--no-extra-data",
            show_default=False,
            help="Whether anything but the challenge's own data was trained on.",
        ),
    ],
    runtime: Annotated[
        Optional[float],
        typer.Option(
            metavar="SECONDS",
            show_default="the mean of PREDICTIONS",
            help="For one video.",
        ),
    ] = None,
    llm: Annotated[
        bool, typer.Option("--llm/--no-llm", help="Whether a large language model is part of it.")
    ] = True,
    description: Annotated[
        Optional[str], typer.Option(help="A line about the method.", show_default="the model")
    ] = None,
    score: Annotated[str, typer.Option(help="Score that is submitted.")] = "overall",
    column: Annotated[
        Optional[str], typer.Option(help="Column of PREDICTIONS that is taken instead.")
    ] = None,
    drop_extra: Annotated[
        bool, typer.Option("--drop-extra", help="Leave out names that NAMES has not.")
    ] = False,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The zip.")] = Path("submission.zip"),
) -> None:
    from ..assessment import SCORE_FIELDS
    from ..errors import InputError
    from ..evaluation.ntire import Readme, check, mean_seconds, read_names, write_zip
    from ..evaluation.ratings import read_predictions
    from ..versions import __version__

    if score not in SCORE_FIELDS:
        raise InputError(f"{score!r} is no score; there are {', '.join(SCORE_FIELDS)}")
    if column is not None and score != "overall":
        raise InputError("--score and --column exclude each other")
    if out.suffix.lower() != ".zip":
        raise InputError(f"{out}: a submission is a .zip")
    rated = read_predictions(predictions, column=column)
    found = check(rated, read_names(names), score=score)
    if not _list_problems(found, dropping=drop_extra):
        say(f"no submission: see above what is wrong with {predictions}", style="red")
        raise typer.Exit(1)
    seconds = runtime if runtime is not None else mean_seconds(rated)
    models = ", ".join(sorted({clip.model for clip in rated if clip.model}))
    unknown = ["the runtime: give --runtime"] if seconds is None else []
    unknown += [] if models or description is not None else ["the model: give a --description"]
    if seconds is None or unknown:
        raise InputError(f"{predictions}: does not tell {'; and '.join(unknown)}")
    readme = Readme(
        runtime_seconds=seconds,
        cpu=hardware == "cpu",
        extra_data=extra_data,
        llm=llm,
        description=f"aigveval {__version__}, model {models}"
        if description is None
        else description,
    )
    write_zip(out, found.scores, readme)
    typer.echo(f"{len(found.scores)} scores are in {out}")
    typer.echo(str(readme), nl=False)


def _list_problems(found: Check, *, dropping: bool) -> bool:
    """Lists what is wrong with the names; whether it can be submitted all the same."""
    for problem, listed in (
        ("missing", found.missing),
        ("extra", found.extra),
        ("duplicate", found.duplicates),
        ("repeated in the list of names", found.repeated),
    ):
        if not listed:
            continue
        say(f"{len(listed)} {problem}:", style="red")
        for name in listed[:SHOWN_ROWS]:
            say(f"  {name}")
        if len(listed) > SHOWN_ROWS:
            say(f"  ... and {len(listed) - SHOWN_ROWS} more")
    return found.is_complete or (
        dropping and not (found.missing or found.duplicates or found.repeated)
    )
