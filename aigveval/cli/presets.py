"""`aigveval presets`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from .console import print_wide

if TYPE_CHECKING:
    from ..presets import Part

PRESETS_HELP = """\
Lists the presets and the encoders, or the parts of one preset.

A preset is a set of options for `aigveval fit`: in a config, `preset: clip-qwen` takes it over, and
every option beside it counts more. Sizes and memory are explained in
`aigveval/presets/catalogue.yaml`.

Examples:

- `aigveval presets`
- `aigveval presets clip-qwen`
"""
_GET = {
    "wheel": "by itself",
    "hub": "by itself, from the Hugging Face Hub",
    "nothing": "-",
    "file": "by hand, see below",
}


def presets(
    name: Annotated[
        Optional[str], typer.Argument(metavar="[PRESET]", help="The one to show the parts of.")
    ] = None,
) -> None:
    from encoders.registry import describe_encoders

    from ..errors import InputError
    from ..presets import list_presets

    if name is None:
        _print_presets()
        typer.echo("")
        _print(["encoder", "what it is"], [list(item) for item in describe_encoders().items()])
    elif name in list_presets():
        _print_parts(name)
    else:
        raise InputError(f"no preset {name!r}; there are {', '.join(list_presets())}")


def _print_presets() -> None:
    from ..presets import list_presets, parts_of, read_catalogue

    rows = []
    for name in list_presets():
        about, parts = read_catalogue()["presets"][name], parts_of(name)
        memory = about["memory"]
        by_hand = any(part.get == "file" for part in parts)
        rows.append(
            [
                name,
                about["summary"],
                "\n".join([part.name for part in parts]),
                _millions(sum(part.parameters for part in parts)),
                _download(parts) + (", some by hand" if by_hand else ""),
                f"{memory['score_gb']} / {memory['train_gb']} GB",
                ", ".join(dict.fromkeys(part.licence for part in parts)),
            ]
        )
    _print(
        [
            "preset",
            "what for",
            "made of",
            "parameters",
            "download",
            "memory to score / train",
            "licences",
        ],
        rows,
    )


def _print_parts(name: str) -> None:
    from ..presets import parts_of, read_catalogue

    about, parts = read_catalogue()["presets"][name], parts_of(name)
    typer.echo(f"{name}: {about['summary']}\n")
    _print(
        ["part", "name", "what it is", "parameters", "licence", "download", "comes"],
        [
            [
                part.role,
                part.name,
                part.what,
                _millions(part.parameters),
                part.licence,
                _download([part]),
                "is here" if part.here and part.get != "nothing" else _GET[part.get],
            ]
            for part in parts
        ],
    )
    memory = about["memory"]
    kind = memory.get("kind", "GPU, estimated")
    typer.echo(
        f"\nMemory ({kind}): {memory['score_gb']} GB to score, {memory['train_gb']} GB to train."
    )
    for part in parts:
        if part.advice:
            typer.echo(f"missing: {part.advice}")
    typer.echo(f"Start a config for `aigveval fit` with the line: preset: {name}")


def _print(columns: list[str], rows: list[list[str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(show_edge=False, show_lines=any("\n" in cell for row in rows for cell in row))
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    print_wide(table, width=160)


def _millions(parameters: int) -> str:
    return f"{parameters / 1e6:,.0f} M" if parameters >= 1e6 else f"{parameters / 1e6:.1f} M"


def _download(parts: list[Part]) -> str:
    megabytes = sum(part.download_mb for part in parts)
    least = "at least " if any(part.lower_bound for part in parts) else ""
    return f"{least}{megabytes:,} MB" if megabytes else "-"
