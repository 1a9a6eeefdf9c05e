"""Tables of videos as rows, read one by one whatever the format, so that memory stays small.

A source is a file (`.csv`, `.json`, `.jsonl`, `.parquet`), a folder that holds a Hugging Face data
set, or the id of one on the Hub, as `owner/name`, `owner/name/configuration` and either with
`:split`. What the columns mean is told in `manifest` and `pairs`.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from ..errors import ManifestError, as_text, one_line
from .json_stream import elements

MANIFEST_SUFFIXES = (".json", ".jsonl", ".csv", ".parquet")
HUB_ID = re.compile(
    r"(?P<name>[\w.-]+/[\w.-]+)(/(?P<configuration>[\w.-]+))?(:(?P<split>[\w.-]+))?", re.ASCII
)
_SAVED = ("dataset_dict.json", "dataset_info.json")  # what `Dataset.save_to_disk` leaves
_PARQUET_ROWS = 4096  # in memory at a time

Row = tuple[int, dict[str, Any]]


class RowFault(ValueError):
    """One row is not as the format wants it; the others can be read.

    Args:
        number: of the row, as in `read_rows`.
        reason: one line, to follow the file's name.
    """

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(reason)
        self.number = number


def is_saved_dataset(path: str | os.PathLike[str]) -> bool:
    """Whether a folder is what `Dataset.save_to_disk` writes."""
    return any(os.path.isfile(os.path.join(path, name)) for name in _SAVED)


def folder_of(source: str | os.PathLike[str]) -> Path:
    """Gives the folder that relative paths in a source start from."""
    if os.path.isdir(source):
        return Path(source)
    return Path() if _hub_id(source) else Path(source).parent


def read_rows(
    source: str | os.PathLike[str],
    *,
    required: Sequence[str] = ("video",),
    on_fault: Callable[[RowFault], None] | None = None,
) -> Iterator[Row]:
    """Yields the rows of a table with their numbers.

    Numbers are those an editor or a spreadsheet shows: the line in JSON Lines, the row in CSV with
    its header as row 1, the position from 1 in JSON, Parquet and data sets. Of a JSON object
    `{path: prompt}` each entry is a row, repeated keys included.

    Args:
        source: see the module.
        required: columns that a table with a header must have.
        on_fault: gets each row that is broken, and the reading goes on; by default it ends.

    Raises:
        ManifestError: when the source cannot be read or has no rows, or a row is broken.
    """
    name, count = as_text(source), 0
    try:
        for row in _reader(source)(Path(source), required):
            count += 1
            if not isinstance(row, RowFault):
                yield row
            elif on_fault is not None:
                on_fault(row)
            else:
                raise row
    except UnicodeDecodeError:
        raise ManifestError(f"{name}: line {_undecodable(source)} is not UTF-8 text") from None
    except ManifestError:
        raise
    except OSError as error:
        raise ManifestError(f"{name}: {one_line(error.strerror or error)}") from None
    except (ValueError, csv.Error, RecursionError) as error:
        raise ManifestError(f"{name}: {one_line(error)}") from None
    if not count:
        raise ManifestError(f"{name}: holds no rows")


Reader = Callable[[Path, Sequence[str]], Iterator[Row | RowFault]]


def _reader(source: str | os.PathLike[str]) -> Reader:
    readers: dict[str, Reader] = {
        ".json": _rows_of_json, ".jsonl": _rows_of_jsonl, ".csv": _rows_of_csv,
        ".parquet": _rows_of_parquet,
    }
    if os.path.isdir(source) or _hub_id(source):
        from .hub_datasets import rows_of_dataset

        return rows_of_dataset
    reader = readers.get(Path(source).suffix.lower())
    if reader is None:
        raise ValueError(f"a manifest is one of {', '.join(MANIFEST_SUFFIXES)}")
    return reader


def _hub_id(source: str | os.PathLike[str]) -> bool:
    text = os.fspath(source)
    suffix = Path(text).suffix.lower()
    return (
        HUB_ID.fullmatch(text) is not None and suffix not in MANIFEST_SUFFIXES
        and not os.path.lexists(text) and not text.startswith(".")
    )


@contextmanager
def open_text(path: Path, *, newline: str = "") -> Iterator[TextIO]:
    """Opens a text file as UTF-8, with or without a byte-order mark, or as UTF-16 with one."""
    with open(path, "rb") as file:
        mark = file.read(2)
    encoding = "utf-16" if mark in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    with open(path, encoding=encoding, newline=newline) as text:
        yield text


def _undecodable(path: str | os.PathLike[str]) -> int:
    """Number of the first line that is not UTF-8."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
    return 1  # a UTF-16 file that is cut short


