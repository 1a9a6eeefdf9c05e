"""The answer text: a training target when written, a model's output when read.

    Technical: the sky falls apart into blocks.
    Motion: the boat glides evenly.
    Semantic: boat and lake are there.
    Defects: blocking 3 at 0.0-2.5 s; dropped frames 2 at 1.0-1.25 s
    Technical quality: poor (2.3)
    Motion quality: good (4.0)
    Text-video alignment: good (4.33)
    Overall quality: fair (3.1)

A line is left out where nothing is known. `Defects: none` says that there are none. The level word
stands where the scoring pass has its slot, so both read the same token after the same label.
Numbers have one or two decimals. `parse(render(answer)) == answer` for every answer.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from .rubric import (
    DEFECTS, DIMENSIONS, LEVEL_WEIGHTS, LEVELS, MAX_SCORE, MIN_SCORE, SCORE_LABELS, SCORES,
    Dimension, Score, nearest_level,
)
from .template import clean

ProblemKind = Literal[
    "too_long", "unexpected_line", "repeated_line", "malformed_defect", "unknown_defect",
    "severity_out_of_range", "times_reversed", "time_beyond_clip", "malformed_score",
    "score_out_of_range", "level_contradicts_score", "missing_line",
]

MAX_SEVERITY = 5
MAX_DEFECTS = 50
MAX_REASONING_BYTES = 1000  # per dimension
MAX_ANSWER_CHARS = 8000  # longer than any valid answer; a model that never ends is cut here
_TIME_SLACK_SECONDS = 0.05  # the rounding of a written time

_FLAGS = re.IGNORECASE | re.ASCII  # without ASCII a dotless i would pass as an i
_NUMBER = r"([0-9]{1,6}(?:\.[0-9]{1,6})?)"
_DEFECT = re.compile(rf"([a-z][a-z_ ]*) ([0-9]{{1,6}}) at {_NUMBER}-{_NUMBER} s", _FLAGS)
_SCORE = re.compile(rf"({'|'.join(LEVELS)}) \({_NUMBER}\)", _FLAGS)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something in a model's text that is not an answer: its kind, for counting, and the text."""

    kind: ProblemKind
    detail: str


