"""How much of `lite`'s figures is choice: columns and penalties chosen without what is measured.

    python examples/train_lite/nested.py DATA WORK

What ridge.py reads each score from was chosen by hand on clips that measure.py also reports on, if
by other splits of them. Here a machine chooses anew for every part that is left out, on the other
clips alone: it adds the block of columns that helps most until none does, each with the best of
some penalties. It goes by left-out data sets where two are rated, and by left-out prompts where one
is. The regression alone is compared, without score heads, anchors, local expert and LLM, and with
the weights that ridge.py has for damage and wrong prompts.

Needs what recipe.py made; writes WORK/nested.json and prints a table. Half an hour on two cores.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import manifests
import numpy as np
import recipe
import ridge
from agreement import Figures, cell, figures_of, table_lines
from manifests import Clip
from measure import CHECKED
from numpy.typing import NDArray
from rich.console import Console
from ridge import Block, Equations

from aigveval.features.cache import FeatureCache
from prompts.rubric import SCORES

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

# Blocks to choose from, with the scales that ridge.py gives them or its like.
BLOCKS: dict[Block, float] = {
    ridge.FRAMES: 0.7,
    ridge.CHANGE: 0.7,
    ridge.STATISTICS: 0.5,
    ridge.FRAGMENTS: 0.5,
    ridge.FRAGMENT_STAGES: 0.5,
    ridge.DISTINCTNESS: 0.6,
    ridge.LOCAL_FLOW: 0.7,
    ridge.FLOW: 1.0,
    ridge.PRODUCT: 0.7,
    ridge.SIMILARITY: 2.0,
}
PENALTIES = (0.1, 0.3, 1.0, 3.0)
MOST_BLOCKS = 4
LEAST_GAIN = 0.005  # in the mean of the figures
COMPARED = ("SROCC", "SROCC within generators", "same-prompt pairs")

Setting = tuple[Mapping[Block, float], float]  # blocks with their scales, and the penalty


class Choice:
    """The regressions of one score.

    Attributes:
        judged, rated: Which clips people rated, and which of them on this score, (n,).
        tried: How many times a setting was measured so far.
    """

    def __init__(self, score: str, clips: Sequence[Clip], evidence: recipe.Evidence) -> None:
        self.score, self.clips, self.evidence = score, clips, evidence
        self.scores = np.array([clip.scores for clip in clips])[:, SCORES.index(score)]
        self.datasets = np.array([clip.dataset for clip in clips])
        self.judged = np.array([clip.judged for clip in clips])
        self.rated = self.judged & ~np.isnan(self.scores)
        self.damage = ridge.damage(evidence.records, evidence.ladder_tokens)
        self.tried = 0

    def equations(self, keep: Mask) -> Equations:
        changes = [self.damage, self.evidence.wrong.chosen(keep[self.evidence.of])]
        return ridge.score_equations(*self._kept(keep), changes, self.score, BLOCKS)

    def predict(self, keep: Mask, equations: Equations, setting: Setting, left_out: Mask) -> Array:
        """Of the clips left out, by a regression on those that are kept."""
        weights = equations.solve(*setting)
        bias = ridge.score_bias(*self._kept(keep & self.judged), self.score, weights)
        tokens = self.evidence.tokens
        return bias + sum(tokens[name][left_out] @ w for name, w in weights.items())

    def _kept(self, keep: Mask) -> tuple[list[Clip], dict[str, Array]]:
        tokens = {name: values[keep] for name, values in self.evidence.tokens.items()}
        return [clip for clip, kept in zip(self.clips, keep) if kept], tokens

    def figures(self, predicted: Array, dataset: str, *, draws: int = 1) -> Figures:
        """Of the clips of a data set for which there is a prediction, (n,) with NaN elsewhere."""
        own = np.flatnonzero(self.rated & (self.datasets == dataset) & ~np.isnan(predicted))
        generators = np.array([self.clips[n].generator for n in own])
        prompts = np.array([self.clips[n].group for n in own])
        return figures_of(predicted[own], self.scores[own], generators, prompts, draws=draws)

    def choose(self, keep: Mask, fold: NDArray[np.int_]) -> Setting | None:
        """Of the clips that are kept, by leaving parts of them out; none where none is rated."""
        known = keep & self.rated
        datasets = sorted(set(self.datasets[known]))
        parts = [self.datasets == name for name in datasets]
        if len(datasets) == 1:
            parts = [fold == number for number in range(manifests.FOLDS)]
        parts = [part for part in parts if (part & known).any()]
        fitted = [(keep & ~part, self.equations(keep & ~part), part & known) for part in parts]
        best: Setting | None = None
        quality = -np.inf
        while datasets and len(chosen := best[0] if best else {}) < MOST_BLOCKS:
            settings: list[Setting] = [
                ({**chosen, block: scale}, penalty)
                for block, scale in BLOCKS.items()
                if block not in chosen
                for penalty in PENALTIES
            ]
            found = [self._quality(setting, fitted, datasets) for setting in settings]
            self.tried += len(settings)
            if max(found) < quality + LEAST_GAIN:
                break
            quality = max(found)
            best = settings[found.index(quality)]
        return best

    def _quality(
        self,
        setting: Setting,
        fitted: Sequence[tuple[Mask, Equations, Mask]],
        datasets: Sequence[str],
    ) -> float:
        """The mean of the figures, by parts: what is kept, its equations, what is left out."""
        predicted = np.full(len(self.clips), np.nan)
        for kept, equations, left_out in fitted:
            predicted[left_out] = self.predict(kept, equations, setting, left_out)
        figures = [self.figures(predicted, dataset) for dataset in datasets]
        values = [one[name] for one in figures for name in COMPARED]
        return float(np.mean([value[0] for value in values if value]))


def main(data: Path, work: Path) -> None:
    clips = manifests.read_clips(data, work / "copies")
    fold = manifests.fold_of(data, [clip.group for clip in clips])
    cache = FeatureCache(work / "cache")
    evidence = recipe.read_evidence(work / "runs/shipped/model", clips, work, cache)
    names = {block: next(n for n, b in vars(ridge).items() if b == block) for block in BLOCKS}
    console = Console(stderr=True)
    result, rows = [], []
    for score in SCORES:
        choice = Choice(score, clips, evidence)
        found: dict[tuple[str, str], Array] = {}
        for name, keep in recipe.runs(data, clips).items():
            left_out = choice.rated & ~keep
            kind = "prompts out" if name.startswith("fold") else "set out"
            setting = choice.choose(keep, fold) if left_out.any() else None
            if setting is None:
                continue
            blocks = ", ".join(names[block] for block in setting[0])
            console.print(f"{score}, {name}: {blocks}; penalty {setting[1]}")
            equations = choice.equations(keep)
            for how, one in (("by hand", ridge.USED[score]), ("nested", setting)):
                values = found.setdefault((kind, how), np.full(len(clips), np.nan))
                values[left_out] = choice.predict(keep, equations, one, left_out)
        console.print(f"{score}: {choice.tried} settings compared, over all parts")
        for (kind, how), values in found.items():
            for dataset in (name for name, scores in CHECKED.items() if score in scores):
                figures = choice.figures(values, dataset, draws=1000)
                result.append([dataset, score, kind, how, figures])
                cells = [cell(figures[name]) for name in COMPARED]
                rows.append([dataset, score, f"{kind}, {how}", *cells])
    (work / "nested.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print("\n".join(table_lines(["data set", "score", "chosen", *COMPARED], rows)))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
