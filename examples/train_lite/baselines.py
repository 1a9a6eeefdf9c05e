r"""What simple predictors reach on the rated clips: the rows beside `lite` in the README's table.

    python examples/train_lite/baselines.py DATA --cache WORK/cache \
        --predictions WORK/out_of_fold.json --out WORK/baselines

DATA holds `fetv_dev`; its generated clips are used, in the folds of recipe.py, so that no prompt is
on both sides. WORK is recipe.py's folder; without `--predictions` there are no rows for `lite`.
Tokens that the cache lacks are computed. Prints a Markdown table, and writes it to OUT.md and all
figures to OUT.json. The predictors:

- ridge and SVR (RBF) on the mean and the standard deviation over time of all tokens of the `lite`
  encoders. Strength of regularisation by an inner cross-validation, again over prompts.
- metrics of pyiqa that need no weights, not fitted to anything: with `pip install ".[pyiqa]"`.
- the mean rating of the clip's generator: knows nothing of the clip but who made it.
- one human rater, against the mean of the other two (of the three pairings, the mean).

Intervals are 95 % bootstrap intervals over prompts.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import manifests
import numpy as np
import torch
from agreement import NAMES, Figures, cell, figures_of, rater_columns, table_lines
from numpy.typing import NDArray
from recipe import ENCODERS
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVR

from aigveval.features.cache import FeatureCache, extract
from aigveval.train.rows import TrainingRow
from encoders import EncoderError, create_encoder
from prompts.rubric import DIMENSIONS

Array = NDArray[np.float64]

METRICS = ("piqe", "entropy")
CLIP = 3.0  # standard deviations
INNER_FOLDS = 4
REGRESSORS: dict[str, tuple[Any, dict[str, list[float]]]] = {
    "ridge": (Ridge(), {"ridge__alpha": [0.03, 0.1, 0.3, 1.0, 3.0, 10.0]}),
    "SVR": (SVR(epsilon=0.1), {"svr__C": [0.1, 0.3, 1.0, 3.0, 10.0]}),
}


class BlockScaler(TransformerMixin, BaseEstimator):
    """Standardises columns, and gives each block of them the same weight, however wide it is."""

    def __init__(self, widths: tuple[int, ...] = ()) -> None:
        self.widths = widths

    def fit(self, X: Array, y: Array | None = None) -> "BlockScaler":
        self.mean_, self.std_ = X.mean(0), X.std(0) + 1e-6
        self.weights_ = np.concatenate([np.full(w, w**-0.5) for w in self.widths])
        return self

    def transform(self, X: Array) -> Array:
        return np.clip((X - self.mean_) / self.std_, -CLIP, CLIP) * self.weights_


def pooled(
    rows: Sequence[TrainingRow], names: Sequence[str], cache: FeatureCache, **options: Any
) -> tuple[Array, tuple[int, ...]]:
    """Mean and standard deviation over time of each encoder's tokens (n, w), and the widths."""
    encoders = [create_encoder(name, **options) for name in names]
    found = extract([row.video for row in rows], encoders, cache)
    if found.errors:
        raise SystemExit(next(iter(found.errors.values())))
    features = []
    for row in rows:
        parts = []
        for encoder in encoders:
            tokens = cache.get(found.digests[row.video], encoder)
            assert tokens is not None
            with torch.inference_mode():
                joined = encoder.join(tokens[None], [row.prompt])[0].double()
            parts += [joined.mean(0), joined.std(0, correction=0)]
        features.append(torch.cat(parts).numpy())
        widths = tuple(len(part) for part in parts)
    return np.stack(features), widths


def out_of_fold(
    X: Array,
    widths: tuple[int, ...],
    targets: Array,
    fold: NDArray[np.int64],
    prompts: NDArray[Any],
    *,
    regressor: str,
) -> Array:
    """Predictions (n,) of each fold by a model that has seen the other folds only."""
    model, grid = REGRESSORS[regressor]
    predicted = np.full(len(targets), np.nan)
    for number in np.unique(fold):
        known, test = fold != number, fold == number
        search = GridSearchCV(
            make_pipeline(BlockScaler(widths), model),
            grid,
            cv=GroupKFold(INNER_FOLDS),
            scoring="neg_mean_squared_error",
        )
        search.fit(X[known], targets[known], groups=prompts[known])
        predicted[test] = search.predict(X[test])
    return predicted


