"""`aigveval score`."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from ..assessment import Assessment
from ..errors import InputError, one_line
from ..model.precision import DtypeName
from ..versions import __version__
from .console import (
    INTERRUPTED,
    command_again,
    native_stderr_silenced,
    print_errors,
    print_explanations,
    print_results,
    say,
    step_progress,
    video_progress,
)
from .options import (
    COLUMN_NAMES,
    SCALE,
    Address,
    BatchSize,
    Device,
    Dtype,
    Engine,
    Fps,
    Inputs,
    ModelName,
    Processes,
    Prompt,
    Quiet,
    Report,
    Workers,
    check_fps,
    cluster_of,
)

if TYPE_CHECKING:
    from ..reports.results import ResultsFile
    from ..scale.cluster import Cluster

SCORE_HELP = f"""\
Scores videos.

INPUTS are video files, folders (searched with all folders inside), patterns such as
`'clips/*.mp4'`, manifests (`.csv`, `.json`, `.jsonl`, `.parquet`) that list videos, and text files
(`.txt`) with a path in each line. A folder of numbered pictures (`0001.png`, `0002.png`, ...), or a
pattern of them such as `'frames/*.png'`, is one video; `--fps` gives its frame rate.

`--prompts` takes

- a manifest with columns `video` and `prompt`, or JSON `{{path: prompt}}` or
  `{{path: {{"prompt": ...}}}}`; paths are relative to it. {COLUMN_NAMES}
- a list of prompts without videos, such as VBench's `VBench_full_info.json`, for videos named
  `PROMPT-N.mp4` in the folders of INPUTS;
- `names`: each video has the prompt that its file is named after, `PROMPT-N.mp4`;
- `folders`: each video has the prompt that its folder is named after, `PROMPT/N.mp4`.

{SCALE}
Examples:

- `aigveval score clip.mp4 --prompt "a dog runs on the beach"`
- `aigveval score clips --prompts prompts.csv --out results.csv`
- `aigveval score clips --prompts prompts.csv --out results.csv --resume`
- `aigveval score videos --prompts VBench_full_info.json`
- `aigveval score videos --prompts names`
- `aigveval score clip.mp4 --contributions`
- `aigveval score clip.mp4 --prompt "a dog runs on the beach" --explain`

A row of the results holds video, prompt, overall, technical, motion, semantic, model, version,
seconds, error and warnings.

`--contributions` adds how far the evidence on each dimension moves the overall score: the score,
less what it is with that evidence replaced by the average of the training clips. `baseline` is the
score with all of it replaced, and overall = baseline + sum + residue.

`--explain` adds contributions, and `explanation` (a few sentences per dimension), `defects` (name,
dimension, severity 1 to 5, start and end in seconds; null for the whole clip), `problems`: what is
wrong with the model's text, `evidence`: facts with numbers, times and places in the picture, and
`advice`. It needs a model that was trained to explain, as `lite` was, and an object detector that
is fetched when it's first needed (75 MB); without it nothing is said about objects.

