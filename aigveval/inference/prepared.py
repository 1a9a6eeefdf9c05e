"""A clip between decoding and scoring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class PreparedClip:
    """What was decoded of a clip.

    Args:
        views: what each encoder sees of it, without batch axis.
        duration_seconds: the length that its defects' times are told in.
        warnings: what was noticed when it was read.
    """

    views: Mapping[str, Tensor]
    duration_seconds: float
    warnings: tuple[str, ...] = ()


def with_warnings(
    rows: Sequence[dict[str, Any] | Exception], prepared: Sequence[PreparedClip]
) -> list[dict[str, Any] | Exception]:
    """Puts what was noticed when clips were read beside their scores."""
    pairs = zip(rows, prepared, strict=True)
    return [r if isinstance(r, Exception) else r | {"warnings": c.warnings} for r, c in pairs]
