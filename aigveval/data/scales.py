"""Scales of opinion scores, and the way between them and the 1-5 that everything here works on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from prompts.rubric import MAX_SCORE, MIN_SCORE

from ..errors import InputError, ManifestError

_OFF = "must lie in"
_SLACK = 1e-6  # of the span: the rounding of a mean


@dataclass(frozen=True)
class Scale:
    """The range that scores are given on, the best at `high`.

    Raises:
        ValueError: When the ends are not finite or not in order.
    """

    low: float = MIN_SCORE
    high: float = MAX_SCORE

    def __post_init__(self) -> None:
        if not -math.inf < self.low < self.high < math.inf:
            raise ValueError(f"a scale must go up from one number to another, got {self}")

    def __str__(self) -> str:
        return f"{self.low:g}{'-' if self.low >= 0 else ' to '}{self.high:g}"

    @classmethod
    def parse(cls, text: str) -> Scale:
        """Reads `LOW:HIGH`, such as `0:100`.

        Raises:
            InputError: When it is something else.
        """
        try:
            low, high = map(float, text.split(":"))
            return cls(low, high)
        except ValueError:
            raise InputError(
                f"a scale is LOW:HIGH with LOW below HIGH, such as 0:100, got {text!r}"
            ) from None

    def holds(self, score: float) -> bool:
        """Whether a score lies on the scale; the rounding of a mean may take it over the end."""
        slack = _SLACK * (self.high - self.low)
        return self.low - slack <= score <= self.high + slack

    def why_not(self, score: float) -> str:
        """What is wrong with a score that the scale does not hold; `hint` knows it again."""
        return f"{_OFF} {self}, got {score:g}"

    def hint(self, fault: str, *, option: str = "--scale LOW:HIGH") -> str | None:
        """How to say that scores are on another scale, where a fault is that one is off this."""
        if _OFF not in fault:
            return None
        return f"scores are taken to be on {self}; {option} says otherwise"

    @contextmanager
    def hinted(self, *, option: str = "--scale LOW:HIGH") -> Iterator[None]:
        """Adds the hint to the errors of a manifest."""
        try:
            yield
        except ManifestError as error:
            if hint := self.hint(str(error), option=option):
                raise ManifestError(f"{error}; {hint}") from None
            raise

    def to_mos(self, score: float) -> float:
        """Maps a score that `holds` linearly onto 1-5; NaN stays NaN."""
        if math.isnan(score):
            return score
        score = min(max(score, self.low), self.high)
        if self == MOS:
            return score  # without rounding
        share = (score - self.low) / (self.high - self.low)
        return MIN_SCORE + (MAX_SCORE - MIN_SCORE) * share

    def from_mos(self, score: float) -> float:
        """Maps a score on 1-5 back onto this scale; NaN stays NaN."""
        if self == MOS:
            return score
        share = (score - MIN_SCORE) / (MAX_SCORE - MIN_SCORE)
        return self.low + (self.high - self.low) * share

    def spread_from_mos(self, spread: float) -> float:
        """Maps a difference or standard deviation on 1-5 onto this scale."""
        return spread * (self.high - self.low) / (MAX_SCORE - MIN_SCORE)


MOS = Scale()
