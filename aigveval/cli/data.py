"""`aigveval data`: check, convert, split."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import typer
from typer.core import TyperCommand

from .console import bar_of, one_line_errors, say
from .options import COLUMN_NAMES, Quiet

if TYPE_CHECKING:
    from ..data.check import Overlap
    from ..data.split import Split

SHOWN_OVERLAPS = 3  # pairs of parts that share one kind of thing

DATA_HELP = f"""\
Brings data sets into one form, checks them and splits them.

A **manifest** is a table with a row per video: CSV, JSON, JSON Lines, Parquet, or a Hugging Face
data set (a folder, or `owner/name[/configuration][:split]` on the Hub). Columns: `video` (path from
the manifest), `prompt`, any of `technical`, `motion`, `semantic`, `overall` (mean opinion scores,
1-5 unless `--scale` says otherwise), raters' own scores `technical_rater1`, ..., `generator`,
`group`, `split`, `weight`. A manifest of **pairs** has `video_a`, `video_b`, `prompt` and, for each
score, `A`, `B` or `same`.

{COLUMN_NAMES}
"""

CHECK_HELP = """\
Reports what is in a manifest and what is wrong with it.

Wrong rows with their numbers, files that are missing or cannot be read, rows and files that are
there twice, how scores are spread, and what the parts of the data set share: by the column `split`,
or by file where several are given. A picture of it goes to `--picture`.

Examples:

- `aigveval data check manifest.csv`
- `aigveval data check train.jsonl test.jsonl --files none --json check.json`
- `aigveval data check t2vqa.csv --scale 0:100`

The exit code is 0 when all rows and files are sound, 1 when some are not, 2 when the command could
not be carried out. Copies and leaks do not change it.
"""

CONVERT_HELP = """\
Reads a public data set from its own files and writes a manifest, scores on 1-5.

{adapters}
Examples:

- `aigveval data convert ntire2025 train.txt val.txt test.txt --videos clips --out ntire.jsonl`
- `aigveval data convert fetv manual_eval_results --prompts fetv_data.json --out fetv.csv`
- `aigveval data convert manifest mine.csv --scale 0:100 --out mine.parquet`

Several files become the parts of one manifest, named in its column `split`.
"""

SPLIT_HELP = """\
Splits a manifest into parts or folds, each a manifest of its own.

`--by prompt` keeps all videos of a prompt in one part, so that a model is not tested on prompts it
was trained on; `--by generator` does so with generators, `--by group` with the column `group`.
Rows about the same video are never parted. The same seed gives the same parts, whatever the order
of the rows. What the new parts share, and what those of the manifest shared, is reported.

Examples:

- `aigveval data split manifest.csv --by prompt --out parts`
- `aigveval data split ntire.jsonl --only train --by prompt --folds 5 --out folds`
- `aigveval data split manifest.csv --by generator --parts train=0.7,test=0.3 --out parts`
"""

data = typer.Typer(help=DATA_HELP, no_args_is_help=True, rich_markup_mode="markdown")

_Scale = Annotated[
    Optional[str], typer.Option(metavar="LOW:HIGH", help="Scale of the scores, such as `0:100`.")
]


@data.command(help=CHECK_HELP, no_args_is_help=True)
@one_line_errors()
def check(
    manifests: Annotated[
        list[str], typer.Argument(metavar="MANIFEST...", help="Manifests of videos or of pairs.")
    ],
    scale: _Scale = None,
    files: Annotated[
        Literal["none", "open", "decode"],
        typer.Option(help="How far to look into files: not, at one frame, at frames all over."),
    ] = "open",
    picture: Annotated[
        Path, typer.Option(metavar="FILE.png", help="Where to draw the findings.")
    ] = Path("check.png"),
    no_picture: Annotated[bool, typer.Option("--no-picture", help="Draw nothing.")] = False,
    json_file: Annotated[
        Optional[Path], typer.Option("--json", metavar="FILE", help="Write all findings as JSON.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Threads that read files.")] = 2,
    quiet: Quiet = False,
) -> None:
    from ..data.check import check_manifests
    from ..data.scales import MOS, Scale
    from ..errors import InputError
    from ..files import write_text
    from ..reports.plots import plot_check
    from .data_report import print_report

    if not no_picture and picture.suffix.lower() != ".png":
        raise InputError(f"{picture}: the picture is a .png file")
    if json_file is not None and not json_file.parent.is_dir():
        raise InputError(f"{json_file}: cannot be written: No such file or directory")
    parsed = Scale.parse(scale) if scale else MOS
    with _row_progress("checking", quiet=quiet) as advance:
        report = check_manifests(
            manifests, scale=parsed, files=files, workers=workers, progress=advance
        )
    if not quiet:
        print_report(report)
    if json_file is not None:
        findings = json.dumps(report.to_dict(), ensure_ascii=False, indent=1)
        write_text(json_file, findings + "\n")
    if not no_picture and report.rows:
        plot_check(report, picture)
        if not quiet:
            say(f"the picture is in {picture}")
    raise typer.Exit(int(not report.sound))


class _ConvertCommand(TyperCommand):
    """Lists the adapters when its help is asked for, and not at each start of the program."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        from ..data.adapters import find_adapter, list_adapters

        lines = []
        for name in list_adapters():
            adapter = find_adapter(name)
            scores = f"scores {adapter.scale}" if adapter.scale else "no scores"
            given = "pairs" if adapter.pairs else scores
            lines.append(f"- `{name}`: {adapter.title}, {given}; reads {adapter.reads}\n")
        self.help = CONVERT_HELP.replace("{adapters}", "".join(lines))
        super().format_help(ctx, formatter)


