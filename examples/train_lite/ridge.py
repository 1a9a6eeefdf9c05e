"""What `lite` knows of quality: ridge regression on the mean tokens of its encoders.

With some dozens of rated clips, a linear map of fixed features is hard to beat, and few blocks of
columns carry over to another data set: how things move, how distinct the places of a picture are,
and what the frames show beside what the prompt says. The same regression is told what damage takes
off, and what a wrong prompt does, which carries over to clips of other data sets better than
ratings do. An MLP on top that was trained on the damage was better at it, and worse at clips of a
data set that was left out.

What generators of different years differ in is hardly in the ratings, since each data set has
generators of one year. Camera-made clips are the upper anchor: how they move tells them from
generated ones, and orders generators by their year without having seen them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import manifests
import numpy as np
import scipy.linalg
import torch
from manifests import Clip
from numpy.typing import NDArray
from torch import Tensor

from aigveval.features.cache import FeatureCache
from aigveval.model.projector import AIGVEvalBackbone
from aigveval.train.dataset import QualityDataset
from aigveval.train.rows import TrainingRow
from encoders import Encoder
from prompts.rubric import DIMENSIONS, SCORES

Array = NDArray[np.float64]
Block = tuple[str, int, int]

# Columns of an encoder's tokens, each block scaled to unit variance and by the root of its width.
_PLAIN = 2 * (1280 + 512 + 29)
FRAMES = ("technical_lite", 0, 1280)
STATISTICS = ("technical_lite", 1792, 1821)
FRAGMENTS = ("technical_lite", 1821, 1821 + 1280)
CHANGE = ("technical_lite", _PLAIN, _PLAIN + 1280)  # of the frames' features over the clip
FRAGMENT_STAGES = ("technical_lite", 3101, 3613)
DISTINCTNESS = ("technical_lite", _PLAIN + 1280, _PLAIN + 1281)  # of the places of a picture
LOCAL_FLOW = ("motion_flow", 0, 171)
FLOW = ("motion_flow", 171, 513)  # the part of a token that describes the whole clip
# Of what the frames show, as a point of text space, with the prompt's.
PRODUCT = ("semantic_lite", 2 * 384, 3 * 384)
SIMILARITY = ("semantic_lite", 3 * 384, 3 * 384 + 6)
# What each score is read from: blocks of columns with their scale, and the penalty. Chosen by
# leaving a whole data set out (overall), by the order of unrated clips of today's generators
# (technical), and by leaving whole prompts out (motion, semantic).
USED: dict[str, tuple[dict[Block, float], float]] = {
    "technical": (
        {FRAMES: 0.7, CHANGE: 0.7, STATISTICS: 0.5, FLOW: 0.7, PRODUCT: 0.7},
        1.5,
    ),
    "motion": ({FLOW: 1.0, PRODUCT: 0.7, FRAMES: 0.5}, 0.3),
    "semantic": ({SIMILARITY: 3.0, FRAGMENTS: 1.0, FLOW: 0.5, DISTINCTNESS: 0.6}, 1.0),
    "overall": ({FLOW: 1.0, PRODUCT: 0.7, FRAGMENTS: 0.3, DISTINCTNESS: 0.6}, 0.3),
}
# Of damage (ladder.py) and wrong prompts in each score's regression: the weight of a row beside a
# rated clip, and which share of what its manifest says it takes off; points that a wrong prompt
# takes off. Chosen likewise.
DAMAGE = {
    "technical": (0.0175, 0.3),
    "motion": (0.056, 0.45),
    "semantic": (0.014, 0.5),
    "overall": (0.0175, 0.7),
    "likeness": (0.0035, 0.1),
}
WRONG = {"semantic": (0.03, 0.5), "overall": (0.03, 0.5)}
WRONG_PROMPTS = 2  # of a clip
# Where a data set was asked for the overall score alone, this share of it counts for each other.
OVERALL_SHARE = {"technical": 0.3, "motion": 0.3, "semantic": 0.1}
# What FETV's raters said of the picture, for clips like theirs: from the same columns, without
# damage. Chosen by leaving whole prompts out, the reach (points) so that the order of damage and
# the scores of today's generators hardly change.
LOCAL_PENALTY, LOCAL_REACH = 0.3, 0.3
# What tells camera-made clips from generated ones of 2023.
LIKENESS = ({LOCAL_FLOW: 1.0, FLOW: 1.0, FRAGMENT_STAGES: 0.5}, 0.05)
REAL_WEIGHT = 2.0  # of a camera-made clip beside a generated one
THRESHOLD, REACH, GAIN = 0.25, 0.4, (2.5, 2.5, 0.0, 2.5)
OLD = ("Text2Video-Zero", "ZeroScope")  # of 2023, among the unrated clips


@dataclass(frozen=True, kw_only=True)
class LinearMap:
    """Scores from mean standardised tokens.

    Attributes:
        weights: Encoder to (4, d).
        bias: (4,).
        likeness: Encoder to (d,), of `CameraLikeness`.
        likeness_bias: Of the same.
    """

    weights: dict[str, Array]
    bias: Array
    likeness: dict[str, Array]
    likeness_bias: float

    def __call__(self, tokens: Mapping[str, Array]) -> Array:
        """(n, 4) from encoder to (n, d)."""
        found: Array = self.bias + sum(tokens[name] @ w.T for name, w in self.weights.items())
        likeness = sum(tokens[name] @ w for name, w in self.likeness.items()) + self.likeness_bias
        return found + np.clip(likeness - THRESHOLD, 0, REACH)[:, None] * np.array(GAIN)


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What happens to a clip's tokens, and what that should do to its scores.

    Attributes:
        tokens: Encoder to differences (m, d).
        points: Score, or `likeness`, to its differences (m,), NaN where they aren't known.
        weights: Of a row, for each of those.
    """

    tokens: dict[str, Array]
    points: dict[str, Array]
    weights: dict[str, float]

    def chosen(self, keep: NDArray[np.bool_]) -> "Changes":
        tokens, points = (
            {name: values[keep] for name, values in part.items()}
            for part in (self.tokens, self.points)
        )
        return replace(self, tokens=tokens, points=points)


