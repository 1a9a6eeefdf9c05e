"""A manifest in our own form, whatever its format."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..readers import Row, read_rows
from ..scales import Scale
from . import Adapter, Options


def read(source: Path, options: Options) -> Iterator[Row]:
    """Yields the rows as they are."""
    yield from read_rows(source)


ADAPTER = Adapter(
    title="any manifest, to change its format or scale",
    read=read,
    scale=Scale(1, 5),
    reads="csv, json, jsonl, parquet, data set folder or Hub id",
)
