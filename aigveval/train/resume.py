"""Going on after a stop: which checkpoint, and whether it belongs to this run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from transformers.trainer import TRAINER_STATE_NAME

from .dataset import QualityDataset
from .fit_config import FitConfig, FitError

# May be changed between the stop of a run and its continuation.
_FREE = ("output_dir", "cache_dir", "save_steps", "early_stop", "threads", "workers", "device",
         "encode_batch_size", "eval_batch_size", "gradient_checkpointing")


def last_checkpoint(output: Path) -> Path | None:
    """The newest checkpoint in a folder that was written whole."""
    complete = [(step_of(path), path) for path in _checkpoints(output) if _is_complete(path)]
    return max(complete)[1] if complete else None


def remove_unfinished(output: Path) -> None:
    """Delete what a kill left of a checkpoint; the Trainer would keep it instead of a whole one."""
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


def check_same_run(
    config: FitConfig, output: Path, dataset: QualityDataset, *, resuming: bool
) -> None:
    """Note what is trained in ``fit.json``, or compare it with what the checkpoints there are of.

    Raises:
        FitError: Resuming would mix two runs; names the options that differ.
    """
    rows = [(dataset.digests[row.video], *dataclasses.astuple(row)[1:]) for row in dataset.rows]
    now = {k: v for k, v in dataclasses.asdict(config).items() if k not in _FREE}
    now["training rows"] = hashlib.sha256(repr(rows).encode()).hexdigest()
    now["encoders"] = [encoder.fingerprint() for encoder in dataset.encoders]
    now = json.loads(json.dumps(now))
    path = output / "fit.json"
    if resuming and path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = sorted(name for name in {*now, *before} if now.get(name) != before.get(name))
        if changed:
            raise FitError(
                f"{output} holds checkpoints of a run with other {', '.join(changed)}; "
                "choose another output_dir, or remove it to start over"
            )
        return
    output.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(now, indent=2) + "\n", encoding="utf-8")


def best_metrics(history: Sequence[Mapping[str, float]], step: int | None) -> dict[str, float]:
    """The correlations of the validation after an optimizer step; empty without one."""
    for entry in reversed(history):
        if "eval_srocc" in entry and entry["step"] == step:
            return {
                name.removeprefix("eval_"): value for name, value in entry.items()
                if name == "eval_srocc" or "_srocc_" in name or "_plcc_" in name
            }
    return {}
