"""Work that releases the interpreter's lock, as OpenCV's does, in several threads."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Result = TypeVar("Result")
_MOST = 4  # with more, Python's part of the work holds them up


def by_stretches(work: Callable[[int, int], Result], total: int) -> list[Result]:
    """Calls `work(start, stop)` for as many stretches of 0..total as there are threads.

    Their number is PyTorch's (`torch.set_num_threads`), at most four. What comes out in all must
    not depend on it.

    Args:
        work: Called in threads of its own; what it raises is raised here.
        total: At least 1.

    Returns:
        The results in order.
    """
    count = min(_MOST, torch.get_num_threads(), total)
    if count <= 1:
        return [work(0, total)]
    edges = [number * total // count for number in range(count + 1)]
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, edges, edges[1:]))
