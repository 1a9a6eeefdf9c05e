"""Before stage sft: linear maps are fitted that find signs of the defects which the answers name.

See `aigveval.signs`. Ridge regression in closed form: seconds, where a network trained by gradients
took minutes and found less (macro-F1 on ladder sources left out: .72 instead of .80).

Axis legend: m rows, e widths of all encoders together, n defects, t time steps, c columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from rich.console import Console
from torch import Tensor
from torch.nn import functional as F

from aigveval.fusion import AIGVEvalBackbone
from aigveval.signs import MIDDLE_SEVERITY, TENTHS, SignFinder
from prompts import DEFECTS, Defect, parse

from .answers import answers_of
from .dataset import Collator, QualityDataset
from .fit_config import FitError
from .progress import steps_bar

RIDGE = 2.0  # its penalty
FOLDS = 4  # of the rows' groups, to find out how sure to be
MISMATCHES = 10  # wrong prompts per undamaged clip
ALARMS = 0.005  # share of undamaged clips, of sources not fitted to, with a sign of 5 or more
MARGIN = 0.85  # in logits: sources unlike those fitted to raise more alarms
MISMATCH_WEIGHT = 0.2
_MISMATCH = "prompt_mismatch"
_BATCH = 64


def names_in(dataset: QualityDataset) -> list[str]:
    """The defects that answers name, in the order of the rubric."""
    found = {d.name for row in dataset.rows for d in _defects(answers_of(row)) or ()}
    return [name for name in DEFECTS if name in found]


def _defects(answers: Sequence[str]) -> tuple[Defect, ...] | None:
    return parse(answers[0]).defects if answers else None


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What the maps are fitted to.

    Attributes:
        clips: (m, e), of `SignFinder.averaged`.
        steps: (m, t, e), of `SignFinder.stepwise`; half precision, as there are many.
        severity: (m, n), 0 where a clip hasn't the defect.
        shares: (m, t, n), how much of each step has it.
        weight: (m,), of a row; 0 for damage that hardly shows.
        groups: (m,), of the sources; what is of one source is in one fold.
    """

    clips: Tensor
    steps: Tensor
    severity: Tensor
    shares: Tensor
    weight: Tensor
    groups: Tensor


def fit_signs(
    backbone: AIGVEvalBackbone, dataset: QualityDataset, collate: Collator, console: Console, *,
    seed: int = 0,
) -> None:
    """Fit the head of a backbone to the rows with answers.

    Undamaged clips also come with wrong prompts, whose defect is `prompt_mismatch`.

    Raises:
        FitError: No row is undamaged, so that there'd be an alarm for every clip.
    """
    finder = backbone.signs
    assert finder is not None
    rows = _read(backbone, finder, dataset, collate, console, seed=seed)
    if not (rows.severity.sum(1) == 0).any():
        raise FitError("signs need some clips whose answer says that there are no defects")
    fit(finder, rows)


def _read(
    backbone: AIGVEvalBackbone, finder: SignFinder, dataset: QualityDataset, collate: Collator,
    console: Console, *, seed: int,
) -> Rows:
    shown = _shown(dataset, mismatches=_MISMATCH in finder.names, seed=seed)
    clips, steps, severity, shares, weight = [], [], [], [], []
    device = next(finder.parameters()).device
    with steps_bar(console) as bar:
        task = bar.add_task("Signs", total=len(shown), note="")
        for start in range(0, len(shown), _BATCH):
            part = shown[start: start + _BATCH]
            features = collate.pack_features([
                torch.stack(tokens)
                for tokens in zip(*(dataset.tokens(row, prompt) for row, prompt, _ in part))
            ])
            tokens = backbone.standardised(features.to(device))
            clips.append(finder.averaged(tokens).cpu())
            steps.append(finder.stepwise(tokens).half().cpu())
            for row, prompt, defects in part:
                degrees, share = _labels(finder, defects)
                severity.append(degrees)
                shares.append(share)
                slight = bool(defects) and max(d.severity for d in defects) < 2
                own = prompt == dataset.rows[row].prompt
                weight.append(0.0 if slight else 1.0 if own else MISMATCH_WEIGHT)
            bar.advance(task, len(part))
    numbers = [dataset.groups[row] for row, _, _ in shown]
    groups = [-1 - row if number < 0 else number for number, (row, _, _) in zip(numbers, shown)]
    return Rows(
        clips=torch.cat(clips), steps=torch.cat(steps), severity=torch.stack(severity),
        shares=torch.stack(shares), weight=torch.tensor(weight), groups=torch.tensor(groups),
    )


def _shown(
    dataset: QualityDataset, *, mismatches: bool, seed: int
) -> list[tuple[int, str | None, tuple[Defect, ...]]]:
    """Rows, the prompts that they are shown with, and their defects."""
    shown: list[tuple[int, str | None, tuple[Defect, ...]]] = []
    wrong = (Defect(name=_MISMATCH, severity=5),)
    seen: set[tuple[str, str | None]] = set()  # a row may be there more than once
    for number, row in enumerate(dataset.rows):
        defects = _defects(answers_of(row))
        if defects is None or (row.video, row.prompt) in seen:
            continue
        seen.add((row.video, row.prompt))
        shown.append((number, row.prompt, defects))
        if mismatches and not defects and row.prompt is not None:
            random = np.random.default_rng((seed, number, 2))
            prompts = [dataset.wrong_prompt(number, random) for _ in range(MISMATCHES)]
            shown += [(number, p, wrong) for p in dict.fromkeys(prompts) if p is not None]
    return shown


