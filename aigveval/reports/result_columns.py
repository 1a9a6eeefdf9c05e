"""Columns of files of assessments: flat ones for CSV, typed ones for Parquet.

The columns of explanations and contributions are there where any row has them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from prompts import DIMENSIONS, render_defects
from prompts.parsing import read_defects

from ..assessment import (
    CONTRIBUTION_FIELDS, DEFECT_FIELDS, EXPLANATION_FIELDS, ROW_FIELDS, SCORE_FIELDS, Assessment,
    defect_to_dict,
)

if TYPE_CHECKING:
    import pyarrow

_PLAIN = tuple(
    column
    for name in ROW_FIELDS
    for column in ([name] + ([f"{name}_std"] if name in SCORE_FIELDS else []))
)
_EXTRAS = {
    "explanation": (*(f"explanation_{name}" for name in DIMENSIONS), "defects", "problems"),
    "contributions": tuple(f"contribution_{name}" for name in CONTRIBUTION_FIELDS),
}
_NONE = "none"  # no defect, no problem; an empty cell is an unknown


def csv_columns(extras: Collection[str] = ()) -> tuple[str, ...]:
    """The columns of a CSV file whose rows have these extras, see `Assessment.extras`."""
    return _PLAIN + tuple(c for name in _EXTRAS if name in extras for c in _EXTRAS[name])


def csv_extras(columns: Collection[str]) -> list[str]:
    """The extras of a CSV file with these columns."""
    return [name for name, own in _EXTRAS.items() if own[0] in columns]


def to_flat(row: Assessment) -> dict[str, Any]:
    """The cells of a row by column, without the columns that it has nothing for."""
    nested = row.to_dict()
    flat = {name: nested[name] for name in ROW_FIELDS}
    for name in SCORE_FIELDS:
        score = flat[name] or {"score": None, "std": None}
        flat[name], flat[f"{name}_std"] = score["score"], score["std"]
    flat["warnings"] = "\n".join(row.warnings)
    if row.explanation is not None:
        flat |= {f"explanation_{name}": text for name, text in row.explanation.items()}
        flat["defects"] = None if row.defects is None else render_defects(row.defects)
        flat["problems"] = "\n".join(row.problems or ()) or _NONE
    if row.contributions is not None:
        numbers = row.contributions.to_dict()
        flat |= {f"contribution_{name}": value for name, value in numbers.items()}
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
    if problems := cells.get("problems"):  # never empty where there is an explanation
        nested["explanation"] = {n: cells[f"explanation_{n}"] or None for n in DIMENSIONS}
        nested["problems"] = [] if problems == _NONE else problems.split("\n")
        told = read_defects(cells["defects"], []) if cells["defects"] else None
        nested["defects"] = None if told is None else list(map(defect_to_dict, told))
    if cells.get("contribution_baseline"):
        nested["contributions"] = {
            name: float(value) if (value := cells[f"contribution_{name}"]) else None
            for name in CONTRIBUTION_FIELDS
        }
    return Assessment.from_dict(nested)


def parquet_schema(extras: Collection[str] = ()) -> pyarrow.Schema:
    """The schema of a Parquet file whose rows have these extras."""
    import pyarrow

    number, text, whole = pyarrow.float64(), pyarrow.string(), pyarrow.int64()
    score = pyarrow.struct([("score", number), ("std", number)])
    kinds = {"name": text, "dimension": text, "severity": whole}
    defect = pyarrow.struct([(name, kinds.get(name, number)) for name in DEFECT_FIELDS])
    types = {
        **{name: score for name in SCORE_FIELDS},
        "seconds": number,
        "warnings": pyarrow.list_(text),
        "explanation": pyarrow.struct([(name, text) for name in DIMENSIONS]),
        "defects": pyarrow.list_(defect),
        "problems": pyarrow.list_(text),
        "contributions": pyarrow.struct([(name, number) for name in CONTRIBUTION_FIELDS]),
    }
    names = [*ROW_FIELDS]
    names += EXPLANATION_FIELDS if "explanation" in extras else ()
    names += ["contributions"] if "contributions" in extras else ()
    return pyarrow.schema([(name, types.get(name, text)) for name in names])
