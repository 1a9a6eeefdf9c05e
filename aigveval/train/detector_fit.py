"""Before stage sft: the defect detector is fitted to the defects which the answers name.

See `aigveval.model.defect_detector`. Ridge regression in closed form: seconds, where a network
trained by gradients took minutes and found less (macro-F1 on ladder sources left out: .72 instead
of .80). The maps for the presence of a defect read only the columns that are most correlated with
it (sure independence screening; Fan & Lv, "Sure independence screening for ultrahigh dimensional
feature space", JRSS-B 2008). With all columns they overfit the few undamaged clips.

Axis legend: m rows, e widths of all encoders together, n defects, t time steps, c columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from rich.console import Console
from torch import Tensor
from torch.nn import functional as F

from prompts import DEFECTS, Defect, parse
from prompts.answer import TENTHS

from ..model.defect_detector import MIDDLE_SEVERITY, DefectDetector
from ..model.projector import AIGVEvalBackbone, pack_features
from .callbacks import steps_bar
from .config import FitError
from .dataset import QualityDataset

# Chosen by cross-validation over the sources of `lite`, and by results on those held out.
RIDGE = 2.0  # penalty, where all columns are read
SCREENED_RIDGE = 1e-4  # where some are; with weights that sum to 1
PICTURE_COLUMNS = 1024  # that a map of a defect of the picture reads
PROMPT_COLUMNS = 12  # of a defect that a prompt makes
MISMATCH_COLUMNS = 3  # of whether the prompt fits at all: the similarities alone
FOLDS = 4  # of the rows' groups, to find out how sure to be
MISMATCHES = 10  # wrong prompts per undamaged clip
MISMATCH_WEIGHT = 0.1  # of one
DAMAGED_WEIGHT = 0.1  # of a damaged clip among those whose prompt is right
# Share of undamaged clips, of sources not fitted to, with an alarm.
PICTURE_ALARMS = 0.08
PROMPT_ALARMS = 0.11
_MISMATCH = "prompt_mismatch"
_BATCH = 64


def names_in(dataset: QualityDataset) -> list[str]:
    """The defects that answers name, in the order of the rubric.

    Raises:
        FitError: They name none.
    """
    found = {defect.name for _, defects in _judged(dataset) for defect in defects}
    if not found:
        raise FitError("detector needs some clips whose answer names a defect")
    return [name for name in DEFECTS if name in found]


def _judged(dataset: QualityDataset) -> Iterator[tuple[int, tuple[Defect, ...]]]:
    """The rows whose answer tells the defects, and these; of rows of one clip the first."""
    seen: set[tuple[str, str | None]] = set()
    for number, row in enumerate(dataset.rows):
        defects = parse(row.answers[0]).defects if row.answers else None
        if defects is not None and (row.video, row.prompt) not in seen:
            seen.add((row.video, row.prompt))
            yield number, defects


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What the maps are fitted to.

    Attributes:
        clips: (m, e), of `DefectDetector.averaged`.
        steps: (m, t, e), of `DefectDetector.stepwise`; half precision, as there are many.
        severity: (m, n), 0 where a clip does not have the defect.
        shares: (m, t, n), how much of each step has it.
        weight: (m,), of a row; 0 for damage that hardly shows.
        groups: (m,), of the sources; all rows of a source are in one fold.
    """

    clips: Tensor
    steps: Tensor
    severity: Tensor
    shares: Tensor
    weight: Tensor
    groups: Tensor


def fit_detector(
    backbone: AIGVEvalBackbone,
    dataset: QualityDataset,
    console: Console,
    *,
    seed: int = 0,
) -> None:
    """Fit a backbone's defect detector to the rows with answers.

    Undamaged clips also come with wrong prompts, whose defect is `prompt_mismatch`.

    Raises:
        FitError: No row is undamaged, so that every clip would raise an alarm.
    """
    detector = cast(DefectDetector, backbone.detector)
    rows = _read(backbone, dataset, console, seed=seed)
    if not (rows.severity.sum(1) == 0).any():
        raise FitError("detector needs some clips whose answer says that there are no defects")
    fit(detector, rows)


