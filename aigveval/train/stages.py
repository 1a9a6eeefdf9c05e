"""One YAML file for several stages of training, each of which goes on from the one before.

    train: cot/train.jsonl
    output_dir: run
    cache_dir: cache
    base: lite
    stages:
    - {stage: sft, epochs: 3}
    - {stage: grpo, max_steps: 200, lora_learning_rate: 1e-5}
    - {stage: sft2, epochs: 1}

What stands beside `stages` holds for each of them, what stands in its entry for that one alone.
Stage n writes into `output_dir/n-STAGE`, here `run/1-sft`, `run/2-grpo` and `run/3-sft2`.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cli.console import say

from . import fit_yaml
from .rejection_sampling import COMPLETIONS
from .config import FROM_BASE, FitConfig, FitError

if TYPE_CHECKING:
    from .fit import FitResult


def read_stages(
    path: str | Path, *, changes: Sequence[str] = (), base: str | None = None
) -> list[FitConfig]:
    """Read a YAML file with or without `stages`.

    Args:
        path: The file; its paths and options are as in `fit_yaml.read_fit_config`.
        changes: As there; they hold for each stage, whatever its entry says.
        base: As there, of the first stage.

    Raises:
        FitError: The file can't be read, or a stage's options are wrong; names the stage.
    """
    path = Path(path)
    values = fit_yaml.load(path)
    if "stages" not in values:
        return [fit_yaml.read_fit_config(path, changes=changes, base=base)]
    try:
        return _stages(values, changes, base, folder=path.resolve().parent)
    except FitError as error:
        raise FitError(f"{path}: {error}") from None


def run_stages(configs: Sequence[FitConfig]) -> list[FitResult]:
    """Run stages in their order; those that are done aren't trained again.

    Raises:
        FitError, aigveval.data.readers.ManifestError, SystemExit: See `fit.main`.
    """
    from .fit import main

    results = []
    for number, config in enumerate(configs, 1):
        if len(configs) > 1 and os.environ.get("RANK", "0") == "0":
            say(f"Stage {number} of {len(configs)}: {config.stage}", style="bold")
        results.append(main(config))
    return results


def _stages(
    values: dict[str, Any], changes: Sequence[str], base: str | None, *, folder: Path
) -> list[FitConfig]:
    entries = values.pop("stages")
    if not isinstance(entries, list) or not entries:
        raise FitError("stages must be a list of mappings, each with its stage")
    if "stage" in values:
        raise FitError("stage stands in the entries of stages, not beside them")
    configs: list[FitConfig] = []
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict) or "stage" not in entry:
            raise FitError(f"stage {number} must be a mapping with its stage, got {entry!r}")
        own = sorted({"output_dir", "base"} & set(entry))
        if own:
            raise FitError(f"stage {number}: {own[0]} comes from the stages before; leave it out")
        try:
            configs.append(
                _stage(copy.deepcopy({**values, **entry}), changes, base, before=configs,
                       folder=folder)
            )
        except FitError as error:
            raise FitError(f"stage {number} ({entry['stage']}): {error}") from None
    return configs


def _stage(
    values: dict[str, Any], changes: Sequence[str], base: str | None, *,
    before: Sequence[FitConfig], folder: Path,
) -> FitConfig:
    stage = values["stage"]
    for change in changes:
        fit_yaml.change(values, change)
    if values["stage"] != stage:
        raise FitError("the order of stages can't be changed by --set")
    if "output_dir" in values:
        values["output_dir"] = f"{values['output_dir']}/{len(before) + 1}-{stage}"
    if before or base is not None:
        values = {name: value for name, value in values.items() if name not in FROM_BASE}
        values["base"] = f"{before[-1].output_dir}/model" if before else base
    if stage == "sft2" and not values.get("completions"):
        values["completions"] = [
            f"{one.output_dir}/{COMPLETIONS}" for one in before if one.stage == "grpo"
        ]
    return fit_yaml.make_config(values, folder=folder)
