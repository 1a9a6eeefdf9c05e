"""The benchmark of busy machines: its processes end, and its ratios are to what they say."""

import os
import subprocess
import sys

import pytest

from tests.scripts import EXAMPLES, script

FOLDER = EXAMPLES / "benchmarks"


@pytest.fixture(scope="module")
def busy():
    return script("benchmarks/busy")


def test_what_spins_ends_by_itself(busy):
    (process,) = busy.spinning(1, 0.05)
    assert process.wait(timeout=60) == 0


@pytest.mark.skipif(os.name == "nt", reason="parents are told otherwise on Windows")
def test_what_spins_ends_with_its_parent(busy):
    """Even with one that had no time to end it."""
    code = (
        "import os, busy\n"
        "(process,) = busy.spinning(1, 600)\n"
        "print(process.pid, flush=True)\n"
        "os._exit(0)\n"
    )
    kept = os.pathsep.join(filter(None, [str(FOLDER), *sys.path]))
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": kept},
    )  # comes back when the last that writes to these pipes has ended
    assert done.returncode == 0 and int(done.stdout) > 0, done.stderr


def test_what_is_started_is_killed_whatever_happens(busy):
    # They sleep: two that spin would leave this test no CPU to end them with.
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    processes = [subprocess.Popen(command) for _ in range(2)]
    with pytest.raises(KeyboardInterrupt), busy.killed_at_the_end(processes):
        assert [process.poll() for process in processes] == [None, None]
        raise KeyboardInterrupt
    assert all(process.returncode for process in processes)


def test_ways_of_waiting(busy):
    ways = busy.ways_of([0, 5000])
    assert list(ways) == ["before", "aigveval", "spin 0", "spin 5000"]
    assert ways["aigveval"] == {}  # what the package chooses
    assert ways["spin 5000"] == {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "5000"}


def test_all_take_turns_and_are_compared(busy, monkeypatch):
    asked, spinning = [], []

    class Fake:
        def __init__(self, seconds):
            self.alone = seconds

        def seconds(self, clips):
            asked.append(self.alone)
            return [self.alone * (1 + 0.5 * spinning[-1])] * clips

    monkeypatch.setattr(busy, "spinning", lambda count, seconds: spinning.append(count) or [])
    times = busy.measure(
        {"before": Fake(1.0), "aigveval": Fake(1.1)}, rounds=2, repeat=3, seconds=9
    )
    assert spinning == [0, 1, 2, 0, 1, 2]
    assert asked == [1.0, 1.1] * 3 + [1.1, 1.0] * 3
    assert all(len(found) == 6 for by_count in times.values() for found in by_count.values())
    rows = busy.summary(times)
    assert rows["before"]["alone_ratio"] == 1 and rows["before"]["one_seconds"] == 1.5
    assert rows["aigveval"]["alone_ratio"] == pytest.approx(1.1)
    assert rows["aigveval"]["one_ratio"] == pytest.approx(1.5)
    assert rows["aigveval"]["two_ratio"] == pytest.approx(2.0)


@pytest.mark.parametrize(
    "options, said",
    [
        (["gone.mp4"], "gone.mp4: no such file"),
        (["--rounds", "0"], "must be at least 1"),
        (["--spin", "-1"], "--spin at least 0"),
        (["--cores", "100000"], "may run on"),
    ],
)
def test_wrong_options(busy, monkeypatch, capsys, options, said):
    if "--cores" in options and not hasattr(os, "sched_getaffinity"):
        pytest.skip("processes can't be bound to CPUs here")
    monkeypatch.setattr(sys, "argv", ["busy.py", *options])
    with pytest.raises(SystemExit) as ended:
        busy.main()
    assert ended.value.code == 2 and said in capsys.readouterr().err
