"""Files of assessments: JSON Lines, CSV and Parquet, chosen by suffix.

JSON Lines and Parquet nest a score as `{"score", "std"}`; CSV, which cannot nest, has the columns
`technical` and `technical_std`, and so on, and `warnings`, one a line. Where any row has an
explanation, CSV also has `explanation_technical` and so on, `defects` as in an answer (`blur 3;
freeze 2 0.6-1.4`, or `none`) and `problems`, one a line; where any has contributions,
`contribution_technical` and so on.

Every finished row is on disk at once, so a killed run loses nothing and can be resumed; Parquet,
which cannot be appended to, keeps its rows beside it in `NAME.parquet.partial.jsonl` until it is
closed.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from ..assessment import Assessment
from ..errors import UsageError, one_line
from .result_columns import csv_columns, csv_extras, from_flat, parquet_schema, to_flat

Key = tuple[str, str | None, str, str]  # Assessment.key()


class ResultsError(UsageError):
    """A results file cannot be read or written; the message is one line."""


def read_results(path: str | Path) -> list[Assessment]:
    """Reads the rows of a results file, those of an unfinished Parquet file included.

    A last row that a kill cut short is left out: it was not finished.

    Raises:
        ResultsError: when the suffix is unknown, or the file was not written by this module.
    """
    path = Path(path)
    reader = _READERS[_suffix(path)]
    try:
        return reader(path)
    except UnicodeDecodeError:
        raise ResultsError(f"{path}: not a file of results, as it is not UTF-8 text") from None
    except OSError as error:
        raise ResultsError(f"{path}: {error.strerror or error}") from None


def _read_jsonl(path: Path) -> list[Assessment]:
    rows = []
    lines = _read_text(path).split("\n")
    for number, line in enumerate(lines, start=1):
        try:
            if line.strip():
                rows.append(Assessment.from_dict(json.loads(line)))
        except ValueError as error:
            if number == len(lines) > 1:
                break
            raise _not_ours(path, f"line {number}: {error}") from None
    return rows


def _read_csv(path: Path) -> list[Assessment]:
    text = _read_text(path)
    records = list(csv.reader(io.StringIO(text, newline="")))
    if not records:
        return []
    columns = records[0]
    ours = csv_columns(csv_extras(columns))
    # earlier versions had no warnings
    if tuple(columns) not in (ours, tuple(name for name in ours if name != "warnings")):
        raise _not_ours(path, f"its columns are {', '.join(columns)}")
    if not text.endswith("\n") and len(records) > 1:
        records.pop()
    rows = []
    for number, record in enumerate(records[1:], start=2):
        try:
            rows.append(from_flat(dict(zip(columns, record, strict=True))))
        except ValueError as error:
            if number == len(records):
                break
            raise _not_ours(path, f"row {number}: {error}") from None
    return rows


def _read_parquet(path: Path) -> list[Assessment]:
    if _partial(path).exists():  # begins with the rows that the unfinished run had kept
        return _read_jsonl(_partial(path))
    if not path.stat().st_size:
        return []
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        return [Assessment.from_dict(row) for row in parquet.read_table(path).to_pylist()]
    except (pyarrow.ArrowException, ValueError) as error:
        raise _not_ours(path, error) from None


def _read_text(path: Path) -> str:
    head, newline, tail = path.read_bytes().rpartition(b"\n")
    # The end may be cut through a character.
    return (head + newline + tail.decode("utf-8", "ignore").encode()).decode("utf-8-sig")


def _not_ours(path: Path, reason: object) -> ResultsError:
    return ResultsError(f"{path}: not a file of results: {one_line(reason)}")


def _partial(path: Path) -> Path:
    return path.with_name(path.name + ".partial.jsonl")


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        found = f"has the suffix {suffix}" if suffix else "has no suffix"
        raise ResultsError(f"{path}: {found}; results are written as {', '.join(_READERS)}")
    return suffix


_READERS: dict[str, Callable[[Path], list[Assessment]]] = {
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}


def _append_jsonl(file: TextIO, rows: Iterable[Assessment], extras: Collection[str]) -> None:
    for row in rows:
        file.write(json.dumps(row.to_dict(), ensure_ascii=False, allow_nan=False) + "\n")


def _append_csv(file: TextIO, rows: Iterable[Assessment], extras: Collection[str]) -> None:
    writer = csv.DictWriter(file, csv_columns(extras))
    if not file.tell():
        file.write("\ufeff")  # without this mark Excel takes UTF-8 for a local code page
        writer.writeheader()
    writer.writerows(map(to_flat, rows))


def _write_parquet(path: Path, rows: Iterable[Assessment], extras: Collection[str]) -> None:
    import pyarrow
    import pyarrow.parquet as parquet

    nested = [row.to_dict() for row in rows]
    table = pyarrow.Table.from_pylist(nested, schema=parquet_schema(extras))
    parquet.write_table(table, path)


class ResultsFile:
    """Writes rows to a results file as they come; a context manager.

    Args:
        path: file to write; its suffix chooses the format, its folder is made when missing.
        keep: rows of an earlier run that the file begins with.

    Raises:
        ResultsError: when the suffix is unknown or the file cannot be written.
    """

    def __init__(self, path: str | Path, *, keep: Sequence[Assessment] = ()) -> None:
        self.path = Path(path)
        self._parquet = _suffix(self.path) == ".parquet"
        self._target = Path(os.path.realpath(path))  # replacing a link would cut it off
        self._stream_path = _partial(self._target) if self._parquet else self._target
        self._append = _append_csv if _suffix(self._stream_path) == ".csv" else _append_jsonl
        self.rows = list(keep)
        try:
            self._target.parent.mkdir(parents=True, exist_ok=True)
            self._rewrite()
            self._open()
        except OSError as error:
            raise self._cannot_write(error) from None

    def write(self, row: Assessment) -> None:
        """Appends one row and hands it to the operating system."""
        try:
            if self._extras.issuperset(row.extras):
                self._append(self._file, [row], self._extras)
                self._file.flush()
                self.rows.append(row)
            else:  # more columns from here on
                self._file.close()
                self.rows.append(row)
                self._rewrite()
                self._open()
        except OSError as error:
            raise self._cannot_write(error) from None

    def close(self, *, rows: Sequence[Assessment] | None = None) -> None:
        """Finishes the file, with `rows` if their final order is not the order of writing."""
        if self._file.closed:
            return
        try:
            self._file.close()
            if rows is not None and list(rows) != self.rows:
                self.rows = list(rows)
                self._rewrite()
            if self._parquet:
                finished = self._target.with_name(f".{self._target.name}.tmp")
                _write_parquet(finished, self.rows, self._extras)
                os.replace(finished, self._target)
                self._stream_path.unlink()
        except OSError as error:
            raise self._cannot_write(error) from None

    def _rewrite(self) -> None:
        """Replaces the file at once, so that a kill leaves the old rows or the new ones."""
        whole = self._stream_path.with_name(f".{self._stream_path.name}.tmp")
        self._extras = {extra for row in self.rows for extra in row.extras}
        with open(whole, "w", encoding="utf-8", newline="") as file:
            self._append(file, self.rows, self._extras)
        os.replace(whole, self._stream_path)

    def _open(self) -> None:
        self._file = open(self._stream_path, "a", encoding="utf-8", newline="")

    def _cannot_write(self, error: OSError) -> ResultsError:
        return ResultsError(f"{self.path}: cannot be written: {error.strerror or error}")

    def __enter__(self) -> ResultsFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """What an earlier run left.

    Args:
        done: rows that need not be computed again, by key.
        others: rows about other work, which stay in the file.
        note: one line for the user, or None.
    """

    done: dict[Key, Assessment]
    others: list[Assessment]
    note: str | None = None


def _check_writable(path: Path) -> None:
    """Fails now rather than after hours of computing."""
    if path.exists() and not path.is_file():
        raise ResultsError(f"{path}: not a file, results need one")
    folder = Path(os.path.realpath(path)).parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise ResultsError(f"{path}: cannot be written, as {folder} is not a folder")
    if not os.access(folder, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise ResultsError(f"{path}: cannot be written: Permission denied")


def take_earlier(
    path: str | Path, planned: Collection[Key], *, resume: bool, extras: Collection[str] = ()
) -> Earlier:
    """Decides about the results that are already at `path`, so that none is destroyed unasked.

    With `resume`, rows of planned work are taken over, failed ones are tried again, and rows about
    other work stay. Without it the run starts anew; an earlier file with rows that this run would
    not bring back is kept as `NAME.old-1.SUFFIX`, `NAME.old-2.SUFFIX` and so on.

    Args:
        path: of the file of results.
        planned: keys of this run's work.
        resume: see above.
        extras: of this run's rows, see `Assessment.extras`. Rows that lack any are computed again.

    Raises:
        ResultsError: when the file at `path` was not written by this module or cannot be written.
    """
    path = Path(path)
    _suffix(path)
    _check_writable(path)
    if not path.exists() and not (path.suffix.lower() == ".parquet" and _partial(path).exists()):
        return Earlier(done={}, others=[])
    try:
        rows = read_results(path)
    except ResultsError as error:
        raise ResultsError(f"{error}; choose another file for the results") from None
    planned = set(planned)
    if resume:
        done = {
            row.key(): row for row in rows
            if row.error is None and row.key() in planned and set(extras) <= set(row.extras)
        }
        others = [row for row in rows if row.key() not in planned]
        return Earlier(done=done, others=others)
    if all(row.key() in planned and set(row.extras) <= set(extras) for row in rows):
        note = f"{path}: earlier results replaced" if rows else None
        return Earlier(done={}, others=[], note=note)
    number = 1
    while (old := path.with_name(f"{path.stem}.old-{number}{path.suffix}")).exists():
        number += 1
    with ResultsFile(old, keep=rows):
        pass
    return Earlier(done={}, others=[], note=f"{path}: earlier results kept as {old}")
