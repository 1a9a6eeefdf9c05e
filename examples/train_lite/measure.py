"""Figures of the shipped checkpoint: ratings by cross-validation, the ladder on left-out sources.

    python examples/train_lite/measure.py DATA WORK

Needs what recipe.py made; writes WORK/figures.json and prints it as Markdown tables. Intervals are
95 % bootstrap intervals over prompts (ratings) or sources (ladder).
"""

import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import manifests
import numpy as np
import ridge
from agreement import NAMES, cell, figures_of, rater_columns, share
from numpy.typing import NDArray

from aigveval.features.cache import FeatureCache, extract
from aigveval.metrics import bootstrap_interval, srocc
from aigveval.model.modeling import AIGVEvalModel
from aigveval.train.predict import predict
from aigveval.train.rows import TrainingRow
from encoders import create_encoder
from prompts.rubric import DIMENSIONS, SCORES

Array = NDArray[np.float64]


def measure(data: Path, work: Path) -> dict[str, Any]:
    """All figures, as written to figures.json."""
    cache = FeatureCache(work / "cache")
    figures = {
        "ratings": ratings(data, work, cache),
        "ladder": ladder(work, cache),
    }
    (work / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(as_markdown(figures))
    return figures


# ---- ratings ------------------------------------------------------------------------------------


def ratings(data: Path, work: Path, cache: FeatureCache) -> dict[str, Any]:
    """Out-of-fold predictions of ours, of ridge, and of the generator's mean, against ratings."""
    rows, names = manifests.read_rated(data / "fetv_dev")
    fold = manifests.fold_of(rows)
    targets = np.array([row.scores for row in rows])
    model = work / "runs/shipped/model"
    entries = AIGVEvalModel.config_class.from_pretrained(model).encoders
    encoders = [create_encoder(entry["name"], **entry["options"]) for entry in entries]
    extract([row.video for row in rows], encoders, cache)
    tokens = ridge.mean_tokens(rows, AIGVEvalModel.from_pretrained(model).model, encoders, cache)
    generators = np.array([row.generator for row in rows])
    copies = manifests.read_copies(work / "augmented", set(names), 1.0)
    per_copy = len(copies) // len(rows)

    ours, linear, mean = (np.full_like(targets, np.nan) for _ in range(3))
    resized = np.full_like(targets, np.nan)
    wins: list[tuple[str, float]] = []
    for number in range(manifests.FOLDS):
        test = np.flatnonzero(fold == number)
        left_in = fold != number
        folder = work / "runs" / f"fold{number}/model"
        ours[test] = predict(folder, [rows[n] for n in test], cache)
        # The first copy of each clip: another size, crop and quality, the same content.
        resized[test] = predict(folder, [copies[n * per_copy] for n in test], cache)
        wins += mismatches(folder, [rows[n] for n in test], ours[test], cache)
        function = ridge.fitted(ridge.subset(tokens, left_in), targets[left_in, :3])
        linear[test, :3] = function(ridge.subset(tokens, test))
        for n in test:
            same = left_in & (generators == generators[n])
            mean[n] = targets[same].mean(0)
    linear[:, 3] = linear[:, :3].mean(1)

    prompts = np.array([str(row.group) for row in rows])
    result: dict[str, Any] = {}
    predictions = {
        "ours": ours,
        "ours, resized copies": resized,
        "ridge": linear,
        "generator mean": mean,
    }
    for name, values in predictions.items():
        result[name] = {
            score: figures_of(values[:, n], targets[:, n], generators, prompts)
            for n, score in enumerate(SCORES)
        }
    result["one rater"] = raters(data, names, targets, generators, prompts)
    result["own prompt above another's"] = share(wins)
    saved = {
        "video": names,
        "fold": fold.tolist(),
        "ours": ours.round(4).tolist(),
        "ridge": linear.round(4).tolist(),
        "human": targets.tolist(),
    }
    (work / "out_of_fold.json").write_text(json.dumps(saved) + "\n", encoding="utf-8")
    return result


def raters(
    data: Path, names: Sequence[str], targets: Array, generators: Array, prompts: Array
) -> dict[str, Any]:
    """Each human rater against the mean of the other two, averaged over the raters."""
    found = {
        name: figures_of(
            rater_columns(data / "fetv_dev", names, name), targets[:, n], generators, prompts
        )
        for n, name in enumerate(DIMENSIONS)
    }
    return {name: {k: v and v[:1] for k, v in values.items()} for name, values in found.items()}


def mismatches(
    folder: Path, rows: Sequence[TrainingRow], own: Array, cache: FeatureCache
) -> list[tuple[str, float]]:
    """For each clip and each other prompt: 1 where its own prompt scores higher, 0 where lower."""
    column = SCORES.index("semantic")
    others = [
        (n, replace(row, prompt=prompt))
        for n, row in enumerate(rows)
        for prompt in sorted({str(r.prompt) for r in rows} - {str(row.prompt)})
    ]
    scores = predict(folder, [row for _, row in others], cache)[:, column]
    return [
        (str(row.group), float(np.sign(own[n, column] - score) / 2 + 0.5))
        for (n, row), score in zip(others, scores)
    ]


# ---- ladder -------------------------------------------------------------------------------------


def ladder(work: Path, cache: FeatureCache) -> dict[str, Any]:
    """Per type: SROCC of severity and score over each left-out source, averaged over sources."""
    rows, records = manifests.read_ladder(work / "ladder/heldout")
    scores = predict(work / "runs/shipped/model", rows, cache)
    by_source: dict[tuple[str, str], list[int]] = defaultdict(list)
    clean = manifests.clean_numbers(records)
    for n, record in enumerate(records):
        if record["type"] != "clean":
            by_source[record["type"], record["group"]].append(n)
    result: dict[str, Any] = {}
    for kind in dict.fromkeys(kind for kind, _ in by_source):
        own, drops = [], []
        dimension = ""
        for (other, group), members in by_source.items():
            if other != kind or len(members) < 3:
                continue
            dimension = records[members[0]]["dimension"]
            column = SCORES.index(dimension)
            severity = np.array([records[n]["severity"] for n in members])
            values = scores[members, column]
            own.append(0.0 if np.ptp(values) == 0 else srocc(values, severity))
            worst = members[int(severity.argmax())]
            drops.append(scores[clean[group]] - scores[worst])
        mean_drop = np.mean(drops, axis=0)
        low, high = bootstrap_interval(lambda x: float(x.mean()), np.array(own))
        result[kind] = {
            "dimension": dimension,
            "sources": len(own),
            "srocc": [round(v, 3) for v in (float(np.mean(own)), low, high)],
            "drop at the worst severity": {
                name: round(float(drop), 2) for name, drop in zip(SCORES, mean_drop)
            },
        }
    return result


# ---- tables -------------------------------------------------------------------------------------


def as_markdown(figures: dict[str, Any]) -> str:
    """The figures as the tables of the model card."""
    lines = [f"| score | predictor | {' | '.join(NAMES)} |", "|---|---|---|---|---|---|"]
    kinds = [k for k, v in figures["ratings"].items() if isinstance(v, dict)]
    for score in SCORES:
        for kind in kinds:
            if score not in figures["ratings"][kind]:
                continue
            cells = [cell(value) for value in figures["ratings"][kind][score].values()]
            lines.append(f"| {score} | {kind} | {' | '.join(cells)} |")
    own = cell(figures["ratings"]["own prompt above another's"])
    lines += [
        "",
        f"Semantic score with its own prompt above that with another clip's: {own}",
        "",
        "| type | dimension | SROCC(severity, score) | sources | drop at the worst severity: "
        "technical | motion | semantic |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind, found in figures["ladder"].items():
        drops = found["drop at the worst severity"]
        lines.append(
            f"| {kind} | {found['dimension']} | {cell(found['srocc'])} | {found['sources']} | "
            + " | ".join(f"{drops[name]:.2f}" for name in DIMENSIONS)
            + " |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    measure(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
