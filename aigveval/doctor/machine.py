"""The machine's processor and memory, and what this process may use of them."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def _group_folders(root: Path) -> list[Path]:
    """This process's control groups of memory and all around them."""
    folders = [root, root / "memory"]
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return folders
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers or "memory" in controllers.split(","):
            base = root / "memory" if controllers else root
            inner = base / path.lstrip("/")
            folders += [inner, *(one for one in inner.parents if one.is_relative_to(base))]
    return folders


def memory_bytes() -> int | None:
    """How much memory the machine has; None where it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def memory_limit_bytes(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """How much memory the control group of this process may have; None without a limit."""
    limits = []
    for folder in _group_folders(root):
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
