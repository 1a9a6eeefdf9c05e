"""What is known of a checkpoint besides its weights: what it was trained on, and its figures.

Read from what `aigveval fit` leaves beside the folder `model`, and from what `aigveval evaluate
--out FILE.json` wrote. Nothing is computed here, and paths are told by their last part only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from prompts import SCORES

from ..data.readers import HUB_ID, MANIFEST_SUFFIXES
from ..errors import InputError, as_text
from ..reports.tables import LABELS

_VALIDATION = re.compile(rf"eval_(.+)_(srocc|plcc|accuracy)_({'|'.join(SCORES)})")
_FIGURES = ("srocc", "plcc", "krocc", "main", "rmse")  # of an evaluation, as its JSON calls them
_OPTIONS = (
    "epochs", "max_steps", "batch_size", "grad_accum", "learning_rate", "lora_learning_rate",
    "align_epochs", "loss", "mismatch_probability", "ema", "seed",
)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number, maybe with the ends of its interval."""

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        interval = "" if self.low is None else f" [{self.low:.2f}, {self.high:.2f}]"
        return f"{self.value:.2f}{interval}"


@dataclass(frozen=True, kw_only=True)
class FigureTable:
    """Figures on one manifest.

    Attributes:
        data: Name of the manifest.
        note: What the reader has to know, one line.
        scores: Columns.
        rows: Key of a figure, such as `srocc` -> score -> figure; a score may lack some.
        measured: Whether the data had no say in the training; else it chose the best epoch.
    """

    data: str
    note: str
    scores: list[str]
    rows: dict[str, dict[str, Figure]]
    measured: bool

    @property
    def labelled(self) -> dict[str, dict[str, Figure]]:
        """`rows` under names for people."""
        names = {**LABELS, "accuracy": "pair accuracy"}
        return {names.get(key, key): row for key, row in self.rows.items()}


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a checkpoint was trained, as far as it is known.

    Attributes:
        train, valid: Names of the manifests.
        datasets: Those of `train` that are data sets on the Hub, by id.
        base: Model that it started from.
        options: Options of `aigveval fit`, as text.
        tables: Figures on the validation manifests.
    """

    train: list[str]
    valid: list[str] = field(default_factory=list)
    datasets: list[str] = field(default_factory=list)
    base: str | None = None
    options: dict[str, str] = field(default_factory=dict)
    tables: list[FigureTable] = field(default_factory=list)


def read_training(model: Path) -> Training | None:
    """What `aigveval fit` left beside a model's folder; None where there is nothing.

    Args:
        model: The folder `model` of a run, whose parent holds `fit.json` and the checkpoints.
    """
    config = _read(model.parent / "fit.json")
    if not isinstance(config, dict) or model.resolve().name != "model":
        return None
    train, valid = (list(map(str, config.get(name) or [])) for name in ("train", "valid"))
    base = config.get("base")
    return Training(
        train=[_name(source) for source in train], valid=[_name(source) for source in valid],
        datasets=["/".join(source.partition(":")[0].split("/")[:2]) for source in train
                  if _is_hub_id(source)],
        base=None if base is None else _name(str(base)),
        options={
            name: json.dumps(config[name]) if isinstance(config[name], dict) else str(config[name])
            for name in _OPTIONS
            if config.get(name) not in (None, 0, 0.0) and (name, config[name]) != ("grad_accum", 1)
        },
        tables=_validation(model.parent),
    )


def _validation(run: Path) -> list[FigureTable]:
    """Figures of the epoch that was kept, from the Trainer's own record."""
    steps = {
        int(path.parent.name.rpartition("-")[2]): path
        for path in run.glob("checkpoint-*/trainer_state.json")
        if path.parent.name.rpartition("-")[2].isdigit()
    }
    state = _read(steps[max(steps)]) if steps else None
    if not isinstance(state, dict):
        return []
    best = state.get("best_global_step")
    found: dict[str, dict[str, dict[str, Figure]]] = {}
    for entry in state.get("log_history", []):
        if best is not None and entry.get("step") == best:
            for key, value in entry.items():
                if match := _VALIDATION.fullmatch(key):
                    part, kind, score = match.groups()
                    found.setdefault(part, {}).setdefault(kind, {})[score] = Figure(value=value)
    note = "Validation during the training, which chose the epoch that was kept by these figures."
    return [
        FigureTable(data=part, note=note, scores=_scores(rows), rows=rows, measured=False)
        for part, rows in found.items()
    ]


def read_evaluation(path: str | Path) -> FigureTable:
    """The figures of `aigveval evaluate PREDICTIONS MANIFEST --out FILE.json`.

    Raises:
        InputError: It is no such file.
    """
    plain = _read(Path(path))
    if plain is None:
        raise InputError(f"{as_text(path)}: cannot be read as JSON")
    try:
        scores: Mapping[str, Any] = plain["scores"]
        rows: dict[str, dict[str, Figure]] = {
            name: {
                str(score): Figure(**{key: known[name][key] for key in ("value", "low", "high")})
                for score in SCORES if score in scores
                if (known := scores[score]["figures"]).get(name, {}).get("value") is not None
            }
            for name in _FIGURES
        }
        settings = plain["settings"]
        clips = {str(scores[score]["clips"]) for score in scores}
        note = f"{' or '.join(sorted(clips))} clips, scores on {settings['scale']}."
        if settings["draws"]:
            units = " or ".join(sorted(set(settings["resampled"].values())))
            note += f" Brackets: {settings['level']:.0%} bootstrap intervals over {units}."
        if settings["where"]:
            note += f" Only rows with {' and '.join(settings['where'])}."
        name = _name(plain["manifest"])
    except (KeyError, TypeError, AttributeError, ValueError):
        raise InputError(
            f"{as_text(path)}: not an evaluation, as `aigveval evaluate --out FILE.json` writes it"
        ) from None
    rows = {name: row for name, row in rows.items() if row}
    return FigureTable(data=name, note=note, scores=_scores(rows), rows=rows, measured=True)


def find_evaluations(model: Path) -> list[Path]:
    """The evaluations that lie in a model's folder: `evaluation*.json`."""
    return sorted(model.glob("evaluation*.json"))


def _scores(rows: Mapping[str, Mapping[str, Figure]]) -> list[str]:
    return [score for score in SCORES if any(score in row for row in rows.values())]


def _name(source: str) -> str:
    return source if _is_hub_id(source) else PurePath(source.replace("\\", "/")).name


def _is_hub_id(source: str) -> bool:
    suffixes: Sequence[str] = MANIFEST_SUFFIXES
    known = HUB_ID.fullmatch(source) is not None and not source.lower().endswith(tuple(suffixes))
    return known and not source.startswith(".") and not Path(source).exists()


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
