"""Pairwise accuracy, with and without ties, on a list of pairs that serves all samples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..metrics import MOST_PAIRS

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

_ROUNDING = 1e-9  # scores are means of integers: 3.5 - 3.0 has to count as 0.5


def shares(sums: Floats) -> Floats:
    """(b, 2 k) sums of parts and wholes in turn -> (b, k) shares, NaN where the whole is 0."""
    with np.errstate(invalid="ignore"):
        return sums[:, ::2] / sums[:, 1::2]


class Pairs:
    """Pairs of rows (first, second), and for each of them whether it is predicted right.

    A pair is tied to people when their scores differ by no more than a margin. Without ties, such
    pairs are left out and a predicted tie counts half. With ties, every pair counts, and a pair is
    tied to the predictor when its scores differ by no more than a threshold, the one that makes the
    accuracy largest, as in Deutsch, Foster and Freitag, "Ties Matter" (EMNLP 2023), which
    benchmarks of text-to-video rewards report as accuracy with ties.

    Args:
        predictions: (n,) predicted scores.
        targets: (n,) human scores.
        margin: human scores that differ by no more than this are tied.
        threshold: predictions that differ by no more than this are tied; None finds the best.
        groups: (n,) numbers; only pairs inside a group are listed. None: all pairs.
        most: more pairs than this, of all clips or of a group, are not listed but drawn at random,
            from a fixed seed. That puts a standard error of at most 0.0007 on a share.
    """

    def __init__(
        self,
        predictions: Floats,
        targets: Floats,
        *,
        margin: float,
        threshold: float | None = None,
        groups: Rows | None = None,
        most: int = MOST_PAIRS,
    ) -> None:
        listed = [_list_pairs(rows, most) for rows in rows_of(groups, len(targets))]
        self.first = np.concatenate([first for first, _ in listed])
        self.second = np.concatenate([second for _, second in listed])
        dx = predictions[self.first] - predictions[self.second]
        dy = targets[self.first] - targets[self.second]
        self.different = np.abs(dy) > margin + _ROUNDING
        agree = np.sign(dx) == np.sign(dy)
        self.threshold = (
            threshold
            if threshold is not None
            else _best_threshold(np.abs(dx), ~self.different, agree & self.different)
        )
        tied = np.abs(dx) <= self.threshold
        self._columns = (
            np.where(dx == 0, 0.5, agree) * self.different,
            self.different.astype(np.float64),
            np.where(self.different, agree & ~tied, tied).astype(np.float64),
            np.ones(len(dx)),
        )

    def count(self, times: Floats) -> Floats:
        """Counts the pairs of bootstrap samples; a clip is never paired with its own copy.

        Args:
            times: (b, n) how often each clip is in each sample.

        Returns:
            (b, 4): pairs with different human scores whose order is predicted right, a predicted
            tie counting half; pairs with different human scores; pairs that are predicted right,
            ties included; all pairs.
        """
        from scipy.sparse import coo_array

        counts = []
        for values in self._columns:
            shape = times.shape[1], times.shape[1]
            table = coo_array((values, (self.first, self.second)), shape=shape).tocsr()
            counts.append(((table @ times.T) * times.T).sum(axis=0))
        return np.stack(counts, axis=1)

    def by_group(self, groups: Rows, count: int) -> Floats:
        """(count, 4) the numbers of `count` for each group, every pair once."""
        of_pair = groups[self.first]
        counts = [np.bincount(of_pair, weights=c, minlength=count) for c in self._columns]
        return np.stack(counts, axis=1)


def rows_of(groups: Rows | None, size: int) -> list[Rows]:
    """The row numbers of each group, or of all."""
    if groups is None:
        return [np.arange(size)]
    order = np.argsort(groups, kind="stable")
    return np.split(order, np.cumsum(np.bincount(groups))[:-1])


def _list_pairs(rows: Rows, most: int) -> tuple[Rows, Rows]:
    count = len(rows)
    if count * (count - 1) // 2 <= most:
        first, second = np.triu_indices(count, k=1)
    else:
        random = np.random.default_rng(0)
        first = random.integers(0, count, size=most)
        second = (first + random.integers(1, count, size=most)) % count
    return rows[first], rows[second]


def _best_threshold(
    distance: Floats, human_ties: NDArray[np.bool_], right: NDArray[np.bool_]
) -> float:
    """The predicted distance up to which calling a tie pays; -1 where calling none is best."""
    if not len(distance):
        return -1.0
    order = np.argsort(distance, kind="stable")
    gain = np.cumsum(human_ties[order].astype(np.int64) - right[order].astype(np.int64))
    distance = distance[order]
    last_of_equal = np.append(distance[1:] != distance[:-1], True)
    gain, distance = gain[last_of_equal], distance[last_of_equal]
    best = int(np.argmax(gain))
    return float(distance[best]) if gain[best] > 0 else -1.0
