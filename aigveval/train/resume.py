"""Resuming: the checkpoint to resume from, and whether it belongs to this run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..files import write_text
from ..model.config import new_options
from .config import FitConfig, FitError, default_of
from .dataset import QualityDataset
from .validation import METRICS

TRAINER_STATE_NAME = "trainer_state.json"  # as the Trainer calls it
# Options that may be changed when a run is resumed.
_FREE = (
    "output_dir",
    "cache_dir",
    "save_steps",
    "save_minutes",
    "early_stop",
    "threads",
    "workers",
    "device",
    "encode_batch_size",
    "eval_batch_size",
    "gradient_checkpointing",
    "report_to",
    "log_steps",
)


def last_checkpoint(output: Path) -> Path | None:
    """The newest complete checkpoint in a folder; None where there is none."""
    complete = [(step_of(path), path) for path in _checkpoints(output) if _is_complete(path)]
    return max(complete)[1] if complete else None


def remove_unfinished(output: Path) -> None:
    """Delete incomplete checkpoints of a killed run; the Trainer would take them for whole ones."""
    for path in _checkpoints(output):
        if not _is_complete(path):
            shutil.rmtree(path)


def _checkpoints(output: Path) -> list[Path]:
    return [path for path in output.glob("checkpoint-*") if path.name[11:].isdigit()]


def _is_complete(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / TRAINER_STATE_NAME).read_text())  # the Trainer writes it last
    except (OSError, ValueError):
        return False
    return True


def step_of(checkpoint: Path) -> int:
    """The optimizer step at which a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])


def stale_validations(history: Sequence[Mapping[str, float]], metric: str) -> int:
    """How many validations in a log came after the first best one."""
    values = [entry[f"eval_{metric}"] for entry in history if f"eval_{metric}" in entry]
    return len(values) - 1 - values.index(max(values)) if values else 0


def history_of(checkpoint: Path) -> list[dict[str, float]]:
    """What had been logged when a checkpoint was written."""
    return json.loads((checkpoint / TRAINER_STATE_NAME).read_text())["log_history"]


def check_same_run(
    config: FitConfig,
    output: Path,
    dataset: QualityDataset,
    *,
    resuming: bool,
    write: bool,
    processes: int,
) -> None:
    """Write what identifies a run to ``fit.json``, or compare it with that of what is there.

    That are checkpoints, or the model alone, as of a run with ``epochs: 0``.

    Args:
        config, output, dataset: Of the run.
        resuming: Whether there is a checkpoint to resume from.
        write: Whether this process writes for all.
        processes: How many train together.

    Raises:
        FitError: Resuming would mix two runs; names the options that differ.
    """
    rows = [
        # without answers up to the weight, as rows had no more fields once
        (dataset.digests[row.video], *dataclasses.astuple(row)[1 : None if row.answers else 6])
        for row in dataset.rows
    ]
    preferences = [pair.preferences for pair in dataset.pairs]
    data = repr((rows, preferences) if preferences else rows)
    now = {k: v for k, v in dataclasses.asdict(config).items() if k not in _FREE}
    now["batch_size"] = config.batch_size * processes
    now["training rows"] = hashlib.sha256(data.encode()).hexdigest()
    now["encoders"] = [encoder.fingerprint() for encoder in dataset.encoders]
    now = json.loads(json.dumps(now))
    path = output / "fit.json"
    there = "checkpoints" if resuming else "the model" if (output / "model").exists() else None
    if there and path.is_file():
        before = new_options(json.loads(path.read_text(encoding="utf-8")))
        # An option that did not exist yet had what is now its default.
        before = {**{name: default_of(name) for name in now.keys() - before.keys()}, **before}
        changed = sorted(name for name in {*now, *before} if now.get(name) != before.get(name))
        if changed:
            raise FitError(
                f"{output} holds {there} of a run with other {', '.join(changed)}; "
                "choose another output_dir, or remove it to start over"
            )
        return
    if write:
        write_text(path, json.dumps(now, indent=2) + "\n")


def best_metrics(history: Sequence[Mapping[str, float]], step: int | None) -> dict[str, float]:
    """The metrics of the validation after an optimizer step; empty without one."""
    for entry in reversed(history):
        if entry["step"] == step and "eval_loss" in entry:
            return {
                name.removeprefix("eval_"): value
                for name, value in entry.items()
                if any(f"_{kind}_" in name or name == f"eval_{kind}" for kind in METRICS)
            }
    return {}