def damage(records: Sequence[Mapping[str, Any]], tokens: Mapping[str, Array]) -> Changes:
    """What each row of a ladder takes off its clean clip.

    Args:
        records: n, of the ladder's manifest.
        tokens: Encoder to (n, d).
    """
    clean = manifests.clean_numbers(records)
    start = np.array([clean[record["group"]] for record in records])
    drops = np.array([[record[f"{name}_drop"] for name in DIMENSIONS] for record in records], float)
    mean = np.nan_to_num(drops).mean(1)
    named = dict(zip(DIMENSIONS, drops.T)) | {"overall": mean, "likeness": mean}
    return Changes(
        tokens={name: values - values[start] for name, values in tokens.items()},
        points={name: -share * named[name] for name, (_, share) in DAMAGE.items()},
        weights={name: weight for name, (weight, _) in DAMAGE.items()},
    ).chosen(start != np.arange(len(start)))


def wrong_prompts(
    clips: Sequence[Clip], tokens: Mapping[str, Array], shown: Mapping[str, Array]
) -> Changes:
    """What another clip's prompt does to clips.

    Args:
        clips: n, each with a prompt.
        tokens: Encoder to (n, d), with their own prompt.
        shown: The same with another one.
    """
    return Changes(
        tokens={name: values - tokens[name] for name, values in shown.items()},
        points={score: np.full(len(clips), -off) for score, (_, off) in WRONG.items()},
        weights={score: weight for score, (weight, _) in WRONG.items()},
    )


