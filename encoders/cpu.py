"""How many CPUs this process may use, and how OpenMP's threads wait. Standard library only.

PyTorch computes with OpenMP, which reads its settings when it is loaded, and never again. So both
packages call `configure_openmp` first of all when they are imported, which is in time wherever
torch isn't loaded yet.
"""

import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

# A thread that waits for the others spins for 3 ms by default. On a busy machine one of them has
# lost its CPU to another process, which the spinning of the rest keeps it from getting back. To
# sleep at once costs 12 % on a machine of one's own; 800 turns, some microseconds, cost neither
# (examples/benchmarks/busy.py).
_WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "800"}
# What says how threads wait, of GNU's OpenMP and of LLVM's and Intel's.
_CHOICES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
_COUNT = "OMP_NUM_THREADS"


def configure_openmp() -> None:
    """Lets OpenMP's threads sleep while they wait, and have no more of them than CPUs.

    Sets variables of the environment, and only those that nobody has set:

    - `OMP_WAIT_POLICY`, unless it, `GOMP_SPINCOUNT`, `KMP_BLOCKTIME` or `KMP_LIBRARY` is set;
    - `OMP_NUM_THREADS`, unless it is set, where a quota of a container allows less than all CPUs.
      Without a quota OpenMP itself counts the CPUs that the process may run on.

    Does nothing where torch is loaded already: its threads belong to the program that loaded it,
    which may have chosen their number with `torch.set_num_threads`.
    """
    if "torch" in sys.modules:
        return
    if not any(name in os.environ for name in _CHOICES):
        os.environ.update(_WAITING)
    if _COUNT not in os.environ and (allowed := available_cpus()) < _cpus_of_affinity():
        os.environ[_COUNT] = str(allowed)


def available_cpus() -> int:
    """Gives the number of CPUs that this process may keep busy, at least 1.

    Those it may run on, or fewer where a quota of a control group (a container's limit) says so; a
    quota of 2.5 CPUs counts as 2, because a third thread would be stopped half of the time.
    """
    quota = cpu_quota()
    cpus = _cpus_of_affinity()
    return cpus if quota is None else max(1, min(cpus, int(quota)))


def cpu_model() -> str:
    """What the processor calls itself and can do, as far as the system tells."""
    lines = {line.replace("\t", "") for line in _text(Path("/proc/cpuinfo")).splitlines()}
    told = sorted(line for line in lines if line.startswith(("model", "flags:", "Features:")))
    return " ".join(told) or f"{platform.processor()} {platform.machine()}"


def _cpus_of_affinity() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Gives the CPU time that control groups grant this process, in CPUs; None without a limit.

    Reads control groups of both versions, and takes the smallest of all limits from the process's
    own group up to the outermost that can be seen.

    Args:
        root: Folder that stands for `/`, with `proc` in it.
    """
    try:
        groups = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
        mounts = (root / "proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):  # no Linux, or hidden
        return None
    own = dict(_own_groups(groups))
    found = []
    for version, mounted, point in _hierarchies(mounts):
        if version not in own:
            continue
        top = root / point.lstrip("/")
        group = top / _below(own[version], mounted)
        while True:
            found.append(_limit(group, version))
            if group == top:
                break
            group = group.parent
    return min((limit for limit in found if limit is not None), default=None)


def _own_groups(lines: list[str]) -> Iterator[tuple[int, str]]:
    """Version and path of the process's groups that may limit its CPU time."""
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            yield 2, path
        elif "cpu" in controllers.split(","):
            yield 1, path


def _hierarchies(lines: list[str]) -> Iterator[tuple[int, str, str]]:
    """Version of each mounted hierarchy, the group at its top, and the folder it lies in."""
    for line in lines:
        before, separator, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if not separator or len(fields) < 5 or len(kind) < 3:
            continue
        if kind[0] == "cgroup2":
            yield 2, fields[3], fields[4]
        elif kind[0] == "cgroup" and "cpu" in kind[2].split(","):
            yield 1, fields[3], fields[4]


def _below(group: str, mounted: str) -> str:
    """The way to a group from the top of its mount; to the top itself if it lies elsewhere."""
    path = PurePosixPath(group)
    if ".." in path.parts or not path.is_relative_to(mounted):
        return ""
    return str(path.relative_to(mounted))


def _limit(group: Path, version: int) -> float | None:
    """In CPUs: microseconds of CPU time in each period, by its length; "max" and -1 are none."""
    if version == 2:
        values = _text(group / "cpu.max").split()
    else:
        values = [_text(group / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
    try:
        quota, period = map(int, values)
    except ValueError:
        return None
    return quota / period if quota > 0 and period > 0 else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
