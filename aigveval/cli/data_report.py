"""What `aigveval data` found, on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from prompts.rubric import SCORES

from ..data.check import Report
from .console import say

SHOWN = 20  # lines of one kind
SHOWN_GENERATORS = 15
_BARS = " ▁▂▃▄▅▆▇█"


def print_report(report: Report) -> None:
    """Prints what there is on standard output, and what is wrong on standard error."""
    things = "pairs" if report.pairs else "rows"
    typer.echo(
        f"{report.rows:,} {things}, {report.videos:,} videos, {report.prompts:,} distinct prompts"
        + f", {report.without_prompt:,} {things} without a prompt" * bool(report.without_prompt)
    )
    if len(report.parts) > 1:
        parts = ", ".join(f"{name} {count:,}" for name, count in report.parts.items())
        typer.echo(f"parts: {parts}")
    console = Console(width=None if Console().is_terminal else 120)
    if report.scores:
        console.print(_score_table(report))
    elif report.rows and not report.pairs:
        typer.echo(f"no row has a score; columns of scores are {', '.join(SCORES)}")
    if report.preferences:
        console.print(_preference_table(report))
    if report.generators:
        console.print(_generator_table(report))
    _print_notes(report)
    _print_lines("wrong", report.wrong, report.wrong_rows)
    if hint := next(filter(None, map(report.scale.hint, report.wrong)), None):
        say(f"note: {hint}", style="yellow")
    bad = report.missing + report.unreadable
    _print_lines("failed", report.bad_files, bad)
    counts = [
        f"{count:,} {what}"
        for count, what in (
            (report.wrong_rows, "wrong rows"),
            (report.missing, "missing files"),
            (report.unreadable, "unreadable files"),
        )
        if count
    ]
    looked = " (files were not looked at)" if report.checked == "none" else ""
    if counts:
        say(f"not sound: {', '.join(counts)}{looked}", style="red")
    else:
        typer.echo(f"all rows {'and files ' * (report.checked != 'none')}are sound{looked}")


def _print_notes(report: Report) -> None:
    for overlap in report.overlaps[:SHOWN]:
        say(f"note: {overlap}", style="yellow")
    more = len(report.overlaps) - SHOWN
    if more > 0:
        say(f"note: ... and {more} more such pairs of parts", style="yellow")
    for count, what, first in (
        (report.absolute, "absolute paths, which hold on this machine only", report.first_absolute),
        (report.outside, "paths with .. lead out of the manifest's folder", report.first_outside),
    ):
        if count:
            say(f"note: {count:,} {what}; first {first}", style="yellow")
    _print_lines("note", report.repeats, report.repeated, style="yellow")
    copies = [f"same content: {', '.join(group)}" for group in report.copies]
    _print_lines("note", copies, len(copies), style="yellow")
    if report.copies_across:
        say(
            f"note: {report.copies_across:,} of {len(copies):,} groups of files with the same "
            "content lie in several parts",
            style="yellow",
        )


def _print_lines(kind: str, lines: Sequence[str], count: int, *, style: str = "red") -> None:
    for line in lines[:SHOWN]:
        say(f"{kind}: {line}", style=style)
    if count > len(lines[:SHOWN]):
        say(f"{kind}: ... and {count - len(lines[:SHOWN]):,} more", style=style)


def _score_table(report: Report) -> Table:
    table = Table(caption=f"scale {report.scale}", show_edge=False)
    table.add_column("score")
    for name in ("known", "distinct", "mean", "std", "lowest", "highest", "raters"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("histogram", no_wrap=True)
    for name, scores in report.scores.items():
        totals = [sum(counts) for counts in zip(*scores.histogram.values())]
        table.add_row(
            name,
            f"{scores.count:,}",
            f"{scores.distinct:,}",
            f"{scores.mean:.3f}",
            f"{scores.std:.3f}",
            f"{scores.low:g}",
            f"{scores.high:g}",
            str(len(report.raters.get(name, {})) or "-"),
            _bars(totals),
        )
    return table


def _bars(counts: Sequence[int]) -> str:
    most = max(counts) or 1
    # A bin that is not empty shows at least the lowest bar.
    return "".join(_BARS[-(-count * (len(_BARS) - 1) // most)] for count in counts)


def _preference_table(report: Report) -> Table:
    table = Table(show_edge=False)
    for name in ("score", "A", "same", "B"):
        table.add_column(name, justify="left" if name == "score" else "right")
    for name, counts in report.preferences.items():
        table.add_row(name, *(f"{counts.get(answer, 0):,}" for answer in ("A", "same", "B")))
    return table


def _generator_table(report: Report) -> Table:
    table = Table(show_edge=False, caption="means of the known scores" * bool(report.scores))
    table.add_column("generator", overflow="fold")
    table.add_column("rows", justify="right")
    for name in report.scores:
        table.add_column(name, justify="right", no_wrap=True)
    generators = sorted(report.generators.items(), key=lambda item: -item[1])
    for generator, count in generators[:SHOWN_GENERATORS]:
        means = report.generator_means.get(generator, {})
        cells = (f"{means[name]:.2f}" if name in means else "-" for name in report.scores)
        table.add_row(Text(generator), f"{count:,}", *cells)
    if len(generators) > SHOWN_GENERATORS:
        table.add_row(Text(f"... and {len(generators) - SHOWN_GENERATORS} more", style="dim"))
    return table