def fitted(
    clips: Sequence[Clip], tokens: Mapping[str, Array], changes: Sequence[Changes]
) -> LinearMap:
    """Fit on comparisons inside of each data set, so that their scales needn't agree.

    Args:
        clips: n clips, rated or not, and copies of them.
        tokens: Encoder to (n, d).
        changes: Learnt besides.
    """
    weights = {name: np.zeros((len(SCORES), t.shape[1])) for name, t in tokens.items()}
    bias = np.zeros(len(SCORES))
    for row, score in enumerate(SCORES):
        used, alpha = USED[score]
        found = score_equations(clips, tokens, changes, score, used).solve(used, alpha)
        for name, w in found.items():
            weights[name][row] = w
        bias[row] = score_bias(clips, tokens, score, found)
    old = np.array([not c.real and (c.rated or c.generator.startswith(OLD)) for c in clips])
    anchors = [_anchors(clips, old)]
    used, alpha = LIKENESS
    likeness = equations(clips, tokens, anchors, changes, "likeness", used).solve(used, alpha)
    start = np.flatnonzero(old & np.array([clip.kind == "native" for clip in clips]))
    middle = sum(tokens[name][start] @ w for name, w in likeness.items()).mean()
    return LinearMap(weights=weights, bias=bias, likeness=likeness, likeness_bias=-float(middle))


def score_equations(
    clips: Sequence[Clip],
    tokens: Mapping[str, Array],
    changes: Sequence[Changes],
    score: str,
    blocks: Iterable[Block],
) -> "Equations":
    """What `fitted` solves for one of `SCORES`, with more blocks of columns if need be."""
    column = SCORES.index(score)
    scores = np.array([clip.scores for clip in clips])
    parts = [_comparisons(clips, scores[:, column])]
    if score != "overall":
        known = ~np.isnan(scores[:, column])
        elsewhere = np.where(known, np.nan, scores[:, SCORES.index("overall")])
        contrasts, targets, weights = _comparisons(clips, elsewhere)
        parts.append((contrasts, targets, weights * OVERALL_SHARE[score]))
    return equations(clips, tokens, parts, changes, score, blocks)


def score_bias(
    clips: Sequence[Clip], tokens: Mapping[str, Array], score: str, weights: Mapping[str, Array]
) -> float:
    """What brings generated clips to the mean of their ratings."""
    generated = [n for n, clip in enumerate(clips) if clip.judged]
    scores = np.array([clips[n].scores for n in generated])
    goal = scores[:, SCORES.index(score)]
    known = ~np.isnan(goal)
    if not known.any():  # a data set without this score: that of its overall score
        goal = scores[:, SCORES.index("overall")]
        known = ~np.isnan(goal)
    predicted = sum(tokens[name][generated] @ w for name, w in weights.items())
    return float((goal - predicted)[known].mean())


Comparisons = tuple[Array, Array, Array]  # (m, n) over the clips, targets (m,) and weights (m,)


def _comparisons(clips: Sequence[Clip], scores: Array) -> Comparisons:
    """Of each generated clip with its prompt's, and of each prompt with its data set."""
    contrasts, targets, weights = [], [], []
    rated = np.array([not clip.real for clip in clips]) & ~np.isnan(scores)
    datasets = np.array([clip.dataset for clip in clips])
    groups = np.array([clip.group for clip in clips])
    for dataset in sorted(set(datasets[rated])):
        members = rated & (datasets == dataset)
        kinds = len({clip.kind for clip, member in zip(clips, members) if member})
        everything = members / members.sum()
        for group in sorted(set(groups[members])):
            own = members & (groups == group)
            together = own / own.sum()
            contrasts.append(together - everything)
            weights.append(own.sum() / kinds)
            for n in np.flatnonzero(own):
                contrasts.append(np.eye(1, len(clips), n)[0] - together)
                weights.append(1 / kinds)
    contrasts_ = np.array(contrasts).reshape(-1, len(clips))
    targets = contrasts_ @ np.nan_to_num(scores)
    return contrasts_, targets, np.array(weights)


