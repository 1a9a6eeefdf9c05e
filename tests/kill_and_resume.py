"""Kills a batch of `aigveval score` at random moments, and lets `--resume` finish it.

A moment is some milliseconds after a row that is drawn: by the clock alone, most kills would come
before the first row or after the last one on a busy machine.

    python -m tests.kill_and_resume [MOMENTS] [SEED]

Each time the rows must be those of a run that nobody stopped: none lost, doubled or changed. The
command runs in forks of this process, with a tiny model that decodes real clips, into each format
of results in turn. Says how many rows there were at each moment.
"""

import contextlib
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from aigveval.assessment import Assessment
from aigveval.cli.score import score_into
from aigveval.inference import assessor as assess
from aigveval.reports.results import read_results

from tests import media
from tests.aigveval.engines import tiny_assessor

CLIPS = 12
SUFFIXES = (".jsonl", ".csv", ".parquet")


def score(out: Path, *, resume: bool) -> None:
    score_into(
        out,
        ["clips"],
        prompt="a dog",
        prompts=None,
        model="tiny",
        batch_size=2,
        workers=2,
        device=None,
        dtype="auto",
        resume=resume,
        quiet=True,
    )


def rows_of(out: Path) -> list[Assessment]:
    """The rows that are there, without how long they took."""
    try:
        return [replace(row, seconds=0.0) for row in read_results(out)]
    except Exception:
        if out.exists():
            raise
        return []


def lines_in(folder: Path) -> int:
    """Of all files there, temporary ones included, which may be gone before they are read."""
    count = 0
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            count += path.read_bytes().count(b"\n")
    return count


def forked(work: Callable[[], None], *, until: Callable[[], bool] | None = None) -> None:
    """Runs in a process of its own, which ends well, or is killed when something holds."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    while until is not None:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            break
        if until():
            os.kill(pid, signal.SIGKILL)
            until = None
        time.sleep(0.0005)
    else:
        status = os.waitpid(pid, 0)[1]
    status = os.waitstatus_to_exitcode(status)
    if status not in (0, -signal.SIGKILL):
        raise SystemExit(f"a run ended with {status}")


def main(moments: int, seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.mkdir("clips")
        for number in range(CLIPS):
            path = Path(f"clips/{number:02}.mp4")
            media.write_video(path, num_frames=4, seed=number)
        Path("clips/05.mp4").write_bytes(b"not a video")  # a row with an error, as any other
        assessor = tiny_assessor(batch_size=2)  # before the forks, which would each make it
        assess.load = lambda model, **options: assessor
        assess.row_name = lambda model, **options: "tiny"
        expected = {}
        for suffix in SUFFIXES:
            whole = Path(f"whole{suffix}")
            forked(lambda: score(whole, resume=False))
            expected[suffix] = rows_of(whole)
            assert len(expected[suffix]) == CLIPS and expected[suffix][5].error
        found, chance = [], random.Random(seed)
        for moment in range(moments):
            suffix = SUFFIXES[moment % len(SUFFIXES)]
            out = Path(f"{moment}/results{suffix}")
            out.parent.mkdir()
            lines, pause = chance.randint(0, CLIPS), chance.uniform(0, 0.01)

            def is_time() -> bool:
                if lines_in(out.parent) < lines:
                    return False
                time.sleep(pause)
                return True

            forked(lambda: score(out, resume=False), until=is_time)
            kept = rows_of(out)
            assert all(row in expected[suffix] for row in kept), f"changed: {kept}"
            found.append(len(kept))
            forked(lambda: score(out, resume=True))
            assert rows_of(out) == expected[suffix], f"{suffix}, killed with {len(kept)} rows"
            # a kill in the middle of a replacement may leave a hidden file
            assert [f.name for f in out.parent.iterdir() if f.name[0] != "."] == [out.name]
        print(f"{moments} moments, with {found} of {CLIPS} rows; all rows as of an unstopped run")


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[1:]]
    main(*(given + [50, 0][len(given) :]))
