"""`aigveval compare`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from ..assessment import Assessment
from .best import CHANCES, assess
from .console import LEVEL_NUMBERS, print_errors, print_json
from .options import SCALE, AsJson, Device, Dtype, Fps, ModelName

if TYPE_CHECKING:
    from ..inference.choice import Comparison

COMPARE_HELP = f"""\
Says which of two videos of one prompt is better, how surely, and on which dimension.

A and B are video files, or folders or patterns of numbered pictures.

{CHANCES}
{SCALE}
Examples:

- `aigveval compare a.mp4 b.mp4 --prompt "a dog runs on the beach"`
- `aigveval compare a.mp4 b.mp4 --json`

The exit code is 0 when both videos were scored, 1 when one could not be, 2 when the command could
not be carried out.
"""


def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="A video.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another one.")],
    prompt: Annotated[
        Optional[str], typer.Option(help="Text that both videos were generated from.")
    ] = None,
    fps: Fps = None,
    model: ModelName = "lite",
    device: Device = None,
    dtype: Dtype = "auto",
    as_json: AsJson = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print the name of the better one alone.")
    ] = False,
) -> None:
    from ..data.manifest import check_exists, make_clip

    clips = [check_exists(make_clip(path, prompt)) for path in (first, second)]
    rows = assess(clips, model, fps=fps, quiet=quiet or as_json, device=device, dtype=dtype)
    if any(row.error is not None for row in rows):
        print_errors(rows)
        raise typer.Exit(1)
    from ..inference.choice import better_on
    from ..inference.choice import compare as compare_rows

    found = compare_rows(*rows)
    number, chance = better_on(found, "overall")
    better = rows[number].video
    if as_json:
        plain = {"better": better, "chance": round(chance, 4), **asdict(found)}
        plain["clips"] = [row.to_dict() for row in rows]
        print_json(plain)
    elif quiet:
        typer.echo(better)
    else:
        _print(rows, found)


def _print(rows: Sequence[Assessment], found: Comparison) -> None:
    from rich.console import Console
    from rich.table import Table

    from ..inference.choice import percent, verdict

    table = Table(show_edge=False, caption=LEVEL_NUMBERS)
    for column in ("score", "A", "B", "A - B", "chance that A is better"):
        table.add_column(column, justify="left" if column == "score" else "right", no_wrap=True)
    for name, difference in found.differences.items():
        scores = [f"{getattr(row, name).score:.2f}" for row in rows]
        table.add_row(name, *scores, f"{difference:+z.2f}", percent(found.chances[name]))
    Console().print(table)
    typer.echo(verdict([row.video for row in rows], found))