def _anchors(clips: Sequence[Clip], old: NDArray[np.bool_]) -> Comparisons:
    """Of camera-made clips and of generated ones of 2023 with these on average, kind by kind."""
    kinds = np.array([clip.kind for clip in clips])
    # Their own frame size and rate would give FETV's away.
    real = np.array([c.real and (c.kind, c.dataset) != ("native", "fetv_dev") for c in clips])
    contrasts, targets, weights = [], [], []
    for kind in sorted(set(kinds[old])):
        start = old & (kinds == kind)
        for n in np.flatnonzero((old | real) & (kinds == kind)):
            contrasts.append(np.eye(1, len(clips), n)[0] - start / start.sum())
            targets.append(float(real[n]))
            weights.append((REAL_WEIGHT if real[n] else 1.0) / len(set(kinds)))
    return np.array(contrasts), np.array(targets), np.array(weights)


@dataclass(frozen=True, kw_only=True)
class Equations:
    """The normal equations of a ridge regression on p columns.

    Attributes:
        places: Block of columns to where it lies among them.
        factors: What brings columns to unit variance and to the root of their block's width, (p,).
        gram, moment: Of the columns so scaled, (p, p), and of them with the targets, (p,).
        widths: Encoder to d, the width of its tokens.
    """

    places: dict[Block, slice]
    factors: Array
    gram: Array
    moment: Array
    widths: dict[str, int]

    def solve(self, used: Mapping[Block, float], alpha: float) -> dict[str, Array]:
        """Encoder to weights (d,), which are zero but for some blocks.

        Args:
            used: Block to its scale.
            alpha: The penalty.
        """
        chosen = np.r_[tuple(self.places[block] for block in used)]
        scale = np.concatenate([np.full(b[2] - b[1], scale) for b, scale in used.items()])
        penalised = self.gram[np.ix_(chosen, chosen)] * np.outer(scale, scale)
        penalised[np.diag_indices_from(penalised)] += alpha
        found = scipy.linalg.solve(penalised, self.moment[chosen] * scale, assume_a="pos")
        found *= scale * self.factors[chosen]
        result = {encoder: np.zeros(width) for encoder, width in self.widths.items()}
        for encoder, start, stop in used:
            result[encoder][start:stop] += found[: stop - start]
            found = found[stop - start :]
        return result


def equations(
    clips: Sequence[Clip],
    tokens: Mapping[str, Array],
    comparisons: Sequence[Comparisons],
    changes: Sequence[Changes],
    name: str,
    blocks: Iterable[Block],
) -> Equations:
    """Of comparisons of clips, and of what changes do to their tokens.

    Args:
        clips: n.
        tokens: Encoder to (n, d).
        changes: Counted where they have points for `name`.
        name: Of a score, or `likeness`.
        blocks: Of columns, that may be used.
    """
    blocks = list(blocks)
    native = [n for n, clip in enumerate(clips) if clip.kind == "native"]
    spread = [tokens[encoder][native, start:stop].std(0) + 1e-3 for encoder, start, stop in blocks]
    factors = np.concatenate([1 / (np.sqrt(len(values)) * values) for values in spread])
    ends = np.cumsum([stop - start for _, start, stop in blocks])

    def columns(values: Mapping[str, Array]) -> Array:
        parts = [values[encoder][:, start:stop] for encoder, start, stop in blocks]
        return np.hstack(parts) * factors

    contrasts, targets, weights = (np.concatenate(part) for part in zip(*comparisons))
    parts = [(contrasts @ columns(tokens), targets, weights)]
    for change in changes:
        if name in change.points:
            known = ~np.isnan(points := change.points[name])
            moved = columns(change.tokens)[known]
            parts.append((moved, points[known], np.full(len(moved), change.weights[name])))
    return Equations(
        places={b: slice(end - (b[2] - b[1]), end) for b, end in zip(blocks, ends.tolist())},
        factors=factors,
        gram=sum((rows.T * weights) @ rows for rows, _, weights in parts),
        moment=sum((rows.T * weights) @ targets for rows, targets, weights in parts),
        widths={encoder: values.shape[1] for encoder, values in tokens.items()},
    )


