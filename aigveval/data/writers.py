"""Writes tables row by row in the formats that `readers` reads: whole, or not at all."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, Literal, TextIO

from ..errors import InputError, as_text
from ..files import check_not_one_of, replaced, writing
from .readers import MANIFEST_SUFFIXES

Kind = Literal["nothing", "whole", "number", "text"]

_PARQUET_ROWS = 4096  # in memory at a time
_KINDS: tuple[Kind, ...] = ("nothing", "whole", "number", "text")  # each holds those before it


class Columns(dict[str, Kind]):
    """The columns of rows that were noted, in order of appearance, and what they hold."""

    def note(self, row: Mapping[str, Any]) -> None:
        for name, value in row.items():
            kind = _kind(value)
            known = self.get(name)
            if known is None or _KINDS.index(kind) > _KINDS.index(known):
                self[name] = kind


def _kind(value: Any) -> Kind:
    if value is None:
        return "nothing"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 53:
        return "whole"
    return "number" if isinstance(value, float) else "text"


def check_target(path: Path, sources: Sequence[str | os.PathLike[str]]) -> None:
    """Fails when a file cannot be written as a table, or is one of those it would be made from."""
    if path.suffix.lower() not in MANIFEST_SUFFIXES:
        raise InputError(
            f"{as_text(path)}: a manifest is written as one of {', '.join(MANIFEST_SUFFIXES)}"
        )
    check_not_one_of(path, sources)


class TableWriter:
    """Writes rows to a file; a context manager. The file appears when it ends without an error.

    Args:
        path: Its suffix chooses the format; its folder is made when missing.
        columns: Columns of the table, in order; a row may leave any out.

    Raises:
        InputError: When the format is unknown or the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], columns: Columns) -> None:
        self.path, self.columns = Path(path), columns
        check_target(self.path, ())
        self._stack = ExitStack()
        self._rows = 0
        self._waiting: list[dict[str, Any]] = []  # for Parquet
        self._parquet: Any = None
        self._file: TextIO | None = None

    def __enter__(self) -> TableWriter:
        suffix = self.path.suffix.lower()
        with writing(self.path), ExitStack() as stack:
            part = stack.enter_context(replaced(self.path))
            if suffix == ".parquet":
                self._open_parquet(stack.enter_context(open(part, "wb")))
                stack.callback(self._close)
            else:
                # half a character of UTF-16 is escaped, as JSON has it
                self._file = open(
                    part, "w", encoding="utf-8", errors="backslashreplace", newline=""
                )
                stack.callback(self._close)
                if suffix == ".csv":
                    self._csv = csv.writer(self._file)
                    self._csv.writerow(self.columns)
                elif suffix == ".json":
                    self._file.write("[")
            self._stack = stack.pop_all()
        return self

    def write(self, row: Mapping[str, Any]) -> None:
        """Writes a row; its columns that the table does not have are left out."""
        whole = {name: row.get(name) for name in self.columns}
        suffix = self.path.suffix.lower()
        with writing(self.path):
            if self._file is None:
                self._waiting.append({n: self._cell(n, value) for n, value in whole.items()})
                if len(self._waiting) == _PARQUET_ROWS:
                    self._flush_parquet()
            elif suffix == ".csv":
                self._csv.writerow([_csv_cell(value) for value in whole.values()])
            else:
                text = _json(whole)
                if suffix == ".json":
                    text = ",\n" * bool(self._rows) + text
                self._file.write(text if suffix == ".json" else text + "\n")
        self._rows += 1

    def __exit__(self, *exception: Any) -> None:
        with writing(self.path):
            self._stack.__exit__(*exception)

    def _close(self) -> None:
        if self._file is None:
            self._flush_parquet()
            self._parquet.close()
        else:
            if self.path.suffix.lower() == ".json":
                self._file.write("]\n")
            self._file.close()

    def _open_parquet(self, part: BinaryIO) -> None:  # as PyArrow takes no name that isn't UTF-8
        import pyarrow
        import pyarrow.parquet as parquet

        types = {"whole": pyarrow.int64(), "number": pyarrow.float64()}
        self._schema = pyarrow.schema(
            [(name, types.get(kind, pyarrow.string())) for name, kind in self.columns.items()]
        )
        self._parquet = parquet.ParquetWriter(part, self._schema)

    def _flush_parquet(self) -> None:
        import pyarrow

        table = pyarrow.Table.from_pylist(self._waiting, schema=self._schema)
        self._parquet.write_table(table)
        self._waiting = []

    def _cell(self, name: str, value: Any) -> Any:
        return _text(value) if self.columns[name] == "text" and value is not None else value


def write_table(path: str | os.PathLike[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes rows that are in memory."""
    rows, columns = list(rows), Columns()
    for row in rows:
        columns.note(row)
    with TableWriter(path, columns) as table:
        for row in rows:
            table.write(row)


def _csv_cell(value: Any) -> Any:
    return value if value is None or isinstance(value, (int, float)) else _text(value)


def _text(value: Any) -> str:
    return as_text(value) if isinstance(value, str) else _json(value)


def _json(value: Any) -> str:
    """As JSON, which has no NaN or infinity: null."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=str)
    except ValueError:
        return json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, default=str)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
