"""What the command line shows: tables, progress, one-line errors, and no noise from libraries."""

from __future__ import annotations

import codecs
import contextlib
import json
import logging
import os
import re
import shlex
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from prompts import DIMENSIONS, render_defects

from ..assessment import SCORE_FIELDS, Assessment, Contributions, Score, Timeline
from ..batching import Bar, Rate
from ..errors import UsageError, one_line

if TYPE_CHECKING:
    from ..features.export import FeatureRow

LEVEL_NUMBERS = "1 bad, 2 poor, 3 fair, 4 good, 5 excellent"
SHOWN_ROWS = 50
_SHOWN_EXPLANATIONS = 10
_NARROW = 100  # columns of a terminal below which names need the room of the intervals
INTERRUPTED = 130  # 128 + SIGINT, as shells count


def debugging() -> bool:
    """Whether AIGVEVAL_DEBUG asks for tracebacks and for what libraries have to say."""
    return os.environ.get("AIGVEVAL_DEBUG", "") not in ("", "0")


def plain(name: str) -> str:
    """Gives a name with its control characters escaped: they would move a terminal's cursor."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda c: c[0].encode("unicode_escape").decode(), name)


def say(text: str, *, style: str = "") -> None:
    """Prints one line on standard error: names of files can look like markup, or break lines."""
    console = Console(stderr=True)
    console.print(Text(plain(" ".join(text.splitlines())), style=style), soft_wrap=True)


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Turns every exception into one line on standard error and an exit code.

    2: the command, its inputs or its files are not usable; 130: interrupted; 1: anything else.
    """
    try:
        yield
    except (typer.Exit, typer.Abort, typer.BadParameter):
        raise
    except KeyboardInterrupt:
        say("interrupted", style="yellow")
        raise SystemExit(INTERRUPTED) from None
    except BrokenPipeError:  # the reader of our output, such as head, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise SystemExit(1) from None
    except Exception as error:
        if debugging():
            raise
        say(f"error: {_explain(error)}", style="red")
        # `encoders.EncoderError` by its name: the package is heavy, and may not be imported yet.
        usage = isinstance(error, (UsageError, PermissionError))
        usage = usage or type(error).__name__ == "EncoderError"
        raise SystemExit(2 if usage else 1) from None


def _explain(error: Exception) -> str:
    try:
        return "out of memory" if isinstance(error, MemoryError) else _in_words(error)
    except MemoryError:  # to look for words takes some, too
        return "out of memory"


def _in_words(error: Exception) -> str:
    from ..errors import DOCTOR, is_ours, newer_versions

    text = one_line(error, limit=700)  # with what to do, where weights are missing
    if is_ours(error) and text:
        return text
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return (
        f"unexpected {type(error).__name__}: {text} (AIGVEVAL_DEBUG=1 shows where"
        f"{newer_versions()}); {DOCTOR}"
    )


def open_standard_streams() -> None:
    """Puts nowhere in the place of standard streams that the shell closed, as `>&-` does.

    Else the next file to be opened, such as that of the results, gets their descriptor, to which
    libraries write.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)  # by processes of ours, for which it's the same
    os.close(descriptor)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))


def silence_libraries() -> None:
    """Keeps libraries' warnings and bars off the terminal; call before importing them."""
    if debugging():
        return
    for name, value in (
        ("HF_HUB_DISABLE_PROGRESS_BARS", "1"),
        ("HF_HUB_DISABLE_TELEMETRY", "1"),
        ("TRANSFORMERS_VERBOSITY", "error"),
        ("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1"),
        ("TOKENIZERS_PARALLELISM", "false"),
        ("OPENCV_LOG_LEVEL", "ERROR"),
    ):
        os.environ.setdefault(name, value)
    warnings.simplefilter("ignore")
    for name in ("transformers", "huggingface_hub", "timm", "torch", "matplotlib"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Older torchvisions have PyAV log FFmpeg's errors, which the rows say in our own words.
    logging.getLogger("libav").setLevel(logging.CRITICAL)
    transformers_logging = sys.modules.get("transformers.utils.logging")
    if transformers_logging is not None:
        transformers_logging.set_verbosity_error()  # it read its variable when it was imported


@contextlib.contextmanager
def native_stderr_silenced() -> Iterator[None]:
    """Sends what decoders write to file descriptor 2 nowhere; Python's own stderr still shows."""
    try:
        shows = not debugging() and sys.stderr.fileno() == 2
    except (OSError, ValueError, AttributeError):  # a stand-in without a descriptor
        shows = False
    if not shows:
        yield
        return
    stderr = sys.stderr
    stderr.flush()
    kept = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)
    sys.stderr = os.fdopen(kept, "w", encoding=stderr.encoding, errors="replace", buffering=1)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        sys.stderr.close()
        sys.stderr = stderr


