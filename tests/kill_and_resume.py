"""Kills a batch of `aigveval score` at random moments, and lets `--resume` finish it.

    python -m tests.kill_and_resume [MOMENTS] [SEED]

Each time the rows must be those of a run that nobody stopped: none lost, doubled or changed. The
command runs in forks of this process, with a tiny model that decodes real clips, into each format
of results in turn. Says how many rows there were at each moment.
"""

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


def forked(work: Callable[[], None], *, kill_after: float | None = None) -> None:
    """Runs in a process of its own, which is killed after so many seconds or ends well."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status != 0 and not (kill_after is not None and status == -signal.SIGKILL):
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
        expected, length = {}, float("inf")
        for suffix in SUFFIXES:
            start = time.perf_counter()
            whole = Path(f"whole{suffix}")
            forked(lambda: score(whole, resume=False))
            length = min(length, time.perf_counter() - start)
            expected[suffix] = rows_of(whole)
            assert len(expected[suffix]) == CLIPS and expected[suffix][5].error
        found, chance = [], random.Random(seed)
        for moment in range(moments):
            suffix = SUFFIXES[moment % len(SUFFIXES)]
            out = Path(f"{moment}/results{suffix}")
            out.parent.mkdir()
            forked(lambda: score(out, resume=False), kill_after=chance.uniform(0, length))
            kept = rows_of(out)
            assert all(row in expected[suffix] for row in kept), f"changed: {kept}"
            found.append(len(kept))
            forked(lambda: score(out, resume=True))
            assert rows_of(out) == expected[suffix], f"{suffix}, killed with {len(kept)} rows"
            assert [path.name for path in out.parent.iterdir()] == [out.name]
        print(f"{moments} moments, with {found} of {CLIPS} rows; all rows as of an unstopped run")


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[1:]]
    main(*(given + [50, 0][len(given) :]))