def _read(
    backbone: AIGVEvalBackbone, dataset: QualityDataset, console: Console, *, seed: int
) -> Rows:
    detector = cast(DefectDetector, backbone.detector)
    shown = _shown(dataset, mismatches=_MISMATCH in detector.names, seed=seed)
    clips, steps, severity, shares, weight = [], [], [], [], []
    device = next(detector.parameters()).device
    with steps_bar(console) as bar:
        task = bar.add_task("Detector", total=len(shown), note="")
        for start in range(0, len(shown), _BATCH):
            part = shown[start : start + _BATCH]
            features = pack_features(
                [
                    torch.stack(tokens)
                    for tokens in zip(*(dataset.tokens(row, prompt) for row, prompt, _ in part))
                ]
            )
            tokens = backbone.standardised(features.to(device))
            clips.append(detector.averaged(tokens).cpu())
            steps.append(detector.stepwise(tokens).half().cpu())
            for row, prompt, defects in part:
                degrees, share = _labels(detector, defects)
                severity.append(degrees)
                shares.append(share)
                slight = bool(defects) and max(d.severity for d in defects) < 2
                own = prompt == dataset.rows[row].prompt
                known = 0.0 if slight else 1.0 if own else MISMATCH_WEIGHT
                weight.append(known * dataset.rows[row].weight)
            bar.advance(task, len(part))
    numbers = [dataset.groups[row] for row, _, _ in shown]
    groups = [-1 - row if number < 0 else number for number, (row, _, _) in zip(numbers, shown)]
    return Rows(
        clips=torch.cat(clips),
        steps=torch.cat(steps),
        severity=torch.stack(severity),
        shares=torch.stack(shares),
        weight=torch.tensor(weight),
        groups=torch.tensor(groups),
    )


def _shown(
    dataset: QualityDataset, *, mismatches: bool, seed: int
) -> list[tuple[int, str | None, tuple[Defect, ...]]]:
    """Rows, the prompts that they are shown with, and their defects."""
    shown: list[tuple[int, str | None, tuple[Defect, ...]]] = []
    wrong = (Defect(name=_MISMATCH, severity=5),)
    for number, defects in _judged(dataset):
        prompt = dataset.rows[number].prompt
        shown.append((number, prompt, defects))
        if mismatches and not defects and prompt is not None:
            random = np.random.default_rng((seed, number, 2))
            prompts = [dataset.wrong_prompt(number, random) for _ in range(MISMATCHES)]
            shown += [(number, p, wrong) for p in dict.fromkeys(prompts) if p is not None]
    return shown


def _labels(detector: DefectDetector, defects: Sequence[Defect]) -> tuple[Tensor, Tensor]:
    severity = torch.zeros(len(detector.names))
    shares = torch.zeros(detector.steps, len(detector.names))
    edges = torch.arange(detector.steps + 1) * (TENTHS / detector.steps)
    for defect in defects:
        column = detector.names.index(defect.name)
        severity[column] = defect.severity
        start, end = defect.span(TENTHS)
        overlap = edges[1:].clamp(max=end) - edges[:-1].clamp(min=start)
        shares[:, column] = (overlap * detector.steps / TENTHS).clamp(min=0)
    return severity, shares


@torch.no_grad()
def fit(detector: DefectDetector, rows: Rows) -> None:
    """Set the weights of a detector."""
    for none, group in enumerate((detector.picture, detector.prompt)):
        if group:
            _fit_presence(detector, rows, group, len(detector.names) + none)
    for column in range(len(detector.names)):
        has = rows.severity[:, column] > 0
        _set(
            detector.severity,
            column,
            *_ridge(rows.clips[has], rows.severity[has, column] - MIDDLE_SEVERITY),
        )
        shares = rows.shares[has, :, column]
        if (shares > 0.5).all():  # it always lasts the whole clip
            detector.timing.weight[column], detector.timing.bias[column] = 0.0, 1.0
        else:
            steps = rows.steps[has].flatten(0, 1).float()
            _set(detector.timing, column, *_ridge(steps, 2 * shares.flatten() - 1))


