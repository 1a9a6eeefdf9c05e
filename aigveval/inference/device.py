"""Where to compute."""

from __future__ import annotations

import torch

from ..errors import ModelError


def find_device(device: str | torch.device | None) -> torch.device:
    """Gives the device of that name; without one, `cuda` if there is one, else `cpu`.

    Raises:
        ModelError: when there is no such device.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError):  # torch's own words go on about every back end it knows
        here = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
        raise ModelError(f"no device {str(device)!r} here; there are {', '.join(here)}") from None
    return chosen
