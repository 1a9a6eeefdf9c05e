"""`aigveval doctor`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from ..versions import __version__
from .console import print_json, print_wide
from .options import AsJson

if TYPE_CHECKING:
    from ..doctor.examine import Finding

DOCTOR_HELP = """\
Finds out why scoring does not work here, or that it does.

Looks at the versions of libraries beside those that were tested, the device, threads and CPU quota,
the decoders and codecs, the weights and the disk that they are on, and scores two clips that come
with the package: each score must be within 0.05 of what it should be.

Nothing is downloaded. Where weights are not here yet, `--fetch` fetches them (316 MB for all);
without it the self-test is skipped.

Examples:

- `aigveval doctor`
- `aigveval doctor --fetch --device cpu`
- `aigveval doctor --json`

The exit code is 0 when everything works, 1 when something does not, or the self-test was skipped.
"""
_STYLES = {"ok": "green", "note": "yellow", "skipped": "yellow", "failed": "red"}


def doctor(
    fetch: Annotated[
        bool, typer.Option("--fetch", help="Fetch weights that are missing or damaged.")
    ] = False,
    device: Annotated[
        Optional[str],
        typer.Option(help="Of the self-test: `cpu`, `cuda`; by default a GPU if there is one."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    from rich.console import Console

    from ..doctor.examine import examine, is_well

    with Console(stderr=True, quiet=as_json).status("looking") as status:
        look = examine(
            fetch=fetch,
            device=device,
            on_check=lambda name: status.update(f"looking at {name}"),
        )
        findings = list(look)
    well = is_well(findings)
    if as_json:
        plain = {"version": __version__, "ok": well, "findings": list(map(asdict, findings))}
        print_json(plain)
    else:
        _print_table(findings)
        _print_block(findings)
        bad = [f"{one.check}: {one.name}" for one in findings if not is_well([one])]
        typer.echo(f"not well: {', '.join(bad)}" if bad else "all is well")
    raise typer.Exit(int(not well))


def _print_table(findings: Sequence[Finding]) -> None:
    """Prints what was found; of libraries that are as they should be, only how many they are."""
    from rich.table import Table
    from rich.text import Text

    def is_plain(finding: Finding) -> bool:
        return finding.check == "library" and finding.state == "ok"

    table = Table(show_edge=False)
    for column in ("check", "of", "state", "found"):
        table.add_column(column, overflow="fold")
    if plain := sum(map(is_plain, findings)):
        table.add_row("library", f"{plain} of them", Text("ok", style="green"), "as tested")
    for finding in findings:
        if not is_plain(finding):
            advice = Text(f"\n-> {finding.advice}", style="bold") if finding.advice else Text()
            table.add_row(
                finding.check,
                Text(finding.name),
                Text(finding.state, style=_STYLES[finding.state]),
                Text(finding.text) + advice,
            )
    print_wide(table, width=160)


def _print_block(findings: Sequence[Finding]) -> None:
    """Prints what goes into a bug report, without the name of the user's folder."""
    typer.echo("\nFor a bug report:\n\n```")
    home = os.path.expanduser("~")  # stays as it is for a user who has none
    for finding in findings:
        line = finding.line()
        typer.echo(line.replace(home, "~") if len(home) > 1 else line)
    typer.echo("```\n")
