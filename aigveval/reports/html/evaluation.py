"""The report of `aigveval evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...data.scales import Scale
from ...evaluation.evaluate import Clips, Evaluation
from ..tables import group_table, tables
from . import figures
from .page import MOST_ROWS, ClipRow, Progress, ScoreCell, add_strips, write_page

WORST = 6  # clips shown per score


def write_report(path: Path, evaluation: Evaluation, *, progress: Progress | None = None) -> None:
    """Writes the page; the videos are looked for where the manifest or the predictions say.

    Raises:
        InputError: it cannot be written.
    """
    scale = Scale.parse(evaluation.settings["scale"])
    rows = _rows(evaluation, scale)
    shown = list(rows.values())[:MOST_ROWS]
    sections = [
        _section(evaluation, score, clips, rows, scale) for score, clips in evaluation.clips.items()
    ]
    worst = [row for section in sections for row in section["worst"]]
    add_strips(shown, first=worst, progress=progress)
    details = [table for table in tables(evaluation) if not table.title.endswith(", by generator")]
    write_page(
        path,
        "evaluation.html.j2",
        evaluation=evaluation,
        sections=sections,
        rows=shown,
        total=len(rows),
        details=details,
        scores=list(evaluation.scores),
    )


def _rows(evaluation: Evaluation, scale: Scale) -> dict[tuple[str, str | None], ClipRow]:
    """Every clip with its scores, the largest disagreement after the logistic first."""
    rows: dict[tuple[str, str | None], ClipRow] = {}
    gaps: dict[tuple[str, str | None], float] = {}
    for score, clips in evaluation.clips.items():
        for index, video in enumerate(clips.videos):
            key = (video, clips.prompts[index])
            row = rows.setdefault(
                key,
                ClipRow(
                    video=video,
                    path=clips.paths[index],
                    prompt=clips.prompts[index],
                    generator=clips.generators[index],
                ),
            )
            gap = abs(float(clips.fitted[index] - clips.ratings[index]))
            gaps[key] = max(gaps.get(key, 0.0), gap)
            row.cells[score] = _cell(clips, index, scale, gap)
    return {key: rows[key] for key in sorted(rows, key=lambda key: -gaps[key])}


def _cell(clips: Clips, index: int, scale: Scale, gap: float) -> ScoreCell:
    std = float(clips.stds[index])
    return ScoreCell(
        value=float(clips.predictions[index]),
        std=std if np.isfinite(std) else None,
        human=float(clips.ratings[index]),
        low=scale.low,
        high=scale.high,
        sort=gap,
    )


def _section(
    evaluation: Evaluation,
    score: str,
    clips: Clips,
    rows: dict[tuple[str, str | None], ClipRow],
    scale: Scale,
) -> dict[str, Any]:
    """What the page shows of one score."""
    found = evaluation.scores[score]
    names = evaluation.generators[score]
    comparable = "rmse" in found.figures
    order = np.argsort(-np.abs(clips.fitted - clips.ratings), kind="stable")[:WORST]
    groups: dict[str, dict[str, figures.Floats]] = {}
    for name in sorted(names, key=lambda name: -_mean(clips, name)):
        inside = np.array([generator == name for generator in clips.generators])
        if inside.any():
            groups[name] = {"human": clips.ratings[inside]}
            if comparable:
                groups[name]["predicted"] = clips.predictions[inside]
    ends = {"low": scale.low, "high": scale.high}
    prompts = evaluation.prompts[score]
    return {
        "score": score,
        "figures": found.figures,
        "scatter": figures.scatter(
            clips.predictions,
            clips.ratings,
            groups=clips.generators,
            logistic=found.logistic,
            same_scale=comparable,
            title=f"{score}: human scores over predictions",
            **ends,
        ),
        "boxes": figures.boxes(groups, title=f"{score} by generator", **ends) if groups else "",
        "worst": [rows[clips.videos[i], clips.prompts[i]] for i in order],
        "generators": (
            group_table(f"{score}, by generator", "generator", found.generators, names)
            if names
            else None
        ),
        "prompts": (
            group_table(f"{score}, by prompt", "prompt", found.prompts, prompts, most=MOST_ROWS)
            if len(prompts) < found.clips
            else None
        ),
    }


def _mean(clips: Clips, name: str) -> float:
    values = [r for r, g in zip(clips.ratings, clips.generators) if g == name]
    return float(np.mean(values)) if values else 0.0
