"""How far a score can be trusted: an interval for each, and how familiar the clip's evidence is.

Familiarity: how far the clip's mean tokens are, standardised, from those of the nearest rated
clips, as a percentile of the distances that clips had when their own prompt was left out. It's
taken on how things move, where a model has an encoder for that: generators differ in that more than
in what they show (of some nine ways that were tried, this one set other data sets apart best).

Intervals are split conformal ones (Vovk et al., "Algorithmic Learning in a Random World", 2005),
from errors on clips that the model hadn't learnt from: once their prompts were left out, once their
whole data set was. There are two half widths, of clips that are familiar and of clips that are not,
and what lies between gets a mix. The two are found together, so that of either kind of left-out
clips, each with its own mix, the same share lies inside.

Axis legend: b batch, k tokens of one encoder, d width of a clip's vector, n rated clips.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

LEVEL = 0.8  # of the intervals
NEAREST = 3
FOLDS = 5  # of prompts left out
_ROUNDS = 100  # in which two half widths settle
# Percentiles of familiarity: from the first on a clip counts as known, under the second as unknown.
# Of twelve pairs, all of which cover what they should, one with small widths.
KNOWN, UNKNOWN = 80.0, 40.0


class Calibration(nn.Module):
    """Familiarity and half widths, from fixed statistics of the rated clips.

    Args:
        width: d.
        clips: n.
        scores: Number of scores.
    """

    clips: Tensor
    distances: Tensor
    known: Tensor
    unknown: Tensor

    def __init__(self, *, width: int, clips: int, scores: int) -> None:
        super().__init__()
        self.register_buffer("clips", torch.zeros(clips, width))
        self.register_buffer("distances", torch.zeros(clips))
        self.register_buffer("known", torch.full((scores,), float("nan")))
        self.register_buffer("unknown", torch.full((scores,), float("nan")))

    @torch.no_grad()
    def fit(self, vectors: Tensor, groups: Sequence[str]) -> None:
        """Sets everything but the half widths.

        Args:
            vectors: (n, d) of the rated clips, as of `clip_vectors`.
            groups: n prompts, two at least. A clip isn't compared with those of its fold.
        """
        self.distances.copy_(left_out_distances(vectors, groups).sort().values)
        self.clips.copy_(vectors)

    @torch.no_grad()
    def forward(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Clips' vectors (b, d) to familiarity (b,) in 0-100, and half widths (b, scores)."""
        apart = distance(vectors.float(), self.clips)
        familiarity = 100 * (self.distances[None] > apart[:, None]).float().mean(1)
        return familiarity, mixed(self.known, self.unknown, familiarity)


def distance(vectors: Tensor, clips: Tensor) -> Tensor:
    """Of (b, d) from the nearest of clips (n, d), (b,)."""
    # Not by matrix products, whose rounding depends on how many there are.
    apart = torch.cdist(vectors, clips, compute_mode="donot_use_mm_for_euclid_dist")
    return apart.sort(dim=1).values[:, :NEAREST].mean(1)


def left_out_distances(vectors: Tensor, groups: Sequence[str]) -> Tensor:
    """Of clips (n, d) from the nearest outside of their own fold of prompts, (n,).

    Args:
        vectors: As of `clip_vectors`.
        groups: n prompts, two at least.
    """
    names = sorted(set(groups))
    part = torch.tensor([names.index(group) % FOLDS for group in groups], device=vectors.device)
    found = vectors.new_zeros(len(vectors))
    for number in part.unique():
        out = part == number
        found[out] = distance(vectors[out], vectors[~out])
    return found


def clip_vectors(standardised: Sequence[Tensor]) -> Tensor:
    """Each encoder's standardised tokens (b, k, d_i) to clips' vectors (b, d).

    Means over the tokens; each encoder counts the same, however wide it is.
    """
    means = [tokens.float().mean(1) for tokens in standardised]
    return torch.cat([mean / mean.shape[1] ** 0.5 for mean in means], dim=1)


def mixed(known: Tensor, unknown: Tensor, familiarity: Tensor) -> Tensor:
    """Half widths of clips (b, scores), from the two (scores,) and familiarity (b,)."""
    return torch.lerp(unknown, known, _share(familiarity)[:, None])


def half_widths(
    known: tuple[Tensor, Tensor], unknown: tuple[Tensor, Tensor], *, level: float = LEVEL
) -> tuple[Tensor, Tensor]:
    """Of clips that are known, and of clips that aren't, from errors on clips that were left out.

    Args:
        known, unknown: absolute errors (n, scores), NaN for those left out, and familiarity (n,);
            the first with only the prompts left out, the second with the whole data set.
        level: share of either's errors that is to lie inside.

    Returns:
        Twice (scores,); the second is never below the first.
    """
    pairs = zip(known[0].T, unknown[0].T)
    found = [_pair((a, _share(known[1])), (b, _share(unknown[1])), level) for a, b in pairs]
    return torch.stack([one for one, _ in found]), torch.stack([two for _, two in found])


def _pair(
    known: tuple[Tensor, Tensor], unknown: tuple[Tensor, Tensor], level: float
) -> tuple[Tensor, Tensor]:
    """Of one score, from errors (n,) and shares (n,): each in turn as the other has it."""
    first, second = _quantile(known[0], level), _quantile(unknown[0], level)
    for _ in range(_ROUNDS):
        before = first, second
        need = _needed(unknown[0], 1 - unknown[1], first)
        second = (second + torch.maximum(_quantile(need, level), first)) / 2
        first = (first + _quantile(_needed(known[0], known[1], second), level)) / 2
        if before == (first, second):
            break
    return first, second.maximum(first)


def _needed(errors: Tensor, share: Tensor, other: Tensor) -> Tensor:
    """The half width that just covers each error, where it has that share and the other the rest.

    Where it has no share nothing is needed, or, if the other is too small, no width would do: the
    error itself then, so that such clips never make a width endless.
    """
    need = torch.where(share > 0, (errors - (1 - share) * other) / share, errors)
    covered = (share == 0) & (errors <= other)
    return need.masked_fill(covered, 0.0).clamp(min=0.0)


def _share(familiarity: Tensor) -> Tensor:
    """How far clips (b,) count as known, 0-1."""
    return ((familiarity - UNKNOWN) / (KNOWN - UNKNOWN)).clamp(0, 1)


def _quantile(values: Tensor, level: float) -> Tensor:
    """The conformal quantile of (n,), NaN left out; NaN if there are none."""
    kept = values[~values.isnan()].sort().values
    if not len(kept):
        return values.new_tensor(float("nan"))
    return kept[min(len(kept), int(-(-(len(kept) + 1) * level // 1))) - 1]  # rounded up