def _rows_of_json(path: Path, required: Sequence[str]) -> Iterator[Row | RowFault]:
    with open_text(path) as file:
        for number, (key, value) in enumerate(elements(file), start=1):
            if key is not None:
                yield number, {"video": key, "prompt": value}
            elif isinstance(value, dict):
                yield number, value
            else:
                yield RowFault(number, _no_object(number, repr(value)))


def _rows_of_jsonl(path: Path, required: Sequence[str]) -> Iterator[Row | RowFault]:
    with open_text(path, newline="\n") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                yield RowFault(number, f"row {number} is not JSON: {error.msg}")
                continue
            if isinstance(row, dict):
                yield number, row
            else:
                yield RowFault(number, _no_object(number, line))


def _no_object(number: int, found: str) -> str:
    return f"row {number} is not an object: {one_line(found, limit=60)}"


def _rows_of_csv(path: Path, required: Sequence[str]) -> Iterator[Row | RowFault]:
    with open_text(path) as file:
        header = file.readline().lower()
        file.seek(0)
        # Spreadsheets write ; or tabs where the comma is the decimal mark.
        delimiter = max(",;\t", key=header.count)
        records = csv.reader(file, delimiter=delimiter)
        columns = [column.strip().lower() for column in next(records, [])]
        _check_header("row 1, the header,", columns, required)
        for number, record in enumerate(records, start=2):
            if not any(map(str.strip, record)):
                continue
            if len(record) > len(columns):
                yield RowFault(
                    number, f"row {number} has {len(record)} values for {len(columns)} columns; "
                    "text with commas needs double quotes around it"
                )
            else:
                yield number, dict(zip(columns, record))


def _rows_of_parquet(path: Path, required: Sequence[str]) -> Iterator[Row | RowFault]:
    import pyarrow
    import pyarrow.parquet as parquet

    with open(path, "rb") as file:  # also tells a missing file in the system's words
        try:
            table = parquet.ParquetFile(file)
            _check_header("the table", table.schema_arrow.names, required)
            number = 0
            for batch in table.iter_batches(batch_size=_PARQUET_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
        except pyarrow.ArrowException as error:
            raise ValueError(f"not Parquet: {error}") from None


def _check_header(where: str, columns: Sequence[str], required: Sequence[str]) -> None:
    found = one_line(", ".join(columns) or "nothing", limit=120)
    for name in required:
        if name not in columns:
            raise ValueError(f"{where} names no column {name!r}, it has {found}")
    twice = sorted({name for name in columns if name and columns.count(name) > 1})
    if twice:
        raise ValueError(f"{where} names the column {twice[0]!r} twice")


def part_names(sources: Sequence[str | os.PathLike[str]]) -> list[str | None]:
    """Names several sources as parts of one data set: their names without what all begin with.

    One source alone gets None.
    """
    if len(sources) < 2:
        return [None] * len(sources)
    stems = [Path(source).stem for source in sources]
    common = os.path.commonprefix(stems)
    start = max(common.rfind(mark) for mark in "_-.") + 1
    names = [as_text(stem[start:] or stem) for stem in stems]
    # Such as fold0/train.csv and fold1/train.csv.
    return [as_text(s) for s in sources] if len(set(names)) < len(names) else list(names)
