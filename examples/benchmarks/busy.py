"""What a busy machine costs: seconds per clip alone, and beside processes that keep a CPU busy.

    python examples/benchmarks/busy.py [VIDEO] [--cores 2] [--spin N ...] [--out FILE.json]

Without a video it makes that of pipeline.py. Everything runs on `--cores` CPUs, the spinning
processes included, and is compared in one run, turn by turn:

    before    OpenMP's threads spin for 3 ms (libgomp's default) before they sleep
    aigveval  what the package sets where the user sets nothing
    spin N    they spin N times, about N / 100,000 ms; 0 sleeps at once (may be given repeatedly)

Times are medians over all rounds. To reach, on two CPUs: beside one spinning process at most 1.6
times as slow as alone, and alone at most 1.05 times as slow as `before`. Let nothing else run.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from pipeline import PROMPT, make_clip, parser_of

SPINNERS = (0, 1, 2)
BEFORE, OURS = "before", "aigveval"
LIMITS = {"beside": 1.6, "alone": 1.05}
# What the user of this shell may have set.
VARIABLES = (
    "OMP_WAIT_POLICY",
    "GOMP_SPINCOUNT",
    "KMP_BLOCKTIME",
    "KMP_LIBRARY",
    "OMP_NUM_THREADS",
)

# Scores when it is told to, so that the ways of waiting take turns with loaded models.
SCORER = """
import json, sys, time
import aigveval
assessor = aigveval.load(sys.argv[1])
score = lambda take: assessor.score(sys.argv[2], prompt=f"{sys.argv[3]}, take {take}").overall.score
score("warm-up")
import os, torch
names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS")
chosen = {name: os.environ[name] for name in names if name in os.environ}
print(json.dumps({"threads": torch.get_num_threads(), **chosen}), flush=True)
for line in sys.stdin:
    seconds = []
    for take in range(int(line)):
        start = time.perf_counter()
        score(take)
        seconds.append(time.perf_counter() - start)
    print(json.dumps(seconds), flush=True)
"""
# Ends after its time, or with the process that started it, even if that was killed.
SPINNER = """
import os, sys, time
end, parent = time.monotonic() + float(sys.argv[1]), int(sys.argv[2])
while time.monotonic() < end and os.getppid() == parent:
    for _ in range(100_000):
        pass