def generator_means(targets: Array, generators: NDArray[Any], fold: NDArray[np.int64]) -> Array:
    """The mean rating of each clip's generator over its clips in the other folds."""
    return np.array(
        [
            targets[(fold != fold[n]) & (generators == generators[n])].mean()
            for n in range(len(targets))
        ]
    )


def pyiqa_scores(rows: Sequence[TrainingRow], cache: FeatureCache) -> dict[str, Array]:
    """Metric -> mean over frames that have it (n,), higher is better; empty without pyiqa."""
    try:
        found = {
            name: pooled(rows, ["technical_pyiqa"], cache, metrics=[name])[0] for name in METRICS
        }
    except EncoderError as error:
        print(f"without rows of pyiqa: {error}", file=sys.stderr)
        return {}
    # A token is a score and which way is better, -1 or 1, and 0 both of a frame without one. The
    # means over the frames come first: the second is the share of frames with one, and the sign.
    return {
        f"pyiqa {name}": values[:, 0] / np.where(values[:, 1] == 0, 1, values[:, 1])
        for name, values in found.items()
    }


# ---- figures ------------------------------------------------------------------------------------


def earlier_predictions(path: Path, names: Sequence[str]) -> dict[str, Array]:
    """What measure.py saved: predictor -> (n, 4), in the order of `names`."""
    saved = json.loads(path.read_text(encoding="utf-8"))
    order = [saved["video"].index(name) for name in names]
    return {"`lite`": np.array(saved["ours"])[order]}


def as_markdown(figures: dict[str, dict[str, Figures]]) -> str:
    rows = [
        [score, label, *(cell(row[name]) for name in NAMES)]
        for score, own in figures.items()
        for label, row in own.items()
    ]
    return "\n".join(table_lines(["score", "predictor", *NAMES], rows)) + "\n"


def main(data: Path, *, cache: Path, predictions: Path | None, out: Path, draws: int) -> None:
    rows, names = manifests.read_rated(data)
    fold = manifests.fold_of(data, [row.group for row in rows])
    features = FeatureCache(cache)
    generators = np.array([row.generator for row in rows])
    prompts = np.array([row.group for row in rows])
    parts = [pooled(rows, [name], features, **options) for name, options in ENCODERS.items()]
    X, widths = np.hstack([x for x, _ in parts]), tuple(w for _, own in parts for w in own)
    fixed = pyiqa_scores(rows, features)
    earlier = {} if predictions is None else earlier_predictions(predictions, names)
    figures: dict[str, dict[str, Figures]] = {}
    for column, dimension in enumerate(DIMENSIONS):
        y = np.array([row.scores[column] for row in rows])
        found: dict[str, tuple[Array, Array]] = {
            label: (values[:, column], y) for label, values in earlier.items()
        }
        for name in REGRESSORS:
            predicted = out_of_fold(X, widths, y, fold, prompts, regressor=name)
            found[f"{name} on the same features"] = (predicted, y)
        found |= {label: (values, y) for label, values in fixed.items()}
        found["the generator's mean"] = (generator_means(y, generators, fold), y)
        found["one human rater"] = (rater_columns(data / "fetv_dev", names, dimension), y)
        figures[dimension] = {
            label: figures_of(*pair, generators, prompts, draws=draws)
            for label, pair in found.items()
        }
        print(f"{dimension}: done", file=sys.stderr)
    table = as_markdown(figures)
    publish(out, table, figures)


def publish(out: Path, table: str, figures: Any) -> None:
    """Print a table, and write it to OUT.md and the figures to OUT.json."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".md").write_text(table, encoding="utf-8")
    out.with_suffix(".json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(table, end="")


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """The options of a script that measures features on the rated clips."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--cache", type=Path, required=True, help="feature cache")
    parser.add_argument("--out", type=Path, required=True, help="for OUT.md and OUT.json")
    parser.add_argument("--draws", type=int, default=1000, help="bootstrap samples")
    return parser


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--predictions", type=Path, help="out_of_fold.json of measure.py")
    arguments = parser.parse_args()
    main(
        arguments.data.resolve(),
        cache=arguments.cache,
        predictions=arguments.predictions,
        out=arguments.out,
        draws=arguments.draws,
    )
