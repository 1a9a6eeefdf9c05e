"""Where tables go: the terminal, and files in the format that their suffix names."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from ..errors import InputError, as_text
from .tables import WIDTH, Table, as_latex, as_markdown, as_rich

TABLE_SUFFIXES = (".json", ".md", ".tex", ".txt")


def check_outputs(paths: Sequence[Path], report: Path | None = None) -> None:
    """Fails before the work is done rather than after it.

    Raises:
        InputError: a file has a suffix that says nothing, or cannot be written.
    """
    for path in paths:
        if path.suffix.lower() not in TABLE_SUFFIXES:
            known = ", ".join(TABLE_SUFFIXES)
            raise InputError(f"{as_text(path)}: tables are written as {known}")
    if report is not None and report.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{as_text(report)}: a report is an .html file")
    for path in [*paths, *([report] if report else [])]:
        folder = path.parent
        if path.is_dir():
            raise InputError(f"{as_text(path)}: is a folder")
        while not folder.exists():
            folder = folder.parent
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise InputError(f"{as_text(path)}: cannot be written, see the folder {folder}")


def write_tables(path: Path, found: Sequence[Table], plain: dict[str, Any]) -> None:
    """Writes the tables as Markdown, LaTeX or text, or `plain` as JSON, by the suffix.

    Raises:
        InputError: it cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix == ".json":
        text = json.dumps(plain, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    elif suffix == ".md":
        text = as_markdown(found)
    elif suffix == ".tex":
        text = as_latex(found)
    else:
        text = as_plain(found)
    write_whole(path, text)


def write_whole(path: Path, text: str) -> None:
    """Writes a file so that a kill leaves the old one or the new one.

    Raises:
        InputError: it cannot be written.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, target)
    except OSError as error:
        raise InputError(f"{as_text(path)}: cannot be written: {error.strerror or error}") from None


def as_plain(found: Sequence[Table]) -> str:
    """Tables as text of fixed width."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        console = Console(
            file=nowhere, width=WIDTH, color_system=None, record=True, force_jupyter=False
        )
        _print(console, found)
        return "\n".join(line.rstrip() for line in console.export_text().splitlines()) + "\n"


def print_tables(found: Sequence[Table]) -> None:
    """Prints tables on standard output."""
    console = Console()
    _print(console if console.is_terminal else Console(width=WIDTH), found)


def _print(console: Console, found: Sequence[Table]) -> None:
    for index, table in enumerate(found):
        if index:
            console.print()
        console.print(as_rich(table))


@contextlib.contextmanager
def sample_progress(*, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Gives a function that shows how many of how many samples are done, on standard error."""
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(),
        console=console, disable=quiet or not console.is_terminal, transient=True,
    ) as bar:
        task = bar.add_task("resampling", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
