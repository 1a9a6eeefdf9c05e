"""Rows of Hugging Face data sets: saved on disk, a folder of their data files, or on the Hub."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import one_line
from .readers import HUB_ID, CheckColumns, Row, is_saved_dataset
from ..errors import ManifestError, as_text


def rows_of_dataset(source: Path, check: CheckColumns) -> Iterator[Row]:
    """Yields the rows of a data set, split after split, with their numbers counted through.

    Where there are several splits, a row without a column `split` gets the name of its own. Videos
    are not decoded: a column of the feature `Video` gives what its `path` says.

    Args:
        source: folder or id.
        check: looks at the columns of each split, and raises what is wrong with them.

    Raises:
        ManifestError: when the data set cannot be had.
    """
    try:
        import datasets
    except ImportError:
        raise ManifestError(
            f"{as_text(source)}: Hugging Face data sets need the package datasets: "
            "pip install 'aigveval[datasets]'"
        ) from None
    number = 0
    for split, table in _splits(source, datasets).items():
        columns = table.column_names
        if columns is not None:
            check("the data set", columns)
        for row in _undecoded(table, datasets):
            number += 1
            yield number, row if split is None else {"split": split, **row}


def _splits(source: Path, datasets: Any) -> dict[str | None, Any]:
    """Gives the tables by split; one alone goes without a name."""
    try:
        if is_saved_dataset(source):
            found = datasets.load_from_disk(os.fspath(source))
        elif source.is_dir():
            found = datasets.load_dataset(os.fspath(source), streaming=True)
        else:
            parts = HUB_ID.fullmatch(source.as_posix())
            assert parts is not None  # `tables` hands over nothing else
            found = datasets.load_dataset(
                parts["name"], parts["configuration"], split=parts["split"], streaming=True
            )
    except Exception as error:  # the library raises dozens of types, of other libraries too
        if source.is_dir():
            raise ManifestError(
                f"{as_text(source)}: no data set in this folder: {one_line(error)}"
            ) from None
        raise ManifestError(
            f"{as_text(source)}: no such file, and no data set of this name can be had from the "
            f"Hugging Face Hub: {one_line(error)}"
        ) from None
    if not isinstance(found, dict):
        return {None: found}
    return {name if len(found) > 1 else None: table for name, table in found.items()}


def _undecoded(table: Any, datasets: Any) -> Any:
    video = getattr(datasets, "Video", None)  # since datasets 3.2
    for name, feature in (table.features or {}).items():
        if video is not None and isinstance(feature, video):
            table = table.cast_column(name, video(decode=False))
    return table