The exit code is 0 when all videos were scored, 1 when some could not be (each
has a row with its error), 2 when the command could not be carried out; also where no video gets
through for a reason other than the videos, and then they get no rows.
"""


def score(
    inputs: Inputs = None,
    prompt: Prompt = None,
    prompts: Annotated[
        Optional[Path],
        typer.Option(
            metavar="FILE|names|folders",
            help="Prompts of the videos, from a file or from names; see above.",
        ),
    ] = None,
    fps: Fps = None,
    model: ModelName = "lite",
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="Results: `.jsonl`, `.csv` (flat columns `technical`, `technical_std`, ...) or "
            "`.parquet`. Earlier results of other videos there are kept under another name.",
        ),
    ] = Path("results.jsonl"),
    batch_size: BatchSize = 8,
    workers: Workers = 2,
    device: Device = None,
    dtype: Dtype = "auto",
    devices: Annotated[
        Optional[str],
        typer.Option(
            metavar="all|LIST",
            help="In place of `--device`: every GPU, or those of a list such as `cuda:0,cuda:1`; "
            "each has a process that scores its share.",
        ),
    ] = None,
    engine: Engine = "local",
    address: Address = None,
    processes: Processes = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Keep the rows that FILE already has of the same path, prompt, model (name and "
            "number type) and version, whatever `--fps` was, and score the others. Rows of other "
            "videos or prompts stay in FILE.",
        ),
    ] = False,
    report: Report = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Add explanation, defects and contributions.")
    ] = False,
    contributions: Annotated[
        bool, typer.Option("--contributions", help="Add contributions alone; works with any model.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    from ..reports.tables import check_outputs

    check_outputs([], report)
    cluster = cluster_of(
        engine, address=address, processes=processes, device=device, workers=workers
    )
    done = score_into(
        out,
        inputs or [],
        prompt=prompt,
        prompts=prompts,
        fps=fps,
        model=model,
        batch_size=batch_size,
        workers=workers,
        device=device,
        devices=devices,
        cluster=cluster,
        dtype=dtype,
        resume=resume,
        quiet=quiet,
        explain=explain,
        contributions=contributions,
    )
    failed = sum(row.error is not None for row in done.rows)
    if done.rows and not quiet:
        print_results(done.rows)
        print_explanations(done.rows)
        without = f", {failed} of them without scores" if failed else ""
        typer.echo(f"{len(done.rows)} of {done.planned} videos are in {out}{without}")
    print_errors(done.rows)
    stop_if_interrupted(done, out, shown_option="--resume")
    if report is not None:
        from ..reports.html.scores import write_report

        with native_stderr_silenced(), step_progress("contact strips", quiet=quiet) as advance:
            write_report(report, done.rows, progress=advance)
        if not quiet:
            typer.echo(f"the report is {report}")
    raise typer.Exit(int(failed > 0))


@dataclass(frozen=True)
class Scored:
    """What a run came to: rows in the order of the inputs, of how many, and if it was stopped."""

    rows: list[Assessment]
    planned: int
    interrupted: bool


def score_into(
    out: Path,
    inputs: list[str],
    *,
    prompt: str | None,
    prompts: Path | None,
    model: str,
    batch_size: int,
    workers: int,
    device: str | None,
    dtype: DtypeName,
    resume: bool,
    quiet: bool,
    devices: str | None = None,
    cluster: Cluster | None = None,
    fps: float | None = None,
    explain: bool = False,
    contributions: bool = False,
) -> Scored:
    """Scores what the inputs name into a results file; options as in `score`.

    A cluster, which isn't connected yet, takes the place of this machine.
    """
    from ..data.inputs import collect
    from ..reports.results import ResultsFile, only_writer, take_earlier

    if not inputs and prompts is None:
        raise InputError("nothing to score: name videos, folders or patterns")
    check_fps(fps)
    found = collect(inputs, prompt=prompt, prompts=prompts)
    from ..inference.assessor import load, row_name  # here, as it brings PyTorch along

    several: list[str] = []
    if devices is not None:
        if device is not None:
            raise InputError("--device and --devices exclude each other")
        if cluster is not None:
            raise InputError("--devices is of one machine, and --engine ray of many")
        from ..inference.devices import devices_of, score_on_devices

        several = devices_of(devices)
        device = several[0]
    clips = found.clips
    if cluster is not None:
        from ..scale.batches import for_other_machines

        clips = [for_other_machines(clip, fps=fps) for clip in clips]
        device = "cpu"  # of this machine, which computes nothing
    name = row_name(model, device=device, dtype=dtype)
    with contextlib.ExitStack() as stack:
        stack.enter_context(only_writer(out))
        if cluster is not None:
            with native_stderr_silenced():  # Ray's own words about what it tries
                stack.enter_context(cluster)
            if os.path.isdir(model):
                model = os.path.abspath(model)
            if cluster.device != device:  # another number type, maybe
                name = cluster.call(row_name, model, device=cluster.device, dtype=dtype)
        keys = [(clip.video, clip.prompt, name, __version__) for clip in clips]
        extras = ["explanation", "evidence"] * explain
        extras += ["contributions"] * (explain or contributions)
        folder = Path(model) if os.path.isdir(model) else None
        earlier = take_earlier(out, keys, resume=resume, extras=extras, model=folder)
        todo = [clip for clip, key in zip(clips, keys) if key not in earlier.done]
        if not quiet:
            for note in found.notes + ([earlier.note] if earlier.note else []):
                say(f"note: {note}", style="yellow")
            if resume:
                say(f"{len(keys) - len(todo)} of {len(keys)} videos are already in {out}")
        options: dict[str, Any] = {
            "batch_size": batch_size,
            "workers": workers,
            "explain": explain,
            "contributions": contributions,
        }
        new_rows: Generator[tuple[int, Assessment], None, None]
        if all(clip.problem for clip in todo):  # also where there is none: nothing needs the model
            new_rows = _numbered(
                Assessment.failed(clip.video, clip.prompt, name, one_line(clip.problem))
                for clip in todo
            )
        elif cluster is not None:
            make = functools.partial(load, model, dtype=dtype)
            new_rows = cluster.score(todo, make, name=name, **options)
        elif len(several) > 1:
            new_rows = score_on_devices(todo, several, model=model, dtype=dtype, fps=fps, **options)
        else:
            assessor = load(model, device=device, dtype=dtype, **options)
            new_rows = _numbered(assessor.score_many(todo, fps=fps))

        def open_results() -> ResultsFile:
            keep = [*earlier.others, *earlier.done.values()]
            return stack.enter_context(ResultsFile(out, keep=keep))

        new, results, interrupted = _score_all(new_rows, len(todo), open_results, quiet=quiet)
        numbers = iter(range(len(todo)))
        maybe = [earlier.done.get(key) or new.get(next(numbers)) for key in keys]
        rows = [row for row in maybe if row is not None]
        if results is not None or not interrupted:
            (results or open_results()).close(rows=earlier.others + rows)
    return Scored(rows, len(keys), interrupted)


def stop_if_interrupted(done: Scored, out: Path, *, shown_option: str = "") -> None:
    """Ends the command after Ctrl-C, saying how to go on: the same, with the option."""
    if done.interrupted:
        state = f"{len(done.rows)} of {done.planned} videos are in {out}"
        say(f"interrupted: {state}; go on with: {command_again(shown_option)}", style="yellow")
        raise typer.Exit(INTERRUPTED)


def _numbered(
    rows: Generator[Assessment, None, None],
) -> Generator[tuple[int, Assessment], None, None]:
    with contextlib.closing(rows):
        yield from enumerate(rows)


def _score_all(
    scored: Generator[tuple[int, Assessment], None, None],
    count: int,
    open_results: Callable[[], ResultsFile],
    *,
    quiet: bool,
) -> tuple[dict[int, Assessment], ResultsFile | None, bool]:
    """Writes rows as they come into a file that is opened for the first one, so that a run without
    any leaves earlier results alone; gives them by number, and whether the user stopped it."""
    rows: dict[int, Assessment] = {}
    results: ResultsFile | None = None
    with native_stderr_silenced(), video_progress(quiet=quiet) as progress:
        task = progress.add_task("scoring", total=count)
        try:
            for number, row in scored:
                results = results or open_results()
                results.write(row)
                rows[number] = row
                progress.advance(task)
        except KeyboardInterrupt:
            return rows, results, True
        finally:
            scored.close()
    return rows, results, False
