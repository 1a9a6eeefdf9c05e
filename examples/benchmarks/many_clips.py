"""What `aigveval score` does over many clips: memory, time, and whether the results can be read.

    python examples/benchmarks/many_clips.py [--clips 1000] [--model lite] [--precision fast]
    python examples/benchmarks/many_clips.py --clips 10000 --frames 1 --size 64

Sixteen small clips, linked under as many names as asked for, are scored by the command into a
results file, which is read again and again meanwhile. Printed are the process's memory after a
fifth of the rows and after all of them, its peak, the rows per second of the first and the last
tenth, and how often the file was read. Needs Linux.
"""

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from pipeline import make_clip, parser_of

from aigveval.reports.results import read_results

SOURCES = 16
POLL_SECONDS = 2.0


def make_links(folder: Path, count: int, *, frames: int, size: int) -> Path:
    """A folder of links to a few clips."""
    sources, links = folder / "sources", folder / "clips"
    sources.mkdir()
    links.mkdir()
    for number in range(min(SOURCES, count)):
        # One pixel wider each, so that no two are the same file.
        width = (8 * size // 5 + 2 * number) // 2 * 2
        make_clip(sources / f"{number}.mp4", width=width, height=size, seconds=frames / 24)
    for number in range(count):
        (links / f"{number:06}.mp4").symlink_to(sources / f"{number % SOURCES}.mp4")
    return links


def memory_mb(process: int) -> float:
    """What a process has in memory now; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(float(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1000


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--clips", type=int, default=1000, help="default 1000")
    parser.add_argument("--model", default="lite", help="default lite")
    parser.add_argument("--precision", default="auto", help="auto (default) or fast")
    parser.add_argument("--frames", type=int, default=16, help="of a clip; default 16")
    parser.add_argument("--size", type=int, default=320, help="its height; default 320 pixels")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        links = make_links(folder, args.clips, frames=args.frames, size=args.size)
        out = folder / "rows.jsonl"
        command = [sys.executable, "-m", "aigveval", "score", str(links), "--out", str(out)]
        command += ["--prompt", "a red car drives along a road", "--model", args.model]
        command += ["--precision", args.precision, "--device", "cpu", "--quiet"]
        process = subprocess.Popen(command)
        seen: list[tuple[float, int, float]] = []  # seconds, rows, MB
        while process.poll() is None:
            time.sleep(POLL_SECONDS)
            if out.exists():
                rows = len(read_results(out))
                seen.append((time.perf_counter(), rows, memory_mb(process.pid)))
        assert process.returncode == 0, process.returncode
        results = read_results(out)
    assert len(results) == args.clips and all(row.error is None for row in results)
    for line in figures_of(seen, args.clips):
        print(line)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(f"peak memory, MB       {peak / 1000:7.0f}")
    print(f"{args.model} ({args.precision}); the file was read {len(seen)} times meanwhile")


def figures_of(seen: Sequence[tuple[float, int, float]], clips: int) -> list[str]:
    """Lines on memory and speed, of seconds, rows and MB whenever the file was read.

    There is a dash where it was read too seldom.
    """
    running = [one for one in seen if 0 < one[1] < clips and one[2]]
    later = [one for one in running if one[1] >= 0.2 * clips]
    lines = [f"MB after {rows:6} rows  {memory:7.0f}" for _, rows, memory in later[:1] + later[-1:]]
    for label, part in (
        ("first", [one for one in running if one[1] <= 0.1 * clips]),
        ("last", [one for one in running if one[1] >= 0.9 * clips]),
    ):
        rate = "-"
        if len(part) > 1:
            rate = f"{(part[-1][1] - part[0][1]) / (part[-1][0] - part[0][0]):.2f}"
        lines.append(f"rows/s, {label:5} tenth   {rate:>7}")
    return lines


if __name__ == "__main__":
    main()
