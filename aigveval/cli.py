"""The command line: `aigveval score`, `aigveval ladder`, `aigveval fit`.

Heavy imports are inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from . import __version__
from .terminal import (
    INTERRUPTED, native_stderr_silenced, one_line_errors, print_errors, print_results, say,
    silence_libraries, video_progress,
)

if TYPE_CHECKING:
    from .assess import Assessor
    from .data.manifest import Clip
    from .report import Assessment
    from .results import ResultsFile

SCALE = """\
Scores are on the scale of mean opinion scores: 1 bad, 2 poor, 3 fair, 4 good, 5 excellent. Each is
the mean of the model's belief over these five words, and the number after ± is that belief's
standard deviation: the larger, the less sure the model is.

- **technical**: how sharp, clean and free of artefacts the frames are.
- **motion**: how smooth, steady and natural the movement is.
- **semantic**: how well the video shows what its prompt asks for; needs a prompt.
- **overall**: how good the video is to a viewer, all things considered.
"""

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

SCORE_HELP = f"""\
Scores videos.

INPUTS are video files, folders (searched with all folders inside), patterns such as
`'clips/*.mp4'`, and manifests (`.csv`, `.json`, `.jsonl`) that list videos.

{SCALE}
Examples:

- `aigveval score clip.mp4 --prompt "a dog runs on the beach"`
- `aigveval score clips --prompts prompts.csv --out results.csv`
- `aigveval score clips --prompts prompts.csv --out results.csv --resume`

