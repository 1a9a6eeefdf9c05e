"""`aigveval cot`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .console import INTERRUPTED, command_again, say, video_progress
from .options import Quiet

if TYPE_CHECKING:
    from prompts.facts import Fact

    from ..data.cot import CotReport
    from ..data.manifest import ManifestRow

COT_HELP = """Turns labels into texts from which a model learns to explain its scores.

Each row of MANIFEST becomes an answer: levels, one sentence per dimension, defects with severity
and time range, scores. It is written as a chat, in JSON Lines that TRL, ms-swift, LLaMA-Factory and
others read, and every text is read back and must give its labels.

MANIFEST is a ladder's `manifest.jsonl`, or a manifest with scores (columns `technical`, `motion`,
`semantic`, `overall`) and a column `defects`, such as

- JSON Lines: `{"video": "a.mp4", "prompt": "a dog runs", "technical": 2.3, "motion": 4, "semantic":
4.7, "overall": 3.4, "duration_seconds": 4, "defects": {"technical": [{"name": "blur", "severity":
3}], "motion": [{"name": "freeze", "severity": 2, "start_seconds": 0.6, "end_seconds": 1.4}],
"semantic": []}}`

- CSV with the columns `video,prompt,overall,duration_seconds,defects`: `a.mp4,a dog runs,3.4,4,blur
3; freeze 2 0.6-1.4`, or `none` as the last where a clip has no defect.

Where a row has facts (`evidence`, as rows of `aigveval score --explain` have), the sentences are
made of these, and they stand in the row. So results can be fed back; their scores are then those of
the model. `--facts` measures the clips of rows that have none, which takes some seconds each. What
was measured stands in `FILE.jsonl.partial.jsonl` until FILE is written: the same command goes on
after a stop. Clips that can't be read are left out; the exit code is then 1.

A defect without times lasts the whole clip. `aigveval.data.attributions` describes the form,
`prompts.defects.DEFECTS` has the names of defects.

Examples:

- `aigveval cot ladder/manifest.jsonl --out cot/train.jsonl`

- `aigveval cot held-out/manifest.jsonl --out cot/test.jsonl --split test`

- `aigveval cot ladder/manifest.jsonl --out cot/train.jsonl --facts --times seconds`

- `aigveval cot raters.csv --out cot/grpo.jsonl --form prompt --times tenths --variants 2`
"""


def cot(
    manifests: Annotated[
        list[str], typer.Argument(metavar="MANIFEST...", help="Labels of clips, see above.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE.jsonl", help="File to write.")],
    split: Annotated[
        Literal["train", "test"],
        typer.Option(help="Whose wordings to use; no sentence is in both."),
    ] = "train",
    variants: Annotated[int, typer.Option(min=1, help="Texts per clip, in other words.")] = 1,
    times: Annotated[
        Literal["seconds", "tenths"],
        typer.Option(help="Unit of time ranges; tenths of the clip for a model without a clock."),
    ] = "seconds",
    form: Annotated[
        Literal["messages", "prompt"],
        typer.Option(help="Chat in one list, or TRL's prompt and completion (for its GRPO)."),
    ] = "messages",
    facts: Annotated[
        bool,
        typer.Option("--facts", help="Measure the facts of clips whose rows have none."),
    ] = False,
    partial: Annotated[
        bool, typer.Option("--partial", help="Keep clips whose defects nobody looked for.")
    ] = False,
    score_decimals: Annotated[
        int, typer.Option(min=1, max=2, help="Of the scores in the text.")
    ] = 1,
    scale: Annotated[
        str, typer.Option(metavar="LOW:HIGH", help="Scale of the scores in the manifest.")
    ] = "1:5",
    clean_score: Annotated[
        float,
        typer.Option(min=1.0, max=5.0, help="Of a ladder's undamaged clips, if it has no scores."),
    ] = 4.25,
    seed: Annotated[int, typer.Option(help="Seed of the choice of words.")] = 0,
    quiet: Quiet = False,
) -> None:
    from ..data.cot import write_cot
    from ..data.scales import Scale

    given = Scale.parse(scale)
    with _measured(out, quiet=quiet) if facts else contextlib.nullcontext() as measure:
        with video_progress(quiet=quiet) as progress, given.hinted():
            task = progress.add_task("cot", total=None)
            report = write_cot(
                manifests,
                out,
                split=split,
                variants=variants,
                times=times,
                form=form,
                partial=partial,
                score_decimals=score_decimals,
                scale=given,
                clean_score=clean_score,
                seed=seed,
                measure=measure,
                progress=lambda done, total: progress.update(task, completed=done, total=total),
            )
    if not quiet:
        _print(report, out)
    for video, reason in report.unreadable.items():
        say(f"failed: {video}: {reason}", style="red")
    raise typer.Exit(int(bool(report.unreadable)))


def _print(report: CotReport, out: Path) -> None:
    mean = report.characters / report.rows
    typer.echo(f"{report.rows} texts of {mean:.0f} characters on average, in {out}")
    for name, count in report.defects.most_common():
        typer.echo(f"{count:7d} {name}")
    for count, reason in (
        (report.without_defects, "without labels of defects left out (--partial keeps them)"),
        (report.without_scores, "without any score left out"),
    ):
        if count:
            say(f"{count} rows {reason}", style="yellow")
    for kind, count in report.contradictions.most_common():
        say(f"{count} texts whose labels disagree: {kind.replace('_', ' ')}", style="yellow")


@contextlib.contextmanager
def _measured(out: Path, *, quiet: bool) -> Iterator[Callable[[ManifestRow], Sequence[Fact]]]:
    """Gives what finds a clip's facts as `aigveval score --explain` does, and loses none."""
    from ..data.measured import MeasuredFacts
    from ..inference.facts import facts_of
    from ..inference.observe import observe
    from ..reports.results import only_writer

    def measure(row: ManifestRow) -> Sequence[Fact]:
        known = kept.get(row)
        if known is not None:
            return known
        observed = observe(row.path)
        for warning in observed.warnings:
            say(f"{row.path}: {warning}", style="yellow")
        facts = facts_of(observed, row.prompt)
        if observed.things is not None:  # without the detector only for now
            kept.add(row, facts)
        return facts

    with only_writer(out):
        kept = MeasuredFacts(out)
        if kept.earlier and not quiet:
            say(f"facts of {kept.earlier} clips are known from an earlier run")
        try:
            yield measure
        except KeyboardInterrupt:
            where = f"facts of {len(kept)} clips are in {kept.path}" if kept.path else "all is lost"
            say(f"interrupted: {where}; go on with: {command_again()}", style="yellow")
            raise typer.Exit(INTERRUPTED) from None
        kept.remove()
