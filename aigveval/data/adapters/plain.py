"""A manifest in our own form, whatever its format."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..readers import Row, read_rows
from . import Options


def read(source: Path, options: Options) -> Iterator[Row]:
    """Yields the rows as they are."""
    yield from read_rows(source)
