"""Figures of agreement with 95 % bootstrap intervals over prompts or sources, and their tables."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aigveval.evaluation.figures import Columns, Sampling, agree
from aigveval.metrics import bootstrap_interval, number

Array = NDArray[np.float64]
Figures = dict[str, list[float] | None]

NAMES = ("SROCC", "PLCC", "SROCC within generators", "same-prompt pairs")


def figures_of(
    predictions: Array,
    targets: Array,
    generators: NDArray[Any],
    prompts: NDArray[Any],
    *,
    draws: int = 1000,
) -> Figures:
    """Each figure as [value, low, high], as `aigveval evaluate` has them.

    Args:
        predictions: (n,); or (n, r), the scores of raters: each is then compared with the mean of
            the others, and figures are means over the raters.
        targets: (n,).
        generators, prompts: (n,) names.
        draws: bootstrap samples of prompts.
    """
    raters = predictions if predictions.ndim == 2 else None
    units, sampling = number(prompts)[0], Sampling(draws=draws)
    columns = Columns(
        predictions=predictions if raters is None else predictions.mean(1),
        ratings=targets,
        generators=number(generators)[0],
        prompts=units,
        raters=raters,
    )
    found = agree(columns, units=units, sampling=sampling, margin=0.5)
    if raters is not None:
        estimates = found.human
    else:
        parts = (
            (f"{part}/{name}", value)
            for part, own in found.parts.items()
            for name, value in own.items()
        )
        estimates = {**found.figures, **dict(parts)}
    keys = ("srocc", "plcc", "within_generators/srocc", "within_prompts/pair_accuracy")
    return {
        name: None
        if (one := estimates.get(key)) is None or one.low is None
        else [round(float(v), 4) for v in (one.value, one.low, one.high)]
        for name, key in zip(NAMES, keys)
    }


def rater_columns(folder: Path, names: Sequence[str], dimension: str) -> Array:
    """Each rater's scores, (n, 3)."""
    with open(folder / "manifest.csv", newline="", encoding="utf-8") as file:
        records = {row["video"]: row for row in csv.DictReader(file)}
    return np.array(
        [[float(records[name][f"{dimension}_rater{r}"]) for r in (1, 2, 3)] for name in names]
    )


def share(wins: Sequence[tuple[str, float]]) -> list[float]:
    """Mean and interval, resampling groups."""
    values = np.array([value for _, value in wins])
    groups = [group for group, _ in wins]
    low, high = bootstrap_interval(lambda x: float(x.mean()), values, groups=groups)
    return [round(v, 3) for v in (float(values.mean()), low, high)]


def cell(value: Sequence[float] | None) -> str:
    """A value, with its interval where there is one."""
    if value is None:
        return "-"
    text = f"{value[0]:.2f}"
    return text if len(value) == 1 else f"{text} [{value[1]:.2f}, {value[2]:.2f}]"


def table_lines(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table."""
    head, *body = (f"| {' | '.join(row)} |" for row in (header, *rows))
    return [head, "|---" * len(header) + "|", *body]
