"""What an assessment of a video says: `Score` and `Assessment`, validated when they are built.

A row is the same everywhere: `video, prompt, overall, technical, motion, semantic, model, version,
seconds, error`, each score as `{"score", "std"}` or null. Files of rows: see `aigveval.results`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

LOWEST, HIGHEST = 1.0, 5.0
LARGEST_STD = (HIGHEST - LOWEST) / 2  # half of the mass at each end of the scale
SCORE_FIELDS = ("overall", "technical", "motion", "semantic")


@dataclass(frozen=True)
class Score:
    """A score on the mean-opinion-score scale.

    Args:
        score: expectation, 1 (bad) to 5 (excellent).
        std: standard deviation of the distribution over the five levels, 0 to 2.

    Raises:
        ValueError: when a number is not finite or out of its range.
    """

    score: float
    std: float

    def __post_init__(self) -> None:
        _check_range("score", self.score, LOWEST, HIGHEST)
        _check_range("std", self.std, 0.0, LARGEST_STD)


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """What one video got.

    Args:
        video: path as text, as the caller gave it.
        prompt: text the video was generated from; None when unknown.
        overall, technical, motion, semantic: scores; `semantic` is None without a prompt, a
            dimension is None when the model has no encoder for it, and all are None when the video
            could not be assessed.
        model: preset, folder or hub id of the model that scored.
        version: version of aigveval.
        seconds: wall time spent on this video, decoding included.
        error: why the video could not be assessed, one line; None when it could.

    Raises:
        ValueError: when scores and error contradict each other, or a field is out of range.
    """

    video: str
    prompt: str | None = None
    overall: Score | None = None
    technical: Score | None = None
    motion: Score | None = None
    semantic: Score | None = None
    model: str
    version: str
    seconds: float
    error: str | None = None

    def __post_init__(self) -> None:
        _check_range("seconds", self.seconds, 0.0, math.inf)
        given = [name for name in SCORE_FIELDS if getattr(self, name) is not None]
        if self.error is None and "overall" not in given:
            raise ValueError("an assessment without an error needs an overall score")
        if self.error is not None:
            if given:
                raise ValueError(f"an assessment with an error cannot have scores, got {given}")
            if not self.error.strip() or len(self.error.splitlines()) > 1:
                raise ValueError(f"error must be one line of text, got {self.error!r}")

    def to_dict(self) -> dict[str, Any]:
        """Gives the row, with nested scores; ready for `json.dumps`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Assessment:
        """Builds an assessment from a row of `to_dict`; other keys are ignored.

        Raises:
            ValueError: when a key is missing or a value is out of range.
        """
        if not isinstance(row, Mapping):
            raise ValueError(f"a row must be a mapping, got {one_line(repr(row), limit=40)}")
        try:
            values = {field.name: row[field.name] for field in fields(cls)}
            for name in SCORE_FIELDS:
                if values[name] is not None:
                    values[name] = Score(score=values[name]["score"], std=values[name]["std"])
        except KeyError as error:
            raise ValueError(f"no {error.args[0]!r} in the row") from None
        except TypeError:
            raise ValueError('a score must be {"score", "std"} or null') from None
        for name in ("video", "model", "version", "prompt", "error"):
            optional = name in ("prompt", "error") and values[name] is None
            if not optional and not isinstance(values[name], str):
                found = one_line(repr(values[name]), limit=40)
                raise ValueError(f"{name} must be text, got {found}")
        return cls(**values)

    def key(self) -> tuple[str, str | None, str, str]:
        """Identifies the work behind the row: equal keys give equal scores."""
        return (self.video, self.prompt, self.model, self.version)


def one_line(text: object, *, limit: int = 300) -> str:
    """Folds white space and caps the length, for reasons that go into a row or onto a terminal."""
    folded = " ".join(str(text).split())
    return folded if len(folded) <= limit else folded[: limit - 3] + "..."


def _check_range(name: str, value: float, lowest: float, highest: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{name} must be a number, got {one_line(repr(value), limit=40)}")
    if not math.isfinite(value) or not lowest <= value <= highest:
        raise ValueError(f"{name} must be finite and in {lowest:g}..{highest:g}, got {value}")
