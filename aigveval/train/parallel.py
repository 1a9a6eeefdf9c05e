"""Several processes: what they have to tell each other. With one process, nothing is sent."""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributed as dist


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather_rows(rows: Tensor) -> Tensor:
    """The rows (b, ...) of all processes (w * b, ...), by rank; equally many of each.

    Gradients go back to a process's own rows only. A loss of all rows that each process computes
    alike then gives each the gradient of its share, and these add up to the whole: see
    `global_loss`.
    """
    size = world_size()
    if size == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(size)]
    dist.all_gather(parts, rows.detach().contiguous())
    parts[dist.get_rank()] = rows
    return torch.cat(parts)


def global_loss(loss: Tensor) -> Tensor:
    """A loss of gathered rows, whose gradient survives that DDP and FSDP take the mean.

    They divide the sum of the processes' gradients by their number, as if each had a loss of its
    own; here the sum itself is the gradient. The value stays.
    """
    size = world_size()
    return loss if size == 1 else loss.detach() + size * (loss - loss.detach())


def any_process(*flags: bool, device: torch.device) -> list[bool]:
    """Which flags are up in at least one process; all get the same answer."""
    if world_size() == 1:
        return list(flags)
    raised = torch.tensor(flags, dtype=torch.int32, device=device)
    dist.all_reduce(raised, op=dist.ReduceOp.MAX)
    return [bool(flag) for flag in raised.tolist()]