def set_likeness(backbone: AIGVEvalBackbone, linear: LinearMap) -> None:
    """Have a model add what the map's likeness adds."""
    likeness = backbone.add_likeness()
    weight = np.concatenate([linear.likeness[name] for name in backbone.projectors])
    likeness.weight.copy_(torch.from_numpy(weight))
    likeness.bias.fill_(linear.likeness_bias)
    likeness.threshold.fill_(THRESHOLD)
    likeness.reach.fill_(REACH)
    likeness.gain.copy_(torch.tensor(GAIN))


def set_local_expert(
    backbone: AIGVEvalBackbone,
    clips: Sequence[Clip],
    tokens: Mapping[str, Array],
    linear: LinearMap,
) -> None:
    """Have a model say what FETV's raters said, near the clips where they did.

    Args:
        clips: n, rated or not, and copies of them. Without a technical rating nothing is set.
        tokens: Encoder to (n, d).
        linear: Fitted to them; gives motion.
    """
    technical, motion, overall = (SCORES.index(name) for name in ("technical", "motion", "overall"))
    scores = np.array([clip.scores[technical] for clip in clips])
    rated = np.flatnonzero(~np.isnan(scores))
    if not len(rated):
        return
    clips, scores = [clips[n] for n in rated], scores[rated]
    tokens = {name: values[rated] for name, values in tokens.items()}
    columns, _ = USED["technical"]
    parts = [_comparisons(clips, scores)]
    fit = equations(clips, tokens, parts, (), "technical", columns)
    found = fit.solve(columns, LOCAL_PENALTY)
    native = [n for n, clip in enumerate(clips) if clip.kind == "native" and not clip.real]
    own = sum(tokens[name][native] @ w for name, w in found.items())
    names = list(backbone.projectors)
    expert = backbone.add_local_expert(len(native))
    vectors = _vectors(backbone, {name: values[native] for name, values in tokens.items()})
    expert.place(vectors, [clips[n].group for n in native])
    expert.reach.fill_(LOCAL_REACH)
    expert.share[[technical, overall]] = 1
    weight = np.concatenate([found[name] for name in names])
    moving = np.concatenate([linear.weights[name][motion] for name in names])
    bias = float((scores[native] - own).mean())
    expert.weight[technical] = torch.from_numpy(weight)
    expert.bias[technical] = bias
    # What these raters say of the whole is the mean of what they say of its parts. How a clip fits
    # its prompt is known least, and not at all without one.
    expert.weight[overall] = torch.from_numpy((weight + moving) / 2)
    expert.bias[overall] = (bias + linear.bias[motion]) / 2


def mean_tokens(
    rows: Sequence[TrainingRow],
    backbone: AIGVEvalBackbone,
    encoders: Sequence[Encoder],
    cache: FeatureCache,
) -> dict[str, Array]:
    """Encoder to (n, d): each clip's tokens, standardised as its projector does, then averaged."""
    digests = {row.video: cache.digest(row.video) for row in rows}
    dataset = QualityDataset([list(rows)], digests, encoders, cache)
    result: dict[str, list[Tensor]] = {encoder.spec.name: [] for encoder in encoders}
    for number, row in enumerate(rows):
        for (name, values), tokens in zip(result.items(), dataset.tokens(number, row.prompt)):
            projector = backbone.projectors[name]
            values.append(projector.standardise(tokens).mean(0))
    return {name: torch.stack(values).double().numpy() for name, values in result.items()}


def clip_means(
    rows: Sequence[TrainingRow],
    backbone: AIGVEvalBackbone,
    encoders: Sequence[Encoder],
    cache: FeatureCache,
) -> Tensor:
    """What `AIGVEvalBackbone.compared` gives for the rows, (n, d)."""
    return _vectors(backbone, mean_tokens(rows, backbone, encoders, cache))


def _vectors(backbone: AIGVEvalBackbone, tokens: Mapping[str, Array]) -> Tensor:
    """What `AIGVEvalBackbone.compared` gives for mean tokens, encoder to (n, d_i): (n, d)."""
    means = [torch.from_numpy(tokens[name]).float()[:, None] for name in backbone.projectors]
    return backbone.compared(means)
