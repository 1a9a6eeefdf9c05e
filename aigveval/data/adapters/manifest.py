"""A manifest in our own form, whatever its format."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..readers import Row, read_rows
from ..scales import Scale
from . import Adapter, Options
from ._piped import Prompts


def read(source: Path, options: Options) -> Iterator[Row]:
    """Yields the rows as they are; those without a prompt get that of the file of prompts."""
    prompts = Prompts(options.prompts)
    for number, row in read_rows(source):
        if options.prompts and not row.get("prompt") and isinstance(row.get("video"), str):
            row["prompt"] = prompts.of(row["video"])
        yield number, row


ADAPTER = Adapter(
    title="any manifest, to change its format or scale",
    read=read,
    scale=Scale(1, 5),
    reads="csv, json, jsonl, parquet, data set folder or Hub id",
)
