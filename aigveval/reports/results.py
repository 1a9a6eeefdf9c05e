"""Files of assessments: JSON Lines, CSV and Parquet, chosen by suffix.

JSON Lines and Parquet nest a score as `{"score", "std"}`; CSV, which cannot nest, has the columns
`technical` and `technical_std`, and so on, and `warnings`, one a line. Where any row has a
familiarity, CSV also has that, `technical_low` and `technical_high`, and so on; where any has an
explanation, `explanation_technical` and so on, `defects` as in an answer (`blur 3;
freeze 2 0.6-1.4`, or `none`) and `problems`, one a line; where any has contributions,
`contribution_technical` and so on; where any has evidence, `evidence` as a JSON list of facts and
`advice`, one a line.

Every finished row is on disk at once, so a killed run loses nothing and can be resumed; Parquet,
which cannot be appended to, keeps its rows beside it in `NAME.parquet.partial.jsonl` until it is
closed.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from prompts import DIMENSIONS, render_defects
from prompts.facts import FACT_FIELDS
from prompts.parsing import read_defects

from ..assessment import (
    CONTRIBUTION_FIELDS,
    DEFECT_FIELDS,
    EXTRAS,
    ROW_FIELDS,
    SCORE_FIELDS,
    Assessment,
    defect_to_dict,
)
from ..data.readers import take_long_cells
from ..errors import UsageError, one_line
from ..files import replaced, writing

if TYPE_CHECKING:
    import pyarrow

Key = tuple[str, str | None, str, str]  # Assessment.key()
_PLAIN = tuple(
    column
    for name in ROW_FIELDS
    for column in ([name] + ([f"{name}_std"] if name in SCORE_FIELDS else []))
)
_EXTRAS = {
    "explanation": (*(f"explanation_{name}" for name in DIMENSIONS), "defects", "problems"),
    "contributions": tuple(f"contribution_{name}" for name in CONTRIBUTION_FIELDS),
    "evidence": EXTRAS["evidence"],
    "familiarity": (
        "familiarity",
        *(f"{name}_{end}" for name in SCORE_FIELDS for end in ("low", "high")),
    ),
}
_NONE = "none"  # no defect, no problem; an empty cell is an unknown


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
    except (csv.Error, RecursionError) as error:  # a cell without an end, JSON without a bottom
        raise _not_ours(path, error) from None
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
    take_long_cells()
    records = list(csv.reader(io.StringIO(text, newline="")))
    if not records:
        return []
    columns = records[0]
    ours = csv_columns([name for name, own in _EXTRAS.items() if own[0] in columns])
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
        with open(path, "rb") as file:  # PyArrow takes no name that isn't UTF-8
            rows = parquet.read_table(file).to_pylist()
        return list(map(Assessment.from_dict, rows))
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
SUFFIXES = tuple(_READERS)


def _append_jsonl(file: TextIO, rows: Iterable[Assessment], extras: Collection[str]) -> None:
    for row in rows:
        file.write(json.dumps(row.to_dict(), ensure_ascii=False, allow_nan=False) + "\n")


def _append_csv(file: TextIO, rows: Iterable[Assessment], extras: Collection[str]) -> None:
    writer = csv.DictWriter(file, csv_columns(extras))
    if not file.tell():
        file.write("\ufeff")  # without this mark Excel takes UTF-8 for a local code page
        writer.writeheader()
    writer.writerows(map(to_flat, rows))


class ResultsFile(AbstractContextManager["ResultsFile"]):
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
        with self._writing():
            self._target.parent.mkdir(parents=True, exist_ok=True)
            self._rewrite()
            self._open()

    def write(self, row: Assessment) -> None:
        """Appends one row and hands it to the operating system."""
        with self._writing():
            self._check_ours()
            if self._extras.issuperset(row.extras):
                self._append(self._file, [row], self._extras)
                self._file.flush()
                self.rows.append(row)
            else:  # more columns from here on
                self._file.close()
                self.rows.append(row)
                self._rewrite()
                self._open()

    def close(self, *, rows: Sequence[Assessment] | None = None) -> None:
        """Finishes the file, with `rows` if their final order is not the order of writing."""
        if self._file.closed:
            return
        with self._writing():
            try:
                self._check_ours()
            finally:
                self._file.close()
            if rows is not None and list(rows) != self.rows:
                self.rows = list(rows)
                self._rewrite()
            if self._parquet:
                import pyarrow
                import pyarrow.parquet as parquet

                nested = [row.to_dict() for row in self.rows]
                table = pyarrow.Table.from_pylist(nested, schema=parquet_schema(self._extras))
                with replaced(self._target) as finished, open(finished, "wb") as file:
                    parquet.write_table(table, file)
                self._stream_path.unlink()

    def _check_ours(self) -> None:
        """Makes the file anew where it was removed, as what goes into a removed one is lost.

        Raises:
            ResultsError: when there is another by now. The lock of `only_writer` can't be seen from
                other machines and containers.
        """
        try:
            there = os.stat(self._stream_path)
        except FileNotFoundError:
            self._file.close()
            self._rewrite()
            self._open()
            return
        ours = os.fstat(self._file.fileno())  # not all network drives number a file alike twice
        if not os.path.samestat(there, ours) and there.st_size != ours.st_size:
            raise ResultsError(f"{self.path}: another command has replaced it; give each its own")

    def _rewrite(self) -> None:
        """Replaces the file at once, so that a kill leaves the old rows or the new ones."""
        self._extras = {extra for row in self.rows for extra in row.extras}
        with (
            replaced(self._stream_path) as whole,
            open(whole, "w", encoding="utf-8", newline="") as file,
        ):
            self._append(file, self.rows, self._extras)

    def _open(self) -> None:
        self._file = open(self._stream_path, "a", encoding="utf-8", newline="")

    def _writing(self) -> AbstractContextManager[None]:
        return writing(self.path, kind=ResultsError)

    def __exit__(self, *exception: object) -> None:
        self.close()


@contextmanager
def only_writer(path: str | Path) -> Iterator[None]:
    """Keeps other processes on this machine from writing a file of results meanwhile.

    Raises:
        ResultsError: when one does.
    """
    from filelock import FileLock, Timeout

    key = hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:16]
    # Not where TMPDIR says, of which each job of a cluster has its own.
    folder = "/tmp" if os.access("/tmp", os.W_OK) else tempfile.gettempdir()
    lock = FileLock(os.path.join(folder, f"aigveval-{key}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ResultsError(f"{path}: another command is writing it") from None
    except OSError:  # another user's lock, or no place for one: no reason to fail
        pass
    try:
        yield
    finally:
        lock.release()


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
    folder = Path(os.path.realpath(path)).parent
    with writing(path, kind=ResultsError):  # a name too long, a folder that can't be looked into
        if _is_there(path) and not path.is_file():
            raise ResultsError(f"{path}: not a file, results need one")
        while not _is_there(folder):
            folder = folder.parent
    if not folder.is_dir():
        raise ResultsError(f"{path}: cannot be written, as {folder} is not a folder")
    if not os.access(folder, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise ResultsError(f"{path}: cannot be written: Permission denied")


def _is_there(path: Path) -> bool:
    """As `Path.exists`, which takes other errors for that from Python 3.14 on."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def take_earlier(
    path: str | Path,
    planned: Collection[Key],
    *,
    resume: bool,
    extras: Collection[str] = (),
    model: Path | None = None,
) -> Earlier:
    """Decides about the results that are already at `path`, so that none is destroyed unasked.

    With `resume`, rows of planned work are taken over, failed ones are tried again, and rows about
    other work stay; a note says where the model was written after them, as under the same name it
    may be another one by now. Without it the run starts anew; an earlier file with rows that this
    run would not bring back is kept as `NAME.old-1.SUFFIX`, `NAME.old-2.SUFFIX` and so on.

    Args:
        extras: of this run's rows, see `Assessment.extras`. Rows that lack any are computed again.
        model: folder of the model; None where it is in none.

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
    planned, extras = set(planned), set(extras)
    if resume:
        done = {
            row.key(): row
            for row in rows
            if row.error is None and row.key() in planned and extras <= set(row.extras)
        }
        others = [row for row in rows if row.key() not in planned]
        note = None
        if (
            done
            and model is not None
            and _newest(model.glob("*.safetensors"))
            > _newest(one for one in (path, _partial(path)) if one.exists())
        ):
            note = f"{path}: has rows from before the model {model} was last written; they are kept"
        return Earlier(done=done, others=others, note=note)
    extras.add("familiarity")  # not the run's choice, but the model's
    if all(row.key() in planned and set(row.extras) <= extras for row in rows):
        note = f"{path}: earlier results replaced" if rows else None
        return Earlier(done={}, others=[], note=note)
    number = 1
    while (old := path.with_name(f"{path.stem}.old-{number}{path.suffix}")).exists():
        number += 1
    with ResultsFile(old, keep=rows):
        pass
    return Earlier(done={}, others=[], note=f"{path}: earlier results kept as {old}")


def _newest(files: Iterable[Path]) -> float:
    """When the last of them was written; 0 without any."""
    return max((file.stat().st_mtime for file in files), default=0.0)


# ---- columns ------------------------------------------------------------------------------------
# Those of explanations and contributions are there where any row has them.


def csv_columns(extras: Collection[str] = ()) -> tuple[str, ...]:
    """The columns of a CSV file whose rows have these extras, see `Assessment.extras`."""
    return _PLAIN + tuple(c for name in _EXTRAS if name in extras for c in _EXTRAS[name])


def to_flat(row: Assessment) -> dict[str, Any]:
    """The cells of a row by column, without the columns that it has nothing for."""
    nested = row.to_dict()
    flat = {name: nested[name] for name in ROW_FIELDS}
    for name in SCORE_FIELDS:
        score = flat[name] or {"score": None, "std": None}
        flat[name], flat[f"{name}_std"] = score["score"], score["std"]
        flat |= {f"{name}_{end}": score[end] for end in ("low", "high") if end in score}
    if row.familiarity is not None:
        flat["familiarity"] = row.familiarity
    flat["warnings"] = "\n".join(row.warnings)
    if row.explanation is not None:
        flat |= {f"explanation_{name}": text for name, text in row.explanation.items()}
        flat["defects"] = None if row.defects is None else render_defects(row.defects)
        flat["problems"] = "\n".join(row.problems or ()) or _NONE
    if row.contributions is not None:
        numbers = row.contributions.to_dict()
        flat |= {f"contribution_{name}": value for name, value in numbers.items()}
    if row.evidence is not None:
        flat["evidence"] = json.dumps(nested["evidence"], ensure_ascii=False)
        flat["advice"] = "\n".join(row.advice or ()) or _NONE
    return flat


def from_flat(cells: Mapping[str, str]) -> Assessment:
    """The row of cells that `to_flat` gave, read from a file.

    Raises:
        ValueError: when they are none.
    """
    nested: dict[str, Any] = {name: cells[name] for name in ("video", "model", "version")}
    nested.update({name: cells[name] or None for name in ("prompt", "error")})
    nested["seconds"] = float(cells["seconds"])
    nested["warnings"] = cells.get("warnings", "").splitlines()
    for name in SCORE_FIELDS:
        score, std = cells[name], cells[f"{name}_std"]
        nested[name] = {"score": float(score), "std": float(std)} if score else None
        if low := cells.get(f"{name}_low"):
            nested[name] |= {"low": float(low), "high": float(cells[f"{name}_high"])}
    if familiarity := cells.get("familiarity"):
        nested["familiarity"] = float(familiarity)
    if problems := cells.get("problems"):  # never empty where there is an explanation
        nested["explanation"] = {n: cells[f"explanation_{n}"] or None for n in DIMENSIONS}
        nested["problems"] = [] if problems == _NONE else problems.split("\n")
        defects = read_defects(cells["defects"], []) if cells["defects"] else None
        nested["defects"] = None if defects is None else list(map(defect_to_dict, defects))
    if cells.get("contribution_baseline"):
        nested["contributions"] = {
            name: float(value) if (value := cells[f"contribution_{name}"]) else None
            for name in CONTRIBUTION_FIELDS
        }
    if advice := cells.get("advice"):  # never empty where there is evidence
        nested["evidence"] = json.loads(cells["evidence"])
        nested["advice"] = [] if advice == _NONE else advice.split("\n")
    return Assessment.from_dict(nested)


def parquet_schema(extras: Collection[str] = ()) -> pyarrow.Schema:
    """The schema of a Parquet file whose rows have these extras."""
    import pyarrow

    number, text, whole = pyarrow.float64(), pyarrow.string(), pyarrow.int64()
    ends = [("low", number), ("high", number)] if "familiarity" in extras else []
    score = pyarrow.struct([("score", number), ("std", number), *ends])
    kinds = {"name": text, "dimension": text, "severity": whole}
    defect = pyarrow.struct([(name, kinds.get(name, number)) for name in DEFECT_FIELDS])
    texts = ("kind", "dimension", "name", "other")
    fact = pyarrow.struct(
        [(name, text if name in texts else number) for name in FACT_FIELDS if name != "box"]
        + [("box", pyarrow.list_(number))]
    )
    types = {
        **{name: score for name in SCORE_FIELDS},
        "seconds": number,
        "familiarity": number,
        "warnings": pyarrow.list_(text),
        "explanation": pyarrow.struct([(name, text) for name in DIMENSIONS]),
        "defects": pyarrow.list_(defect),
        "problems": pyarrow.list_(text),
        "contributions": pyarrow.struct([(name, number) for name in CONTRIBUTION_FIELDS]),
        "evidence": pyarrow.list_(fact),
        "advice": pyarrow.list_(text),
    }
    more = [field for name, own in EXTRAS.items() if name in extras for field in own]
    return pyarrow.schema([(name, types.get(name, text)) for name in (*ROW_FIELDS, *more)])