def _labels(finder: SignFinder, defects: Sequence[Defect]) -> tuple[Tensor, Tensor]:
    severity = torch.zeros(len(finder.names))
    shares = torch.zeros(finder.steps, len(finder.names))
    edges = torch.arange(finder.steps + 1) * (TENTHS / finder.steps)
    for defect in defects:
        column = finder.names.index(defect.name)
        severity[column] = defect.severity
        start, end = defect.span(TENTHS)
        overlap = edges[1:].clamp(max=end) - edges[:-1].clamp(min=start)
        shares[:, column] = (overlap * finder.steps / TENTHS).clamp(min=0)
    return severity, shares


@torch.no_grad()
def fit(finder: SignFinder, rows: Rows) -> None:
    """Set the weights of a head."""
    _fit_whether(finder, rows)
    for column in range(len(finder.names)):
        has = rows.severity[:, column] > 0
        _set(finder.degree, column, *_ridge(
            rows.clips[has], rows.severity[has, column] - MIDDLE_SEVERITY
        ))
        shares = rows.shares[has, :, column]
        if (shares > 0.5).all():  # it always lasts the whole clip
            finder.when.weight[column], finder.when.bias[column] = 0.0, 1.0
        else:
            steps = rows.steps[has].flatten(0, 1).float()
            _set(finder.when, column, *_ridge(steps, 2 * shares.flatten() - 1))


def _fit_whether(finder: SignFinder, rows: Rows) -> None:
    used = rows.weight > 0
    x, weight = rows.clips[used], rows.weight[used]
    present = torch.cat([rows.severity[used] > 0, rows.severity[used].sum(1, keepdim=True) == 0], 1)
    target = 2.0 * present - 1
    gram = x @ x.T
    order = {group: n for n, group in enumerate(dict.fromkeys(rows.groups[used].tolist()))}
    fold = torch.tensor([order[group] % FOLDS for group in rows.groups[used].tolist()])
    unseen = torch.zeros_like(target)
    for number in range(FOLDS):
        kept, left = fold != number, fold == number
        if left.any() and kept.any():
            found = _dual(gram[kept][:, kept], target[kept], weight[kept])
            unseen[left] = gram[left][:, kept] @ found
    scale, bias = _how_sure(unseen, present, weight)
    weights = x.T @ _dual(gram, target, weight)
    finder.whether.weight.copy_(scale * weights.T)
    finder.whether.bias.copy_(bias)


def _dual(gram: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Kernel ridge regression: (m, m), (m, c) and (m,) to (m, c)."""
    return torch.linalg.solve(gram + RIDGE * torch.diag(1 / weight), target)


def _ridge(x: Tensor, y: Tensor) -> tuple[Tensor, float]:
    """Weights (e,) and bias of a ridge regression of (m,) on (m, e)."""
    mean, middle = x.mean(0), float(y.mean())
    x = x - mean
    if len(x) <= x.shape[1]:
        weights = x.T @ torch.linalg.solve(x @ x.T + RIDGE * torch.eye(len(x)), y - middle)
    else:
        weights = torch.linalg.solve(x.T @ x + RIDGE * torch.eye(x.shape[1]), x.T @ (y - middle))
    return weights, middle - float(mean @ weights)


def _set(linear: torch.nn.Linear, row: int, weights: Tensor, bias: float) -> None:
    linear.weight[row], linear.bias[row] = weights, bias


def _how_sure(scores: Tensor, present: Tensor, weight: Tensor) -> tuple[float, Tensor]:
    """Scale (a number) and bias (c,) that make a softmax of scores (m, c) into probabilities.

    First by the likelihood, where undamaged clips count as much as all others together. Then none
    is made likelier or less so, until as many undamaged clips as `ALARMS` have a likelier defect,
    and likelier by `MARGIN`.
    """
    target = present / present.sum(1, keepdim=True)
    clean = present[:, -1]
    weight = torch.where(clean, weight / weight[clean].sum(), weight / weight[~clean].sum())
    with torch.enable_grad():
        scale = torch.ones((), requires_grad=True)
        bias = torch.zeros(scores.shape[1], requires_grad=True)
        optimizer = torch.optim.LBFGS([scale, bias], max_iter=200, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            each = F.cross_entropy(scale * scores + bias, target, reduction="none")
            total = (each * weight).sum() + 1e-3 * bias.square().sum()
            total.backward()
            return total

        optimizer.step(loss)
    found = (scale * scores + bias).detach()[clean]
    ahead = found[:, :-1].amax(1) - found[:, -1]
    bias = bias.detach()
    bias[-1] += torch.quantile(ahead, 1 - ALARMS) + MARGIN
    return float(scale), bias
