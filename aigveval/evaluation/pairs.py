"""Pairwise accuracy, with and without ties, on a list of pairs that serves all bootstrap samples.

A pair is tied to people when their scores differ by no more than a margin. Without ties, such
pairs are left out and a predicted tie counts half. With ties, every pair counts, and a pair is tied
to the predictor when its scores differ by no more than a threshold; the threshold is the one that
makes the accuracy largest, as in Deutsch, Foster and Freitag, "Ties Matter" (EMNLP 2023), which
benchmarks of text-to-video rewards report as accuracy with ties.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..metrics import MOST_PAIRS

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

_ROUNDING = 1e-9  # scores are means of integers: 3.5 - 3.0 has to count as 0.5


@dataclass(frozen=True)
class PairCounts:
    """What pairs come to, each counted `weight` times.

    Args:
        right: pairs with different human scores whose order is predicted right; a predicted tie
            counts half.
        different: pairs with different human scores.
        right_with_ties: pairs that are predicted right, ties included.
        pairs: all pairs.
    """

    right: float
    different: float
    right_with_ties: float
    pairs: float

    @property
    def accuracy(self) -> float | None:
        return self.right / self.different if self.different else None

    @property
    def accuracy_with_ties(self) -> float | None:
        return self.right_with_ties / self.pairs if self.pairs else None


class Pairs:
    """Pairs of rows (first, second), and for each of them whether it is predicted right.

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
        self, predictions: Floats, targets: Floats, *, margin: float,
        threshold: float | None = None, groups: Rows | None = None, most: int = MOST_PAIRS,
    ) -> None:
        listed = [_list_pairs(rows, most) for rows in _rows_of(groups, len(targets))]
        self.first = np.concatenate([first for first, _ in listed])
        self.second = np.concatenate([second for _, second in listed])
        dx = predictions[self.first] - predictions[self.second]
        dy = targets[self.first] - targets[self.second]
        self.different = np.abs(dy) > margin + _ROUNDING
        agree = np.sign(dx) == np.sign(dy)
        self.threshold = threshold if threshold is not None else _best_threshold(
            np.abs(dx), ~self.different, agree & self.different
        )
        tied = np.abs(dx) <= self.threshold
        self._right = (np.where(dx == 0, 0.5, agree) * self.different).astype(np.float32)
        self._right_with_ties = np.where(self.different, agree & ~tied, tied).astype(np.float32)

    def count(self, weights: NDArray[np.float32] | None = None) -> PairCounts:
        """Counts each pair `weights` times.

        Args:
            weights: (pairs,); None counts each once.
        """
        if weights is None:
            weights = np.ones(len(self.first), dtype=np.float32)
        w = weights.astype(np.float64)
        return PairCounts(
            right=float(w @ self._right), different=float(w @ self.different),
            right_with_ties=float(w @ self._right_with_ties), pairs=float(w.sum()),
        )

    def count_rows(self, rows: Rows, size: int) -> PairCounts:
        """Counts the pairs of a bootstrap sample; a row is never paired with its own copy.

        Args:
            rows: row numbers, as often as they were drawn.
            size: number of rows that there are.
        """
        times = np.bincount(rows, minlength=size).astype(np.float32)
        return self.count(times[self.first] * times[self.second])

    def by_group(self, groups: Rows, count: int) -> NDArray[np.float64]:
        """(count, 4) the four numbers of `PairCounts`, for each group."""
        of_pair = groups[self.first]
        columns = (self._right, self.different, self._right_with_ties, np.ones(len(self.first)))
        return np.stack(
            [np.bincount(of_pair, weights=column, minlength=count) for column in columns], axis=1
        )


def _rows_of(groups: Rows | None, size: int) -> list[Rows]:
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
