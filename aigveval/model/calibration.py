"""How far a score can be trusted: an interval for each, and how familiar the clip's evidence is.

Familiarity: how far the clip's mean tokens are, standardised, from those of the nearest rated
clips, as a percentile of the distances that clips had when their own prompt was left out. It's
taken on how things move, where a model has an encoder for that: generators differ in that more than
in what they show (of some nine ways that were tried, this one set other data sets apart best).

Intervals are split conformal ones (Vovk et al., "Algorithmic Learning in a Random World", 2005):
their half width is the quantile of the errors on clips that the model hadn't learnt from. There are
two: of clips whose prompts were left out, and of clips whose whole data set was left out. A clip as
familiar as the former gets the first, one that no rated clip is like the second, and what lies
between a mix.

Axis legend: b batch, k tokens of one encoder, d width of a clip's vector, n rated clips.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

LEVEL = 0.8  # of the intervals
NEAREST = 3
FOLDS = 5  # of prompts left out
# Percentiles of familiarity: from the first on a clip counts as known, under the second as unknown.
KNOWN, UNKNOWN = 50.0, 10.0


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
        share = ((familiarity - UNKNOWN) / (KNOWN - UNKNOWN)).clamp(0, 1)[:, None]
        return familiarity, torch.lerp(self.unknown, self.known, share)


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


def half_width(errors: Tensor, level: float = LEVEL) -> Tensor:
    """The conformal quantile of absolute errors (n, scores), NaN left out: (scores,)."""
    found = []
    for column in errors.T:
        kept = column[~column.isnan()].sort().values
        place = min(len(kept), int(-(-(len(kept) + 1) * level // 1)))  # rounded up
        found.append(kept[place - 1] if len(kept) else torch.tensor(float("nan")))
    return torch.stack(found)
