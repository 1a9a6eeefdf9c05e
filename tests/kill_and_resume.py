"""Kills a batch of `aigveval score` at random moments, and lets `--resume` finish it.

A moment is some milliseconds after a row that is drawn: by the clock alone, most kills would come
before the first row or after the last one on a busy machine.

    python -m tests.kill_and_resume [MOMENTS] [SEED] [--engine ray]

Each time the rows must be those of a run that nobody stopped: none lost, doubled or changed. The
command runs in forks of this process, with a tiny model that decodes real clips, into each format
of results in turn; with `--engine ray` on two processes of a Ray cluster that outlives it, which
read scores from texts. Says how many rows there were at each moment.
"""

import argparse
import contextlib
import gc
import os
import random
import secrets
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from aigveval.assessment import Assessment
from aigveval.cli.score import score_into
from aigveval.inference import assessor as assess
from aigveval.reports.results import read_results
from aigveval.scale.cluster import Cluster

from tests import media
from tests.aigveval.scale import works

CLIPS = 12
SUFFIXES = (".jsonl", ".csv", ".parquet")
RAY = """
import ray, sys
options = dict(include_dashboard=False, object_store_memory=80 << 20, logging_level="ERROR")
ray.init(num_cpus=2, log_to_driver=False, **options)
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""


def score(out: Path, *, resume: bool, address: str | None = None) -> None:
    score_into(
        out,
        ["clips"],
        prompt="a dog",
        prompts=None,
        model="tiny",
        batch_size=2,
        workers=2,
        cluster=None if address is None else Cluster(address=address),
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
        except Exception:
            traceback.print_exc()
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


@contextlib.contextmanager
def ray_cluster() -> Iterator[str]:
    """The address of a cluster in processes of its own, which take nobody else's work."""
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
    found = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    holder = subprocess.Popen(
        [sys.executable, "-c", RAY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(found)},
    )
    with holder:
        yield holder.stdout.readline().strip()
        holder.stdin.close()


def main(moments: int, seed: int, engine: str) -> None:
    gc.disable()  # until all is imported, of which nothing is garbage
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        os.chdir(folder)
        os.mkdir("clips")
        assess.row_name = lambda model, **options: "tiny"
        address = None
        if engine == "ray":
            for number in range(CLIPS):
                Path(f"clips/{number:02}.mp4").write_text(f"{1 + number / 4}")
            Path("clips/05.mp4").write_text("unreadable")
            assess.load = works.load
            address = stack.enter_context(ray_cluster())
            import ray  # noqa: F401  before the forks, which would each import it
        else:
            from tests.aigveval.engines import tiny_assessor

            for number in range(CLIPS):
                path = Path(f"clips/{number:02}.mp4")
                media.write_video(path, num_frames=4, seed=number)
            Path("clips/05.mp4").write_bytes(b"not a video")  # a row with an error, as any other
            assessor = tiny_assessor(batch_size=2)  # before the forks, which would each make it
            assess.load = lambda model, **options: assessor
        gc.freeze()  # no fork searches what is imported for garbage, which would copy its memory too
        gc.enable()
        whole = Path("whole.jsonl")
        forked(lambda: score(whole, resume=False, address=address))
        expected = rows_of(whole)
        assert len(expected) == CLIPS and expected[5].error
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

            forked(lambda: score(out, resume=False, address=address), until=is_time)
            kept = rows_of(out)
            assert all(row in expected for row in kept), f"changed: {kept}"
            found.append(len(kept))
            forked(lambda: score(out, resume=True, address=address))
            assert rows_of(out) == expected, f"{suffix}, killed with {len(kept)} rows"
            # a kill in the middle of a replacement may leave a hidden file
            assert [f.name for f in out.parent.iterdir() if f.name[0] != "."] == [out.name]
        print(f"{moments} moments, with {found} of {CLIPS} rows; all rows as of an unstopped run")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("moments", nargs="?", type=int, default=50)
    parser.add_argument("seed", nargs="?", type=int, default=0)
    parser.add_argument("--engine", choices=["local", "ray"], default="local")
    main(**vars(parser.parse_args()))