@dataclass(frozen=True, kw_only=True)
class Defect:
    """A defect of a clip. Times are rounded to 0.01 s, the resolution of the text.

    Attributes:
        name: One of `rubric.DEFECTS`.
        severity: 1 (hardly seen) to 5 (ruins the clip).
        start_seconds: First moment it's seen, from the start of the clip.
        end_seconds: Last moment, not before `start_seconds`.

    Raises:
        ValueError: A field is out of its range.
    """

    name: str
    severity: int
    start_seconds: float
    end_seconds: float

    def __post_init__(self) -> None:
        if self.name not in DEFECTS:
            raise ValueError(f"unknown defect {self.name!r}; known: {', '.join(DEFECTS)}")
        if self.severity not in range(1, MAX_SEVERITY + 1):
            raise ValueError(f"severity must be an integer 1-{MAX_SEVERITY}, got {self.severity}")
        start, end = round(float(self.start_seconds), 2), round(float(self.end_seconds), 2)
        if not 0 <= start <= end < 1e6:
            raise ValueError(
                "times must satisfy 0 <= start_seconds <= end_seconds < 1e6, "
                f"got {self.start_seconds} and {self.end_seconds}"
            )
        object.__setattr__(self, "severity", int(self.severity))
        object.__setattr__(self, "start_seconds", start)
        object.__setattr__(self, "end_seconds", end)

    @property
    def dimension(self) -> Dimension:
        """The dimension whose score the defect lowers."""
        return DEFECTS[self.name].dimension


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A judgement: any part may be unknown.

    Attributes:
        scores: Name to score on 1-5, rounded to 0.01; unknown ones are absent.
        defects: In the order they are told, at most 50; empty if there are none, None if unknown.
        reasoning: Dimension to one line of text, passed through `template.clean`.
        problems: What `parse` found wrong with the text; the parts concerned are left out above.

    Raises:
        ValueError: A name isn't in the rubric, a score is out of range, or defects are too many.
    """

    scores: Mapping[Score, float] = field(default_factory=dict)
    defects: tuple[Defect, ...] | None = None
    reasoning: Mapping[Dimension, str] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    def __post_init__(self) -> None:
        for given, known in ((self.scores, SCORES), (self.reasoning, DIMENSIONS)):
            if unknown := set(given) - set(known):
                raise ValueError(f"names must be among {known}, got {sorted(unknown)}")
        for name, score in self.scores.items():
            if not MIN_SCORE <= score <= MAX_SCORE:
                raise ValueError(f"{name} must lie within 1-5, got {score}")
        given_scores = [name for name in SCORES if name in self.scores]
        scores = {name: round(float(self.scores[name]), 2) for name in given_scores}
        lines = {
            name: clean(self.reasoning.get(name, ""), max_bytes=MAX_REASONING_BYTES)
            for name in DIMENSIONS
        }
        object.__setattr__(self, "scores", scores)
        object.__setattr__(self, "reasoning", {name: line for name, line in lines.items() if line})
        if self.defects is not None:
            if len(self.defects) > MAX_DEFECTS:
                raise ValueError(f"at most {MAX_DEFECTS} defects, got {len(self.defects)}")
            object.__setattr__(self, "defects", tuple(self.defects))

    def problem_counts(self) -> Counter[str]:
        """How many problems there are of each kind."""
        return Counter(problem.kind for problem in self.problems)


def render(answer: Answer) -> str:
    """Write an answer as text, in the form shown at the top of this file."""
    lines = [f"{name.capitalize()}: {text}" for name, text in answer.reasoning.items()]
    if answer.defects is not None:
        told = "; ".join(
            f"{DEFECTS[d.name].words} {d.severity} at "
            f"{_number(d.start_seconds)}-{_number(d.end_seconds)} s"
            for d in answer.defects
        )
        lines.append(f"Defects: {told or 'none'}")
    lines += [
        f"{SCORE_LABELS[name]}: {nearest_level(score)} ({_number(score)})"
        for name, score in answer.scores.items()
    ]
    return "\n".join(lines)


def parse(
    text: str,
    *,
    expected_scores: Collection[Score] = (),
    duration_seconds: float | None = None,
) -> Answer:
    """Read an answer from a model's text. Never raises: what can't be read becomes a problem.

    A part that has a problem is left out of the answer, so that nothing wrong is ever shown.

    Args:
        text: What the model wrote, special tokens removed.
        expected_scores: If given, the text must be a whole answer: these scores, the reasoning of
            their dimensions and a line of defects; what's absent is a `missing_line` problem.
        duration_seconds: Length of the clip; a defect that ends after it is a problem.
    """
    problems: list[Problem] = []
    if len(text) > MAX_ANSWER_CHARS:
        problems.append(Problem(kind="too_long", detail=f"{len(text)} characters"))
        text = text[:MAX_ANSWER_CHARS]
    scores: dict[Score, float] = {}
    reasoning: dict[Dimension, str] = {}
    defects: tuple[Defect, ...] | None = None
    seen: set[str] = set()
    score_of = {label.lower(): name for name, label in SCORE_LABELS.items()}
    dimension_of = {str(name): name for name in DIMENSIONS}
    for line in filter(None, (" ".join(part.split()) for part in text.split("\n"))):
        label, _, rest = line.partition(":")
        label, rest = label.strip().lower(), rest.strip()
        if not rest or label not in {"defects", *score_of, *dimension_of}:
            problems.append(Problem(kind="unexpected_line", detail=line[:80]))
            continue
        if label in seen:
            problems.append(Problem(kind="repeated_line", detail=line[:80]))
        elif label == "defects":
            defects = _read_defects(rest, duration_seconds, problems)
        elif label in score_of:
            score = _read_score(rest, problems)
            if score is not None:
                scores[score_of[label]] = score
        else:
            reasoning[dimension_of[label]] = rest
        seen.add(label)
    if expected_scores:
        wanted = {SCORE_LABELS[name].lower() for name in expected_scores} | {"defects"}
        wanted |= set(DIMENSIONS).intersection(expected_scores)
        problems += [
            Problem(kind="missing_line", detail=label) for label in sorted(wanted - seen)
        ]
    return Answer(scores=scores, defects=defects, reasoning=reasoning, problems=tuple(problems))


def _read_score(text: str, problems: list[Problem]) -> float | None:
    match = _SCORE.fullmatch(text)
    kind: ProblemKind
    if not match:
        kind = "malformed_score"
    elif not MIN_SCORE <= float(match[2]) <= MAX_SCORE:
        kind = "score_out_of_range"
    elif abs(LEVEL_WEIGHTS[LEVELS.index(match[1].lower())] - float(match[2])) > 1:
        kind = "level_contradicts_score"  # the word beside the nearest is no contradiction yet
    else:
        return float(match[2])
    problems.append(Problem(kind=kind, detail=text[:80]))
    return None


def _read_defects(
    text: str, duration_seconds: float | None, problems: list[Problem]
) -> tuple[Defect, ...] | None:
    if text.lower() == "none":
        return ()
    limit = float("inf") if duration_seconds is None else duration_seconds + _TIME_SLACK_SECONDS
    defects: list[Defect] = []
    for item in map(str.strip, text.split(";")):
        match = _DEFECT.fullmatch(item)
        if not match:
            problems.append(Problem(kind="malformed_defect", detail=item[:80]))
            continue
        name = match[1].lower().replace(" ", "_")
        severity, start, end = int(match[2]), float(match[3]), float(match[4])
        kind: ProblemKind | None = None
        if name not in DEFECTS:
            kind = "unknown_defect"
        elif not 1 <= severity <= MAX_SEVERITY:
            kind = "severity_out_of_range"
        elif start > end:
            kind = "times_reversed"
        elif end > limit:
            kind = "time_beyond_clip"
        elif len(defects) == MAX_DEFECTS:
            kind = "too_long"
        if kind:
            problems.append(Problem(kind=kind, detail=item[:80]))
        else:
            defects.append(
                Defect(name=name, severity=severity, start_seconds=start, end_seconds=end)
            )
    return tuple(defects) or None  # nothing readable is not the same as no defects


def _number(value: float) -> str:
    """One or two decimals: 3.0, 3.5, 3.67."""
    return f"{value:.2f}".removesuffix("0")
