"""How fast `lite` is on this machine, beside the time that decoding alone takes.

    python examples/benchmarks/throughput.py [--rounds 5] [--precision fast] [--out FILE.json]

Three figures, each the median over the rounds:

    small clips per second   a batch of 16 clips of 512 x 320, 16 frames
    batch / decoding         a batch of 4 clips of 1280 x 720, 8 s, 192 frames, against decoding
                             them, as many at a time as there are CPUs
    one clip / decoding      one of those clips against decoding it

Decoding is what anyone would do to get the frames that the encoders ask for: PyAV, with a thread
for each CPU, reads the clip to its end and turns these frames into RGB arrays. All is measured in
turn, in one process, so that a busy machine shows in all figures alike; and in seconds of CPU time,
divided by the number of CPUs, beside those of the clock, as neighbours change these far less.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import av
import numpy as np
from pipeline import PROMPT, make_clip, parser_of

import aigveval

SMALL, LARGE = 16, 4
CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def make_clips(folder: Path) -> tuple[list[Path], list[Path]]:
    """Small and large clips with a car, each its own file."""
    small, large = folder / "small.mp4", folder / "large.mp4"
    make_clip(small, width=512, height=320, seconds=16 / 24)
    make_clip(large, seconds=8.0)
    return [linked(small, n) for n in range(SMALL)], [linked(large, n) for n in range(LARGE)]


def linked(path: Path, number: int) -> Path:
    """Another name for a file."""
    link = path.with_name(f"{path.stem}_{number:04}{path.suffix}")
    link.symlink_to(path)
    return link


def frames_wanted(assessor: aigveval.Assessor, path: Path) -> set[int]:
    """Positions of all frames that the model asks for."""
    from encoders.video import index_of

    index = index_of(path)
    asked = [r.indices(len(index.times), index.fps) for r in assessor.engine.requests.values()]
    return set(np.concatenate(asked).tolist())


def decode(path: Path, wanted: set[int], threads: int) -> list[np.ndarray]:
    """These frames as anyone would get them with PyAV."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type, stream.thread_count = "AUTO", threads
        return [
            frame.to_ndarray(format="rgb24")
            for number, frame in enumerate(container.decode(stream))
            if number in wanted
        ]


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """Seconds of the clock, and of the CPUs if all of them were busy."""
    clock, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - clock, (time.process_time() - cpu) / CPUS


class Round:
    """The four measurements; every round has prompts of its own, so that none is remembered."""

    def __init__(
        self, assessor: aigveval.Assessor, small: Sequence[Path], large: Sequence[Path]
    ) -> None:
        self.assessor, self.small, self.large = assessor, small, large
        self.wanted = frames_wanted(assessor, large[0])

    def run(self, number: int) -> dict[str, tuple[float, float]]:
        prompt = f"{PROMPT}, take {number}"
        return {
            "small": timed(lambda: self.score(self.small, prompt)),
            "batch": timed(lambda: self.score(self.large, prompt)),
            "batch decoding": timed(self.decode_all),
            "one": timed(lambda: self.assessor.score(self.large[0], prompt=prompt)),
            "one decoding": timed(lambda: decode(self.large[0], self.wanted, CPUS)),
        }

    def score(self, clips: Sequence[Path], prompt: str) -> None:
        for row in self.assessor.score_many(clips, prompts=prompt):
            assert row.error is None, row.error

    def decode_all(self) -> None:
        with ThreadPoolExecutor(CPUS) as pool:
            for _ in pool.map(lambda path: len(decode(path, self.wanted, 1)), self.large):
                pass


def figures(runs: Sequence[dict[str, tuple[float, float]]]) -> dict[str, list[float]]:
    """Medians by the clock and by CPU time."""
    out: dict[str, list[float]] = {}
    for place in (0, 1):
        for name, value in {
            "small clips per second": [SMALL / run["small"][place] for run in runs],
            "batch / decoding": [
                run["batch"][place] / run["batch decoding"][place] for run in runs
            ],
            "one clip / decoding": [run["one"][place] / run["one decoding"][place] for run in runs],
        }.items():
            out.setdefault(name, []).append(median(value))
    return out


def memory_mb() -> float:
    """The most memory that this process has had."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6  # Linux counts in kB


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="default 5")
    parser.add_argument("--precision", default="auto", help="auto (default) or fast")
    parser.add_argument("--out", type=Path, help="JSON file for the figures, single runs included")
    args = parser.parse_args()
    assessor = aigveval.load("lite", device="cpu", dtype=args.precision)
    report: dict[str, Any] = {"model": assessor.name, "version": aigveval.__version__}
    with tempfile.TemporaryDirectory() as folder:
        small, large = make_clips(Path(folder))
        rounds = Round(assessor, small, large)
        for clips in (small, large):  # to warm up
            rounds.score(clips, PROMPT)
        report["peak memory, MB"] = memory_mb()
        runs = [rounds.run(number) for number in range(args.rounds)]
        report |= {"cpus": CPUS, "figures": figures(runs), "runs": runs}
    for name, (clock, cpu) in report["figures"].items():
        print(f"{name:24} {clock:6.2f} by the clock, {cpu:6.2f} by CPU time")
    print(f"{'peak memory, MB':24} {report['peak memory, MB']:6.0f}")
    print(f"{report['model']}, version {report['version']}, load {os.getloadavg()[0]:.1f}")
    if args.out:
        args.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
