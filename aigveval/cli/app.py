"""The command line: one command per module beside this one."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from ..errors import InputError
from ..versions import __version__
from .best import BEST_HELP, best
from .compare import COMPARE_HELP, compare
from .console import INTERRUPTED, one_line_errors, open_standard_streams, silence_libraries
from .cot import COT_HELP, cot
from .data import data
from .doctor import DOCTOR_HELP, doctor
from .evaluate import EVALUATE_HELP, evaluate
from .features import FEATURES_HELP, features
from .fit import FIT_HELP, fit
from .ladder import ladder
from .leaderboard import LEADERBOARD_HELP, leaderboard
from .options import SCALE
from .presets import PRESETS_HELP, presets
from .publish import PUBLISH_HELP, publish
from .score import SCORE_HELP, score
from .serve import SERVE_HELP, serve
from .submit import SUBMIT_HELP, submit
from .timeline import TIMELINE_HELP, timeline

app = typer.Typer(
    name="aigveval",
    help="Tells how good AI-generated videos are to viewers, and where they fail.\n\n" + SCALE,
    add_completion=False,
    epilog="Example: `aigveval score clip.mp4 --prompt 'a dog runs on the beach'`",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"aigveval {__version__}")
        raise typer.Exit


@app.callback()
def _app(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    silence_libraries()
    with one_line_errors():
        try:
            os.getcwd()
        except OSError as error:  # where MKL, and so torch, can't be loaded
            raise InputError(f"the current folder cannot be used: {error.strerror}") from None


def _add(command: Callable[..., None], name: str | None = None, **options: Any) -> None:
    app.command(name, **options)(one_line_errors()(command))


_add(score, help=SCORE_HELP, no_args_is_help=True)
_add(best, help=BEST_HELP, no_args_is_help=True)
_add(compare, help=COMPARE_HELP, no_args_is_help=True)
_add(ladder, no_args_is_help=True)
_add(fit, help=FIT_HELP, no_args_is_help=True)
_add(features, help=FEATURES_HELP, no_args_is_help=True)
_add(presets, help=PRESETS_HELP)
_add(evaluate, help=EVALUATE_HELP, no_args_is_help=True)
_add(leaderboard, help=LEADERBOARD_HELP, no_args_is_help=True)
_add(submit, help=SUBMIT_HELP, no_args_is_help=True)
_add(publish, help=PUBLISH_HELP, no_args_is_help=True)
_add(cot, help=COT_HELP, no_args_is_help=True)
_add(timeline, help=TIMELINE_HELP, no_args_is_help=True)
_add(doctor, help=DOCTOR_HELP)
_add(serve, "app", help=SERVE_HELP)
app.add_typer(data, name="data")


def main() -> None:
    """Runs the command line and exits; never shows a traceback, unless AIGVEVAL_DEBUG is set."""
    gc.set_threshold(50_000)  # libraries make a million objects as they're imported, all to be kept
    open_standard_streams()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that cannot show a name shows a mark
            stream.reconfigure(errors="backslashreplace")
    code: int | str | None = 0
    try:
        with one_line_errors():
            app(prog_name="aigveval")
    except SystemExit as stop:
        code = stop.code
    if code == INTERRUPTED:
        # A usual exit would wait for decoders that are still busy.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(INTERRUPTED)
    sys.exit(code)
