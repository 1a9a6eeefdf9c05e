"""The scripts of examples/, as modules."""

import importlib
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

EXAMPLES = Path(__file__).parents[1] / "examples"


def script(name: str) -> ModuleType:
    """A script by its path, such as `train_lite/measure`; it may import its neighbours."""
    folder, _, module = name.rpartition("/")
    sys.path.insert(0, str(EXAMPLES / folder))
    try:
        return importlib.import_module(module)
    finally:
        sys.path.remove(str(EXAMPLES / folder))


def rated_clips(
    module: ModuleType, datasets: Iterable[str], *, prompts: int, generators: int
) -> list[Any]:
    """Clips as train_lite has them: of each generator one for each prompt, with random scores."""
    random = np.random.default_rng(0)
    return [
        module.Clip(
            path=Path(f"{dataset}{prompt}{generator}.mp4"),
            name=f"{prompt}{generator}.mp4",
            dataset=dataset,
            prompt=f"prompt {prompt}",
            generator=f"g{generator}",
            real=False,
            scores=tuple(random.uniform(1, 5, 4)),
        )
        for dataset in datasets
        for prompt in range(prompts)
        for generator in range(generators)
    ]
