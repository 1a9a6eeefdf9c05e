"""What this process may use of the machine: cores, their time, memory. Light: standard library."""

from __future__ import annotations

import os
import platform
from fractions import Fraction
from pathlib import Path


def allowed_cores() -> int:
    """On how many cores this process may run."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_quota(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """How many cores' time the control group of this process has; None without a limit.

    Args:
        root: where control groups are; in a container those of the container.
    """
    quotas = []
    for folder in _group_folders(root, "cpu"):
        try:
            if (folder / "cpu.max").is_file():  # version 2
                quota, period = (folder / "cpu.max").read_text().split()
            else:
                quota = (folder / "cpu.cfs_quota_us").read_text()
                period = (folder / "cpu.cfs_period_us").read_text()
            if quota != "max" and int(quota) > 0:
                quotas.append(float(Fraction(int(quota), int(period))))
        except (OSError, ValueError, ZeroDivisionError):
            continue
    return min(quotas, default=None)


def _group_folders(root: Path, controller: str) -> list[Path]:
    """This process's control groups and all around them, the outermost last."""
    folders: list[Path] = []
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        base = root / controller if controllers else root
        inner = base / path.lstrip("/")
        folders += [inner, *(one for one in inner.parents if one.is_relative_to(base))]
    return [*folders, root, root / controller]


def memory_bytes() -> int | None:
    """How much memory the machine has; None where it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def memory_limit_bytes(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """How much memory the control group of this process may have; None without a limit."""
    limits = []
    for folder in _group_folders(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            try:
                limits.append(int((folder / name).read_text()))
            except (OSError, ValueError):  # "max" is none
                continue
    limit, total = min(limits, default=None), memory_bytes()
    return limit if limit is not None and (total is None or limit < total) else None


def cpu_name() -> str:
    """The processor's name, as its maker has it where the system tells."""
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