A row of the results holds video, prompt, overall, technical, motion, semantic, model, version,
seconds and error. The exit code is 0 when all videos were scored, 1 when some could not be (each
has a row with its error), 2 when the command could not be carried out.
"""


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
    pass


@app.command(help=SCORE_HELP, no_args_is_help=True)
def score(
    inputs: Annotated[
        Optional[list[str]],
        typer.Argument(metavar="INPUTS...", help="Files, folders, patterns, manifests."),
    ] = None,
    prompt: Annotated[
        Optional[str], typer.Option(help="Text that all the videos were generated from.")
    ] = None,
    prompts: Annotated[
        Optional[Path],
        typer.Option(
            metavar="FILE",
            help="Prompts of the videos: JSON `{path: prompt}` or a list of `{video, prompt}`, or "
            "CSV or JSON Lines with `video` and `prompt`. Paths are relative to the file.",
        ),
    ] = None,
    model: Annotated[
        str, typer.Option(help="`lite`, a folder, or a Hugging Face Hub id.")
    ] = "lite",
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="Results: `.jsonl`, `.csv` (flat columns `technical`, `technical_std`, ...) or "
            "`.parquet`. Earlier results of other videos there are kept under another name.",
        ),
    ] = Path("results.jsonl"),
    batch_size: Annotated[
        int, typer.Option(min=1, help="Videos computed together; does not change the scores.")
    ] = 8,
    workers: Annotated[int, typer.Option(min=1, help="Threads that decode videos.")] = 2,
    device: Annotated[
        Optional[str],
        typer.Option(help="`cpu`, `cuda`, `cuda:1`; by default a GPU if there is one."),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Keep the rows that FILE already has and score the others."),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show nothing but errors.")
    ] = False,
) -> None:
    with one_line_errors():
        silence_libraries()
        from .data.inputs import collect
        from .data.manifest import InputError
        from .results import ResultsFile, take_earlier

        if not inputs and prompts is None:
            raise InputError("nothing to score: name videos, folders or patterns")
        found = collect(inputs or [], prompt=prompt, prompts=prompts)
        keys = [(clip.video, clip.prompt, model, __version__) for clip in found.clips]
        earlier = take_earlier(out, keys, resume=resume)
        todo = [clip for clip, key in zip(found.clips, keys) if key not in earlier.done]
        if not quiet:
            for note in found.notes + ([earlier.note] if earlier.note else []):
                say(f"note: {note}", style="yellow")
            if resume:
                say(f"{len(keys) - len(todo)} of {len(keys)} videos are already in {out}")
        assessor = _load(todo, model=model, device=device)
        assessor.batch_size, assessor.workers = batch_size, workers
        with ResultsFile(out, keep=[*earlier.others, *earlier.done.values()]) as results:
            new, interrupted = _score_all(assessor, todo, results, quiet=quiet)
            scored = iter(new)
            maybe = [earlier.done.get(key) or next(scored, None) for key in keys]
            rows = [row for row in maybe if row is not None]
            results.close(rows=earlier.others + rows)
        if rows and not quiet:
            print_results(rows)
            typer.echo(f"{len(rows)} of {len(keys)} videos are in {out}")
        print_errors(rows)
        if interrupted:
            again = shlex.join(arg for arg in sys.argv[1:] if arg != "--resume")
            state = f"{len(rows)} of {len(keys)} videos are in {out}"
            say(f"interrupted: {state}; go on with: aigveval {again} --resume", style="yellow")
            raise typer.Exit(INTERRUPTED)
        raise typer.Exit(int(any(row.error is not None for row in rows)))


def _load(clips: list[Clip], *, model: str, device: str | None) -> Assessor:
    from . import assess

    if all(clip.problem for clip in clips):  # also where there is none: nothing needs the model
        assess.find_model(model)
        return assess.Assessor(assess.NoEngine(), name=model)
    return assess.load(model, device=device)


def _score_all(
    assessor: Assessor, clips: list[Clip], results: ResultsFile, *, quiet: bool
) -> tuple[list[Assessment], bool]:
    """Scores the clips into the file; also tells whether the user stopped it."""
    rows: list[Assessment] = []
    scored = assessor.score_many(clips)
    with native_stderr_silenced(), video_progress(quiet=quiet) as progress:
        task = progress.add_task("scoring", total=len(clips))
        try:
            for row in scored:
                results.write(row)
                rows.append(row)
                progress.advance(task)
        except KeyboardInterrupt:
            return rows, True
        finally:
            scored.close()
    return rows, False


@app.command(no_args_is_help=True)
def ladder(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCES...", help="Clean videos: files, folders, patterns, manifests."
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write; made if missing.")],
    prompts: Annotated[
        Optional[Path],
        typer.Option(metavar="FILE", help="Prompts of the sources, as for `score`."),
    ] = None,
    types: Annotated[
        Optional[list[str]],
        typer.Option("--type", help="Type of damage, may be repeated; by default all."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random details.")] = 0,
    workers: Annotated[
        Optional[int], typer.Option(min=1, help="Processes; by default one per core.")
    ] = None,
    max_side: Annotated[
        int, typer.Option(min=16, metavar="PX", help="Larger frames are shrunk to this side.")
    ] = 640,
    max_seconds: Annotated[
        float, typer.Option(min=0.1, help="Longer clips are cut to their middle.")
    ] = 5.0,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show nothing but errors.")
    ] = False,
) -> None:
    """Damages clean videos in known ways: for training, and to test a model.

    From each clip it makes versions with one type of damage in five steps of severity, and writes
    `DIR/manifest.jsonl`, which tells for each the type, severity, time range, prompt and the score
    that it should lose on technical, motion and semantic quality. A run that was stopped goes on
    where it was.

    Example: `aigveval ladder clips --out ladder --prompts prompts.csv --type blur --type freeze`
    """
    with one_line_errors():
        silence_libraries()
        from .data.ladder import TYPES, make_ladder
        from .data.manifest import InputError

        unknown = [name for name in types or [] if name not in TYPES]
        if unknown:
            raise InputError(f"no damage of type {unknown[0]!r}; there are {', '.join(TYPES)}")
        failed: list[str] = []

        def report(path: str, reason: str) -> None:
            failed.append(path)
            say(f"failed: {path}: {reason}", style="red")

        manifest = make_ladder(
            sources, out, types=types or None, seed=seed, workers=workers, max_side_px=max_side,
            max_seconds=max_seconds, prompts=prompts, quiet=quiet, on_error=report,
        )
        if not quiet:
            typer.echo(f"the ladder is described in {manifest}")
        raise typer.Exit(int(bool(failed)))


@app.command(no_args_is_help=True)
def fit(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="Options of the training.")],
) -> None:
    """Trains a model on videos with known scores.

    The YAML file names the manifests to train and validate on and the folder to write to; see
    `aigveval.train.fit_config.FitConfig` for all options. A run that was stopped goes on when it
    is started again.

    Example: `aigveval fit config.yaml`
    """
    with one_line_errors():
        silence_libraries()
        from .train.fit import main as run

        run(config)


def main() -> None:
    """Runs the command line and exits; never shows a traceback, unless AIGVEVAL_DEBUG is set."""
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