@data.command(help=CONVERT_HELP, no_args_is_help=True, cls=_ConvertCommand)
@one_line_errors()
def convert(
    adapter: Annotated[str, typer.Argument(metavar="ADAPTER", help="Name of the data set.")],
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="Its files, as they are published.")
    ],
    out: Annotated[
        Path,
        typer.Option(metavar="FILE", help="Manifest: `.jsonl`, `.csv`, `.json`, `.parquet`."),
    ],
    videos: Annotated[
        Optional[Path],
        typer.Option(metavar="DIR", help="Folder of the videos, by default that of FILE."),
    ] = None,
    prompts: Annotated[
        Optional[Path],
        typer.Option(metavar="FILE", help="Prompts, where FILE holds none."),
    ] = None,
    scale: _Scale = None,
    score: Annotated[
        Optional[Literal["technical", "motion", "semantic", "overall"]],
        typer.Option(help="What the only score of a data set stands for."),
    ] = None,
    mean_overall: Annotated[
        bool,
        typer.Option(
            "--mean-overall",
            help="Take the mean of the dimensions as overall score of a data set that has none.",
        ),
    ] = False,
    quiet: Quiet = False,
) -> None:
    from ..data.adapters import find_adapter
    from ..data.convert import convert as run
    from ..data.scales import MOS, Scale

    given = Scale.parse(scale) if scale else None
    known_scale = given or find_adapter(adapter).scale or MOS
    with _row_progress("converting", quiet=quiet) as advance, known_scale.hinted():
        done = run(
            adapter,
            files,
            out,
            videos=videos,
            prompts=prompts,
            scale=given,
            score=score,
            mean_overall=mean_overall,
            progress=advance,
        )
    if not quiet:
        known = ", ".join(f"{name} {count:,}" for name, count in done.scores.items() if count)
        mapped = "" if done.scale in (None, MOS) else f", mapped from {done.scale} to 1-5"
        typer.echo(
            f"{done.rows:,} {'pairs' if done.pairs else 'rows'} are in {out}; "
            f"{f'known: {known}{mapped}' if known else 'no scores'}"
        )


@data.command(help=SPLIT_HELP, no_args_is_help=True)
@one_line_errors()
def split(
    manifest: Annotated[
        str, typer.Argument(metavar="MANIFEST", help="Manifest of videos or of pairs.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the parts.")],
    by: Annotated[
        Literal["random", "prompt", "generator", "group"],
        typer.Option(help="What no two parts may share, besides videos."),
    ] = "prompt",
    parts: Annotated[
        str, typer.Option(metavar="NAME=SHARE,...", help="The parts and their shares of the rows.")
    ] = "train=0.8,valid=0.1,test=0.1",
    folds: Annotated[
        Optional[int],
        typer.Option(
            min=2, metavar="K", help="Folds, in place of parts: `DIR/fold0/train`, `valid`, ..."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Another seed gives other parts.")] = 0,
    only: Annotated[
        Optional[str], typer.Option(metavar="SPLIT", help="Take but the rows of this `split`.")
    ] = None,
    form: Annotated[
        Optional[Literal["jsonl", "csv", "json", "parquet"]],
        typer.Option("--format", help="Format of the parts, by default that of MANIFEST."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    from ..data.split import parse_parts
    from ..data.split import split as run

    with _row_progress("splitting", quiet=quiet) as advance:
        done = run(
            manifest,
            out,
            by=by,
            parts=None if folds else parse_parts(parts),
            folds=folds,
            seed=seed,
            only=only,
            suffix=f".{form}" if form else None,
            progress=advance,
        )
    if not quiet:
        _print_split(done, folds)


def _print_split(done: Split, folds: int | None) -> None:
    for line in _shown(done.before):
        say(f"note: as given, {line}", style="yellow")
    total = sum(done.rows.values())
    for name, count in done.rows.items():
        file = done.files[name if folds is None else f"fold{name}/valid"]
        typer.echo(f"{count:>9,} rows ({count / total:.1%}) in {file}")
    if folds is not None:
        typer.echo("and beside each fold, in train, the rows of all others")
    if not done.after:
        typer.echo("no two parts share a prompt, a generator or a video")
    for line in _shown(done.after):
        say(f"note: {line}", style="yellow")


def _shown(overlaps: list[Overlap]) -> list[str]:
    lines = []
    for what in dict.fromkeys(overlap.what for overlap in overlaps):
        found = [str(overlap) for overlap in overlaps if overlap.what == what]
        lines += found[:SHOWN_OVERLAPS]
        if len(found) > SHOWN_OVERLAPS:
            lines.append(f"... and {len(found) - SHOWN_OVERLAPS} more pairs of parts share {what}")
    return lines


@contextmanager
def _row_progress(title: str, *, quiet: bool) -> Iterator[Callable[[], None]]:
    """Counts rows on standard error while they pass, if that is a terminal."""
    from rich.progress import SpinnerColumn, TimeElapsedColumn

    texts = "{task.description}", "{task.completed:,} rows"
    with bar_of(SpinnerColumn(), *texts, TimeElapsedColumn(), quiet=quiet) as progress:
        task = progress.add_task(title, total=None)
        yield (lambda: None) if progress.disable else (lambda: progress.advance(task))