def bar_of(*columns: str | ProgressColumn, quiet: bool) -> Progress:
    """Gives a progress bar on standard error; lines now and then when that is not a terminal."""
    console = Console(stderr=True)
    hidden = quiet or not console.is_terminal
    period = 600.0  # seconds that the rate is the mean of
    return Bar(
        *columns,
        quiet=quiet,
        console=console,
        disable=hidden,
        transient=True,
        speed_estimate_period=period,
    )


def video_progress(*, quiet: bool, unit: str = "video") -> Progress:
    """Gives a progress bar on standard error, with the rate; see `bar_of`."""
    counts = MofNCompleteColumn(), Rate(unit), TimeRemainingColumn()
    return bar_of("{task.description}", BarColumn(), *counts, quiet=quiet)


@contextlib.contextmanager
def step_progress(description: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Gives a function that shows how many of how many steps are done, on standard error."""
    share = TaskProgressColumn(), TimeRemainingColumn()
    with bar_of("{task.description}", BarColumn(), *share, quiet=quiet) as bar:
        task = bar.add_task(description, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def print_json(value: Any) -> None:
    """Prints a value as JSON on standard output; with escapes where that holds no UTF-8."""
    plain_text = codecs.lookup(sys.stdout.encoding or "ascii").name != "utf-8"
    typer.echo(json.dumps(value, ensure_ascii=plain_text, indent=2))


def print_results(rows: Sequence[Assessment]) -> None:
    """Prints scores as a table on standard output, with their means, long lists cut short."""
    console = Console()
    short = console.is_terminal and console.width < _NARROW
    table = Table(caption=LEVEL_NUMBERS if short else _caption(rows), show_edge=False)
    table.add_column("video", overflow="fold")
    for name in SCORE_FIELDS:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows[:SHOWN_ROWS]:
        table.add_row(_name(row), *(_cell(row, name, short=short) for name in SCORE_FIELDS))
    if len(rows) > SHOWN_ROWS:
        table.add_row(Text(f"... and {len(rows) - SHOWN_ROWS} more", style="dim"))
    scored = [row for row in rows if row.error is None]
    if len(scored) > 1:
        table.add_section()
        table.add_row(Text(_mean_of(scored)), *(_mean(scored, n) for n in SCORE_FIELDS))
    print_wide(table)


def print_wide(table: Table, *, width: int = 120) -> None:
    """Prints a table on standard output, where there is no terminal with this width.

    Without one there is nothing to fit, and folded paths are of no use to a script.
    """
    Console(width=None if Console().is_terminal else width).print(table)


def _name(row: Assessment) -> Text:
    name = Text(plain(row.video))
    for note in row.notes:
        name.append(f"\n  {note}", style="yellow")
    return name


def _cell(row: Assessment, name: str, *, short: bool = False) -> Text:
    score: Score | None = getattr(row, name)
    if row.error is not None:
        return Text("failed" if name == SCORE_FIELDS[0] else "", style="red")
    return _shown(score, short=short)


def _shown(score: Score | None, *, short: bool = False) -> Text:
    if score is None:
        return Text("-", style="dim")
    if short:
        return Text(f"{score.score:.2f}")
    if score.low is not None and score.high is not None:
        return Text(f"{score.score:.2f} [{score.low:.1f}, {score.high:.1f}]")
    return Text(f"{score.score:.2f} ±{score.std:.2f}")


def _caption(rows: Sequence[Assessment]) -> str:
    intervals = any(row.overall and row.overall.low is not None for row in rows)
    what = "[80 % interval]" if intervals else "± spread"
    return f"{LEVEL_NUMBERS}; {what}"


def _mean_of(rows: Sequence[Assessment]) -> str:
    """Of how many the means are; a score that some lack is said apart, as `semantic` may be."""
    counts = {name: sum(getattr(row, name) is not None for row in rows) for name in SCORE_FIELDS}
    apart = [f"{name} of {n}" for name, n in counts.items() if 0 < n < len(rows)]
    return ", ".join([f"mean of {len(rows)}", *apart])


def _mean(rows: Sequence[Assessment], name: str) -> Text:
    scores = [score.score for row in rows if (score := getattr(row, name))]
    return Text(f"{fmean(scores):.2f}") if scores else Text("-", style="dim")


def print_windows(timeline: Timeline) -> None:
    """Prints the scores of a timeline's windows, long lists cut short, and of the whole clip."""
    table = Table(caption=_caption([timeline.clip]), show_edge=False)
    table.add_column("seconds", no_wrap=True)
    for name in SCORE_FIELDS:
        table.add_column(name, justify="right", no_wrap=True)
    for window in timeline.windows[:SHOWN_ROWS]:
        times = f"{window.start_seconds:.2f} - {window.end_seconds:.2f}"
        table.add_row(times, *(_shown(window.scores[name]) for name in SCORE_FIELDS))
    if len(timeline.windows) > SHOWN_ROWS:
        more = len(timeline.windows) - SHOWN_ROWS
        table.add_row(Text(f"... and {more} more", style="dim"))
    table.add_section()
    table.add_row("all", *(_cell(timeline.clip, name) for name in SCORE_FIELDS))
    print_wide(table)
    for note in timeline.clip.notes:
        Console().print(Text(note, style="yellow"), soft_wrap=True)
    print_explanations([timeline.clip])


def print_explanations(rows: Sequence[Assessment]) -> None:
    """Prints explanations and contributions of the first rows, and how many have which problems."""
    explained = [row for row in rows if {"explanation", "contributions"} & set(row.extras)]
    console = Console()
    for row in explained[:_SHOWN_EXPLANATIONS]:
        lines = [f"{name}: {text}" for name, text in (row.explanation or {}).items()]
        if row.defects is not None:
            lines.append(f"defects: {render_defects(row.defects)}")
        lines += [f"advice: {line}" for line in row.advice or ()]
        lines += [f"problem: {problem}" for problem in row.problems or ()]
        if row.contributions is not None:
            lines.append(_sum(row, row.contributions))
        console.print(Text("\n  ".join(["", plain(row.video), *lines]).lstrip()), soft_wrap=True)
    if len(explained) > _SHOWN_EXPLANATIONS:
        more = len(explained) - _SHOWN_EXPLANATIONS
        console.print(f"... and {more} more explanations in the results")
    told = [row for row in rows if row.problems is not None]
    if told:
        kinds = Counter(p.partition(":")[0] for row in told for p in row.problems or ())
        found = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common()) or "none"
        sound = sum(not row.problems for row in told)
        console.print(
            f"{sound} of {len(told)} explanations have no problem; problems: {found}",
            soft_wrap=True,
        )


def _sum(row: Assessment, moved: Contributions) -> str:
    parts = [
        f"{value:+z.2f} {name}"
        for name in DIMENSIONS
        if (value := getattr(moved, name)) is not None
    ]
    total = row.overall.score if row.overall else float("nan")
    return (
        f"overall {total:.2f} = {moved.baseline:.2f} without evidence {' '.join(parts)} "
        f"{moved.residue:+z.2f} by their interplay"
    )


def print_errors(rows: Iterable[Assessment | FeatureRow]) -> None:
    """Prints one line on standard error for each video that failed, long lists cut short."""
    failed = [row for row in rows if row.error is not None]
    for row in failed[:SHOWN_ROWS]:
        say(f"failed: {row.video}: {row.error}", style="red")
    if len(failed) > SHOWN_ROWS:
        say(f"... and {len(failed) - SHOWN_ROWS} more failed", style="red")


def command_again(option: str = "") -> str:
    """The command line that goes on with what was interrupted: the same, with the option."""
    words = ["aigveval", *(arg for arg in sys.argv[1:] if arg != "--resume")]
    return f"{shlex.join(words)} {option}".rstrip()