def _fit_presence(detector: DefectDetector, rows: Rows, group: Sequence[int], none: int) -> None:
    """The maps to the presence of some defects, and to the output for none of them."""
    here = rows.severity[:, group] > 0
    damaged = (rows.severity > 0).any(1) & ~here.any(1)
    weight = rows.weight.clone()
    if group == detector.picture:
        weight[damaged] = 0  # a wrong prompt changes no picture
        counts, alarms = [PICTURE_COLUMNS] * (len(group) + 1), PICTURE_ALARMS
    else:
        weight[damaged] *= DAMAGED_WEIGHT
        simple = [detector.names[number] == _MISMATCH for number in group] + [True]
        counts = [MISMATCH_COLUMNS if alone else PROMPT_COLUMNS for alone in simple]
        alarms = PROMPT_ALARMS
    used = weight > 0
    x, weight, clean = rows.clips[used], weight[used], ~(here.any(1) | damaged)[used]
    present = torch.cat([here[used], ~here[used].any(1, keepdim=True)], dim=1)
    order = {number: n for n, number in enumerate(dict.fromkeys(rows.groups[used].tolist()))}
    fold = torch.tensor([order[number] % FOLDS for number in rows.groups[used].tolist()])
    unseen = torch.zeros(present.shape)
    for number in range(FOLDS):
        kept, left = fold != number, fold == number
        if left.any() and kept.any():
            maps, offset = _screened(x[kept], present[kept], weight[kept], counts)
            unseen[left] = x[left] @ maps + offset
    scale, bias = _how_sure(unseen, present, weight, clean, alarms)
    maps, offset = _screened(x, present, weight, counts)
    outputs = [*group, none]
    detector.presence.weight[outputs] = scale * maps.T
    detector.presence.bias[outputs] = scale * offset + bias


def _screened(
    x: Tensor, present: Tensor, weight: Tensor, counts: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Ridge regressions on the most correlated columns.

    Args:
        x: (m, e).
        present: (m, c), bool.
        weight: (m,).
        counts: How many columns each of the c maps reads.

    Returns:
        Weights (e, c) and biases (c,) for targets of 1 and -1.
    """
    target = 2.0 * present - 1
    weight = (weight / weight.sum())[:, None]
    mean, middle = (weight * x).sum(0), (weight * target).sum(0)
    x, target = x - mean, target - middle
    spread = (weight * x.square()).sum(0).sqrt() + 1e-6
    related = ((weight * x).T @ target).abs() / spread[:, None]
    maps = torch.zeros(x.shape[1], target.shape[1])
    for column, count in enumerate(counts):
        best = related[:, column].topk(min(count, x.shape[1])).indices
        part = x[:, best]
        gram = (weight * part).T @ part + SCREENED_RIDGE * torch.eye(len(best))
        maps[best, column] = torch.linalg.solve(gram, (weight * part).T @ target[:, column])
    return maps, middle - mean @ maps


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


def _how_sure(
    scores: Tensor, present: Tensor, weight: Tensor, clean: Tensor, alarms: float
) -> tuple[float, Tensor]:
    """Scale (a number) and bias (c,) that calibrate a softmax of scores (m, c).

    First by the likelihood, where rows without a defect count as much as all others together. Then
    the bias of "none" is moved until a share `alarms` of the undamaged clips (m,) has a defect
    that is likelier.
    """
    target = present / present.sum(1, keepdim=True)
    none = present[:, -1]
    each = torch.where(none, weight / weight[none].sum(), weight / weight[~none].sum())
    with torch.enable_grad():
        scale = torch.ones((), requires_grad=True)
        bias = torch.zeros(scores.shape[1], requires_grad=True)
        optimizer = torch.optim.LBFGS([scale, bias], max_iter=200, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            losses = F.cross_entropy(scale * scores + bias, target, reduction="none")
            total = (losses * each).sum() + 1e-3 * bias.square().sum()
            total.backward()
            return total

        optimizer.step(loss)
    scale, bias = scale.detach(), bias.detach()
    found = (scale * scores + bias)[clean]
    ahead, order = (found[:, :-1].amax(1) - found[:, -1]).sort()
    share = weight[clean][order].cumsum(0) / weight[clean].sum()
    bias[-1] += ahead[int((share < 1 - alarms).sum())] + 1e-4
    return float(scale), bias
