"""Tables of videos as rows, whatever the format.

A source is a file (`.csv`, `.json`, `.jsonl`, `.parquet`), a folder that holds a Hugging Face data
set, or the id of one on the Hub, as `owner/name`, `owner/name/configuration` and either with
`:split`. The columns are described in `manifest` and `preference_pairs`, their other names in
`columns`.

Rows are read one by one, but for `.json`, which is in memory whole: about 0.9 KB a row, and the
file itself while it is parsed.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TextIO, TypeVar

from ..errors import ManifestError, as_text, common_start, one_line
from .columns import check_columns, expected, in_our_names, is_columns, is_row, listed

MANIFEST_SUFFIXES = (".json", ".jsonl", ".csv", ".parquet")
HUB_ID = re.compile(
    r"(?P<name>[\w.-]+/[\w.-]+)(/(?P<configuration>[\w.-]+))?(:(?P<split>[\w.-]+))?", re.ASCII
)
_SAVED = ("dataset_dict.json", "dataset_info.json")  # what `Dataset.save_to_disk` leaves
_LONGEST_CELL = 1 << 24  # characters; what is longer has no end
_PARQUET_ROWS = 4096  # in memory at a time
_SEPARATOR = re.compile(r'"?sep=([^"\r\n])"?\r?\n?', re.IGNORECASE)
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_END = "\x1aend"  # a line behind the last one of a CSV file; an open quote would take it in
_DECIMAL_COMMA = re.compile(r"(\s*[+-]?\d+),(\d+\s*)")

Row = tuple[int, dict[str, Any]]
Parsed = TypeVar("Parsed")


class RowFault(ValueError):
    """One row is not as the format wants it; the others can be read.

    Args:
        number: Number of the row, as in `read_rows`.
        reason: One line, to follow the file's name.
    """

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(reason)
        self.number = number


def lacking(number: int, row: Mapping[str, Any], name: str, *, aliases: bool = False) -> RowFault:
    """The fault of a row without a column; `aliases` as in `read_rows`."""
    others = expected(name) if aliases else ""
    return RowFault(number, f"row {number} has no {name!r}{others}, it has {listed(row)}")


def url_of(path: str | os.PathLike[str]) -> str | None:
    """Gives an address that stands where a file should be; None for a path.

    Of `Path("https://x.org/a.mp4")`, which has but one of the slashes, it has both.
    """
    if ":/" not in (text := as_text(path)):
        return None
    from encoders.container import as_url  # brings PyTorch along: seconds

    return as_url(text)


def why_missing(path: str | os.PathLike[str]) -> str:
    """Says why there is no file at a path."""
    if url_of(path) is None:
        return "no such file"
    from encoders.container import NO_FILE

    return NO_FILE


def is_saved_dataset(path: str | os.PathLike[str]) -> bool:
    """Whether a folder is what `Dataset.save_to_disk` writes."""
    return any(os.path.isfile(os.path.join(path, name)) for name in _SAVED)


def folder_of(source: str | os.PathLike[str]) -> Path:
    """Gives the folder that relative paths in a source start from."""
    if os.path.isdir(source):
        return Path(source)
    return Path() if is_hub_id(source) else Path(source).parent


def read_rows(
    source: str | os.PathLike[str],
    *,
    required: Sequence[str] = ("video",),
    aliases: bool = True,
    on_fault: Callable[[RowFault], None] | None = None,
) -> Iterator[Row]:
    """Yields the rows of a table with their numbers.

    Numbers are those an editor or a spreadsheet shows: the line in JSON Lines, the row in CSV with
    its header as row 1, the position from 1 in JSON, Parquet and data sets. Of a JSON object
    `{path: prompt}` or `{path: {"prompt": ...}}` each entry is a row, repeated keys included; one
    that `columns.is_row` is the only row.

    Args:
        source: File, folder or Hub id; see the module.
        required: Columns that a table with a header must have, and each row of another.
        aliases: Whether columns may have the other names of `columns`; rows have ours. Without,
            names stay as they are, as the form of one data set wants them.
        on_fault: Gets each row that is broken, and the reading goes on; by default it ends.

    Raises:
        ManifestError: When the source cannot be read or has no rows, or a row is broken.
    """
    if url := url_of(source):
        raise ManifestError(f"{url}: {why_missing(url)}")
    name, count = as_text(source), 0
    try:
        check = partial(check_columns, required=required, aliases=aliases)
        for row in _reader(source)(Path(source), check):
            count += 1
            if not isinstance(row, RowFault):
                row = _named(*row, required, aliases)
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
    except RecursionError:
        raise ManifestError(f"{name}: its JSON is nested too deep") from None
    except (ValueError, csv.Error) as error:
        raise ManifestError(f"{name}: {one_line(error)}") from None
    if not count:
        raise ManifestError(f"{name}: holds no rows")


def parse_rows(
    source: str | os.PathLike[str],
    parse: Callable[[int, dict[str, Any], Path], Parsed],
    *,
    required: Sequence[str] = ("video",),
    on_fault: Callable[[RowFault], None] | None = None,
) -> Iterator[tuple[int, dict[str, Any], Parsed]]:
    """Yields number, values and what `parse` makes of them and the source's folder, of each row.

    Args:
        source, required, on_fault: As in `read_rows`.
        parse: Raises `RowFault` for a row that is wrong.

    Raises:
        ManifestError: As `read_rows`, or when a row is wrong.
    """
    folder = folder_of(source)
    for number, values in read_rows(source, required=required, on_fault=on_fault):
        try:
            parsed = parse(number, values, folder)
        except RowFault as fault:
            if on_fault is None:
                raise ManifestError(f"{as_text(source)}: {fault}") from None
            on_fault(fault)
        else:
            yield number, values, parsed


CheckColumns = Callable[[str, Sequence[str]], None]  # what has the columns, and their names
Reader = Callable[[Path, CheckColumns], Iterator[Row | RowFault]]


def _named(
    number: int, row: dict[str, Any], required: Sequence[str], aliases: bool
) -> Row | RowFault:
    """The row with our names of its columns, if it has those that it must have."""
    try:
        named = in_our_names(row) if aliases else row
    except ValueError as error:
        return RowFault(number, f"row {number} has {error}")
    missing = [name for name in required if name not in named]
    return lacking(number, row, missing[0], aliases=aliases) if missing else (number, named)


def _reader(source: str | os.PathLike[str]) -> Reader:
    readers: dict[str, Reader] = {
        ".json": _rows_of_json,
        ".jsonl": _rows_of_jsonl,
        ".csv": _rows_of_csv,
        ".parquet": _rows_of_parquet,
    }
    if os.path.isdir(source) or is_hub_id(source):
        return _rows_of_dataset
    reader = readers.get(Path(source).suffix.lower())
    if reader is None:
        os.stat(source)  # one that isn't there is none of another format
        raise ValueError(f"a manifest is one of {', '.join(MANIFEST_SUFFIXES)}")
    return reader


def is_hub_id(source: str | os.PathLike[str]) -> bool:
    """Whether a source can be nothing but a data set on the Hub."""
    text = os.fspath(source)
    suffix = Path(text).suffix.lower()
    return (
        HUB_ID.fullmatch(text) is not None
        and suffix not in MANIFEST_SUFFIXES
        and not os.path.lexists(text)
        and not text.startswith(".")
    )


@contextmanager
def open_text(path: Path, *, newline: str = "") -> Iterator[TextIO]:
    """Opens a text file as UTF-8, with or without a byte-order mark, or as UTF-16 with one."""
    with open(path, "rb") as file:
        mark = file.read(2)
    encoding = "utf-16" if mark in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    with open(path, encoding=encoding, newline=newline) as text:
        yield text


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields the lines of a text file that are not empty, with their numbers.

    Raises:
        ManifestError: When the file cannot be read.
    """
    try:
        with open_text(path, newline="\n") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except OSError as error:
        raise ManifestError(f"{as_text(path)}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ManifestError(f"{as_text(path)}: not UTF-8 text") from None


def _undecodable(path: str | os.PathLike[str]) -> int:
    """Number of the first line that is not UTF-8."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
    return 1  # a UTF-16 file that is cut short


def _rows_of_json(path: Path, check: CheckColumns) -> Iterator[Row | RowFault]:
    with open_text(path) as file:
        try:
            found = json.load(file, object_pairs_hook=_object)
        except json.JSONDecodeError as error:
            hint = "; one object a line is .jsonl" if error.msg == "Extra data" else ""
            raise ValueError(f"not JSON: line {error.lineno}: {error.msg}{hint}") from None
    rows: Iterator[Any]
    if isinstance(found, dict) and is_row(found):
        rows = iter([found])
    elif isinstance(found, dict) and is_columns(found):
        raise ValueError(
            "has columns by name, expected a list of {video, prompt}, as of pandas' "
            "to_json(orient='records')"
        )
    elif isinstance(found, dict):
        entries = found.entries if isinstance(found, _Repeated) else found.items()
        rows = (_entry(*entry) for entry in entries)
    elif isinstance(found, list):
        found.reverse()
        rows = (found.pop() for _ in range(len(found)))  # which are freed one after the other
    else:
        raise ValueError("expected an object {path: prompt} or a list of {video, prompt}")
    for number, row in enumerate(rows, start=1):
        if isinstance(row, dict):
            yield number, row
        else:
            yield RowFault(number, _no_object(number, repr(row)))


class _Repeated(dict[str, Any]):
    """An object of JSON that has a key more than once; `entries` are all of them."""

    def __init__(self, entries: list[tuple[str, Any]]) -> None:
        super().__init__(entries)
        self.entries = entries


def _object(entries: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(entries)
    return found if len(found) == len(entries) else _Repeated(entries)


def _entry(key: str, value: Any) -> dict[str, Any]:
    """A row of an object by paths: its prompt, or an object with the prompt and other columns."""
    columns = value if isinstance(value, dict) else {"prompt": value}
    return {"video": key} | {name: columns[name] for name in columns if name != "video"}


def _rows_of_jsonl(path: Path, check: CheckColumns) -> Iterator[Row | RowFault]:
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


def take_long_cells() -> None:
    """Has the process's readers of CSV take cells as long as `score` writes them for any prompt.

    Python's own limit is 131,072 characters.
    """
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_CELL))


def _rows_of_csv(path: Path, check: CheckColumns) -> Iterator[Row | RowFault]:
    take_long_cells()
    with open_text(path) as file:
        header, spaced = file.readline().lower(), False
        if said := _SEPARATOR.fullmatch(header):  # to Excel, which doesn't count the line either
            delimiter = said[1]
        else:
            file.seek(0)
            # Spreadsheets write ; or tabs where the comma is the decimal mark.
            delimiter = max(_SEPARATORS, key=header.count)
            # People write `video, prompt`, and mean no space of a name, nor one before a quote.
            spaced = 0 < header.count(delimiter) == header.count(f"{delimiter} ")
        form: dict[str, Any] = {"delimiter": delimiter, "skipinitialspace": spaced}
        first = next(csv.reader(file, **form), [])
        columns = [column.strip().lower() for column in first]
        check("row 1, the header,", columns)
        number = 1
        try:
            for number, record in enumerate(csv.reader(chain(file, [_END]), **form), start=2):
                if record != [_END] and any(map(str.strip, record)):
                    yield _row_of_csv(number, record, columns, delimiter)
        except csv.Error:  # it takes no longer values
            most = f"{csv.field_size_limit():,} characters"
            yield RowFault(
                number + 1,
                f"row {number + 1} has a value of more than {most}: a double quote that never "
                "ends?",
            )


def _row_of_csv(
    number: int, record: Sequence[str], columns: Sequence[str], delimiter: str
) -> Row | RowFault:
    if record[-1].endswith(_END):
        return RowFault(number, f"row {number} begins a double quote that never ends")
    if len(record) > len(columns):
        return RowFault(
            number,
            f"row {number} has {len(record)} values for {len(columns)} columns; "
            f"text with {_SEPARATORS.get(delimiter, delimiter)} needs double quotes around it",
        )
    if delimiter != ",":
        record = [with_point(value) for value in record]
    return number, dict(zip(columns, record))


def with_point(value: str) -> str:
    """A number with a decimal comma as Python reads it; any other text as it is."""
    found = _DECIMAL_COMMA.fullmatch(value) if "," in value else None
    return ".".join(found.groups()) if found else value


def _rows_of_parquet(path: Path, check: CheckColumns) -> Iterator[Row | RowFault]:
    import pyarrow
    import pyarrow.parquet as parquet

    with open(path, "rb") as file:  # a missing file is an OSError, with the system's words
        try:
            table = parquet.ParquetFile(file)
            check("the table", table.schema_arrow.names)
            number = 0
            for batch in table.iter_batches(batch_size=_PARQUET_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
        except pyarrow.ArrowException as error:
            raise ValueError(f"not Parquet: {error}") from None


def _rows_of_dataset(source: Path, check: CheckColumns) -> Iterator[Row]:
    """Yields the rows of a data set, split after split, with their numbers counted through.

    Where there are several splits, a row without a column `split` gets the name of its own. Videos
    are not decoded: a column of the feature `Video` gives what its `path` says.
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
        for name, feature in (table.features or {}).items():
            if isinstance(feature, datasets.Video):
                table = table.cast_column(name, datasets.Video(decode=False))
        for row in table:
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
            assert parts is not None  # `_reader` chose this by it
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


def part_names(sources: Sequence[str | os.PathLike[str]]) -> list[str | None]:
    """Names several sources as parts of one data set: their names without what all begin with.

    One source alone gets None.
    """
    if len(sources) < 2:
        return [None] * len(sources)
    stems = [Path(source).stem for source in sources]
    common = common_start(stems)
    start = max(common.rfind(mark) for mark in "_-.") + 1
    names = [as_text(stem[start:] or stem) for stem in stems]
    # Such as fold0/train.csv and fold1/train.csv.
    return [as_text(s) for s in sources] if len(set(names)) < len(names) else list(names)