"""


class Scorer:
    """A process that has loaded the model, under one way of waiting."""

    def __init__(self, waiting: dict[str, str], model: str, video: Path) -> None:
        kept = {name: value for name, value in os.environ.items() if name not in VARIABLES}
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCORER, model, str(video), PROMPT],
            env={**kept, **waiting},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.settings = self._answer()

    def seconds(self, clips: int) -> list[float]:
        """Times of that many clips."""
        assert self.process.stdin is not None
        print(clips, file=self.process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a scoring process ended with code {self.process.wait()}")
        return json.loads(line)


@contextlib.contextmanager
def killed_at_the_end(processes: list[subprocess.Popen]) -> Iterator[None]:
    """Ends the processes, whatever happens."""
    try:
        yield
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()


def spinning(count: int, seconds: float) -> list[subprocess.Popen]:
    """Processes that each keep a CPU busy, at most so long."""
    command = [sys.executable, "-c", SPINNER, str(seconds), str(os.getpid())]
    return [subprocess.Popen(command) for _ in range(count)]


def ways_of(spins: list[int]) -> dict[str, dict[str, str]]:
    """Names of the ways of waiting, and the variables that they set."""
    ways = {BEFORE: {"GOMP_SPINCOUNT": "300000"}, OURS: {}}
    for spin in spins:
        ways[f"spin {spin}"] = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": str(spin)}
    return ways


def measure(
    scorers: dict[str, Scorer], *, rounds: int, repeat: int, seconds: float
) -> dict[str, dict[int, list[float]]]:
    """Times by way of waiting and number of spinning processes.

    Args:
        scorers: Loaded, by way of waiting; they take turns, each round in another order.
        rounds: How often everything is measured.
        repeat: Clips in a row.
        seconds: Longest life of a spinning process.
    """
    names = list(scorers)
    times: dict[str, dict[int, list[float]]] = {name: {n: [] for n in SPINNERS} for name in names}
    for turn in range(rounds):
        for count in SPINNERS:
            spinners = spinning(count, seconds)
            with killed_at_the_end(spinners):
                for place in range(len(names)):
                    name = names[(place + turn) % len(names)]
                    times[name][count] += scorers[name].seconds(repeat)
                if any(process.poll() is not None for process in spinners):
                    raise SystemExit("a spinning process ended too early: raise --limit")
    return times


def summary(times: dict[str, dict[int, list[float]]]) -> dict[str, dict[str, float]]:
    """Medians, their ratios to the same way alone, and of alone to `before`."""
    alone_before = median(times[BEFORE][0])
    rows = {}
    for name, by_count in times.items():
        alone, one, two = (median(by_count[count]) for count in SPINNERS)
        rows[name] = {
            "alone_seconds": alone,
            "one_seconds": one,
            "two_seconds": two,
            "alone_ratio": alone / alone_before,
            "one_ratio": one / alone,
            "two_ratio": two / alone,
        }
    return rows


def show(rows: dict[str, dict[str, float]]) -> None:
    """A table: ways of waiting down, and whether each reaches what is to be reached."""
    from rich.table import Table

    from aigveval.cli.console import print_wide

    table = Table("waiting", show_edge=False)
    for heading in ("alone, s", "/ before", "beside 1, s", "/ alone", "beside 2, s", "/ alone"):
        table.add_column(heading, justify="right")
    table.add_column(f"beside 1 <= {LIMITS['beside']}, alone <= {LIMITS['alone']}")
    for name, row in rows.items():
        reached = row["one_ratio"] <= LIMITS["beside"] and row["alone_ratio"] <= LIMITS["alone"]
        table.add_row(
            name,
            f"{row['alone_seconds']:.3f}",
            f"{row['alone_ratio']:.2f}",
            f"{row['one_seconds']:.3f}",
            f"{row['one_ratio']:.2f}",
            f"{row['two_seconds']:.3f}",
            f"{row['two_ratio']:.2f}",
            "yes" if reached else "no",
        )
    print_wide(table)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("video", nargs="?", type=Path, metavar="VIDEO")
    parser.add_argument("--cores", type=int, default=2, help="CPUs for everything (default 2)")
    parser.add_argument(
        "--spin",
        type=int,
        action="append",
        default=[],
        metavar="N",
        help="another way of waiting to compare; may be repeated",
    )
    parser.add_argument("--rounds", type=int, default=5, help="default 5")
    parser.add_argument("--repeat", type=int, default=4, help="clips in a row (default 4)")
    parser.add_argument(
        "--limit",
        type=float,
        default=600,
        metavar="SECONDS",
        help="longest life of a spinning process (default 600)",
    )
    parser.add_argument("--model", default="lite", help="lite, a folder or a Hub id")
    parser.add_argument("--out", type=Path, help="JSON file for the figures, single times included")
    args = parser.parse_args()
    if args.cores < 1 or args.rounds < 1 or args.repeat < 1 or min(args.spin, default=0) < 0:
        parser.error("--cores, --rounds and --repeat must be at least 1, and --spin at least 0")
    if args.video and not args.video.is_file():
        parser.error(f"{args.video}: no such file")
    if hasattr(os, "sched_setaffinity"):  # what is started from here inherits it
        cpus = sorted(os.sched_getaffinity(0))
        if len(cpus) < args.cores:
            parser.error(f"--cores {args.cores}: this process may run on {len(cpus)} only")
        os.sched_setaffinity(0, cpus[: args.cores])
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        video = args.video or Path(folder) / "scene_720p.mp4"
        if not args.video:
            make_clip(video)
        scorers = {}
        for name, waiting in ways_of(args.spin).items():
            scorers[name] = Scorer(waiting, args.model, video)
            stack.enter_context(killed_at_the_end([scorers[name].process]))
            print(f"{name}: {scorers[name].settings}", file=sys.stderr)
        times = measure(scorers, rounds=args.rounds, repeat=args.repeat, seconds=args.limit)
    rows = summary(times)
    show(rows)
    if args.out:
        settings = {name: scorer.settings for name, scorer in scorers.items()}
        figures = {"cores": args.cores, "settings": settings, "summary": rows, "seconds": times}
        args.out.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
