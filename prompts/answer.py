"""The answer text: a training target when written, a model's output when read.

    Technical quality: poor
    Motion quality: good
    Text-video alignment: good
    Overall quality: fair
    Technical: heavy blocks break up the picture.
    Motion: the camera shakes slightly.
    Semantic: the clip follows the prompt well.
    Defects: blocking 4; shake 1 0.6-1.4
    Scores: 1.8 3.5 4.3 3.2

The first lines are `template.ANSWER` with its slots filled in, so that what a model computed to
score a clip needn't be computed again to explain it; reasoning and defects follow. Before these
stands a line of detections where a model has a defect detector (see `render_detections`), and one
of facts where it reads these (see `facts.render_facts`): they're given to the LLM, as the
levels are, and no part of the answer. A defect is its name, its severity and its time range; one
without a range lasts the whole clip. `Defects: none` says that there are none. Scores come in the
order of `rubric.SCORES`, `-` where one is unknown. A line is left out where nothing is known.
`parsing.parse` reads the text back, and for every answer `parse(render(answer)) == answer`.

Times are in seconds. A model whose evidence has no clock can't know these; it's better taught
tenths of the clip, from 0.0 to 10.0: see `Answer.scaled`.

The text above is 92 tokens of SmolLM2, 69 of them after the levels; without defects 78 and 55.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from .defects import DEFECTS
from .rubric import (
    DIMENSIONS,
    MAX_SCORE,
    MIN_SCORE,
    SCORE_LABELS,
    SCORES,
    Dimension,
    Score,
    nearest_level,
)
from .template import clean

ProblemKind = Literal[
    # found by `parsing.parse`
    "no_answer",
    "too_long",
    "unfinished",
    "unexpected_line",
    "repeated_line",
    "missing_line",
    "malformed_defect",
    "unknown_defect",
    "repeated_defect",
    "severity_out_of_range",
    "times_reversed",
    "time_beyond_clip",
    "malformed_score",
    "score_out_of_range",
    "level_contradicts_score",
    # found by `consistency.check_consistency`
    "repeats_itself",
    "score_contradicts_slot",
    "defect_contradicts_score",
    "text_contradicts_score",
    "text_contradicts_defects",
    "text_contradicts_facts",
]

DETECTIONS_LABEL = "Signs"  # the word that models were trained with
FACTS_LABEL = "Facts"
TENTHS = 10.0  # length of any clip in tenths of it
MAX_SEVERITY = 5
MAX_DEFECTS = 50
MAX_REASONING_BYTES = 1000  # per dimension


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something in a model's text that is not an answer: its kind, for counting, and the text."""

    kind: ProblemKind
    detail: str


@dataclass(frozen=True, kw_only=True)
class Defect:
    """A defect of a clip. Times are rounded to 0.1 s, the resolution of the text.

    Attributes:
        name: One of `defects.DEFECTS`.
        severity: 1 (hardly seen) to 5 (ruins the clip).
        start_seconds: First moment it's seen, from the start of the clip; None with the end's None
            for a defect that lasts the whole clip.
        end_seconds: Last moment, not before `start_seconds`.

    Raises:
        ValueError: A field is out of its range.
    """

    name: str
    severity: int
    start_seconds: float | None = None
    end_seconds: float | None = None

    def __post_init__(self) -> None:
        if self.name not in DEFECTS:
            raise ValueError(f"unknown defect {self.name!r}; known: {', '.join(DEFECTS)}")
        if self.severity not in range(1, MAX_SEVERITY + 1):
            raise ValueError(f"severity must be an integer 1-{MAX_SEVERITY}, got {self.severity}")
        object.__setattr__(self, "severity", int(self.severity))
        if self.start_seconds is None and self.end_seconds is None:
            return
        if self.start_seconds is None or self.end_seconds is None:
            raise ValueError(
                "start_seconds and end_seconds must be both given or both None, "
                f"got {self.start_seconds} and {self.end_seconds}"
            )
        start, end = round(float(self.start_seconds), 1), round(float(self.end_seconds), 1)
        if not 0 <= start <= end < 1e6:
            raise ValueError(
                "times must satisfy 0 <= start_seconds <= end_seconds < 1e6, "
                f"got {self.start_seconds} and {self.end_seconds}"
            )
        object.__setattr__(self, "start_seconds", start)
        object.__setattr__(self, "end_seconds", end)

    @property
    def dimension(self) -> Dimension:
        """The dimension whose score the defect lowers."""
        return DEFECTS[self.name].dimension

    def span(self, duration_seconds: float) -> tuple[float, float]:
        """Start and end within a clip of this length: all of it where there's no time range."""
        if self.start_seconds is None or self.end_seconds is None:
            return 0.0, duration_seconds
        return min(self.start_seconds, duration_seconds), min(self.end_seconds, duration_seconds)


@dataclass(frozen=True, kw_only=True)
class Detection:
    """A defect that a detector found, for an LLM to judge.

    Attributes:
        defect: The defect that it would be.
        certainty: 0 to 9, the first decimal of its probability.

    Raises:
        ValueError: The certainty is out of its range.
    """

    defect: Defect
    certainty: int

    def __post_init__(self) -> None:
        if self.certainty not in range(10):
            raise ValueError(f"certainty must be an integer 0-9, got {self.certainty}")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A judgement: any part may be unknown.

    Attributes:
        scores: Name to score on 1-5, rounded to 0.01; unknown ones are absent.
        defects: In the order of the text, at most 50, each once; empty if there are none, None
            if unknown.
        reasoning: Dimension to one line of text, passed through `template.clean`.
        problems: What `parsing.parse` found wrong with the text; the parts concerned are left out.

    Raises:
        ValueError: A name isn't in the rubric, a score is out of range, or defects are too many or
            the same.
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
            for defect, count in Counter(self.defects).items():
                if count > 1:
                    raise ValueError(f"the same defect twice: {_defect_text(defect)}")
            object.__setattr__(self, "defects", tuple(self.defects))

    def scaled(self, factor: float) -> "Answer":
        """The same answer with times multiplied; two defects may become one by rounding.

        `answer.scaled(duration_seconds / 10)` turns tenths of the clip into seconds.
        """
        if self.defects is None:
            return self
        scaled = (
            defect
            if defect.start_seconds is None or defect.end_seconds is None
            else replace(
                defect,
                start_seconds=defect.start_seconds * factor,
                end_seconds=defect.end_seconds * factor,
            )
            for defect in self.defects
        )
        return replace(self, defects=tuple(dict.fromkeys(scaled)))

    def about(self, names: Collection[Score]) -> "Answer":
        """The same answer without what it says of other scores and dimensions."""
        return replace(
            self,
            scores={name: score for name, score in self.scores.items() if name in names},
            reasoning={name: text for name, text in self.reasoning.items() if name in names},
            defects=self.defects and tuple(d for d in self.defects if d.dimension in names),
        )

    def problem_counts(self) -> Counter[str]:
        """How many problems there are of each kind."""
        return Counter(problem.kind for problem in self.problems)


def render(answer: Answer) -> str:
    """Write an answer as text, in the form shown at the top of this file."""
    levels, numbers = render_levels(answer.scores), render_numbers(answer.scores)
    return "\n".join(filter(None, (levels, render_explanation(answer), numbers)))


def render_levels(scores: Mapping[Score, float]) -> str:
    """The first lines of an answer: `template.ANSWER` with the level nearest to each score."""
    known = (name for name in SCORES if name in scores)
    return "\n".join(f"{SCORE_LABELS[name]}: {nearest_level(scores[name])}" for name in known)


def render_detections(detections: Collection[Detection], scores: Mapping[Score, float]) -> str:
    """Scores and detections in one line: `Signs: 1.8 3.5 4.3 3.2; Technical 9 blur 3; ...`.

    Detections stand with their dimension, so that a small LLM finds what its sentence is about;
    `none` stands where there are none. Scores have one decimal.
    """
    rounded = {name: round(score, 1) for name, score in scores.items()}
    parts = [_numbers(rounded)] if scores else []
    for dimension in DIMENSIONS:
        own = [one for one in detections if one.defect.dimension == dimension]
        items = (f"{one.certainty} {_defect_text(one.defect)}" for one in own)
        if own or dimension in scores:
            parts.append(f"{dimension.capitalize()} {', '.join(items) or 'none'}")
    return f"{DETECTIONS_LABEL}: {'; '.join(parts) or 'none'}"


def without_detections(text: str) -> str:
    """An answer without the lines of detections and of facts that were given to the LLM."""
    labels = (f"{DETECTIONS_LABEL}:", f"{FACTS_LABEL}:")
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith(labels))


def split_levels(text: str) -> tuple[str, str]:
    """An answer's first lines, the levels, each with its end, and what follows them.

    In scoring the levels come from the scores, and the model writes what follows.
    """
    lines = text.splitlines(keepends=True)
    labels = tuple(f"{label}:" for label in SCORE_LABELS.values())
    count = next((n for n, line in enumerate(lines) if not line.startswith(labels)), len(lines))
    return "".join(lines[:count]), "".join(lines[count:])


def render_explanation(answer: Answer) -> str:
    """The lines between levels and numbers: reasoning and defects."""
    lines = [f"{name.capitalize()}: {text}" for name, text in answer.reasoning.items()]
    if answer.defects is not None:
        lines.append(f"Defects: {render_defects(answer.defects)}")
    return "\n".join(lines)


def render_defects(defects: Collection[Defect]) -> str:
    """Defects in one line, as `blocking 3; shake 2 0.6-1.4`, or `none`."""
    return "; ".join(map(_defect_text, defects)) or "none"


def _defect_text(defect: Defect) -> str:
    text = f"{DEFECTS[defect.name].words} {defect.severity}"
    if defect.start_seconds is None:
        return text
    return f"{text} {defect.start_seconds:.1f}-{defect.end_seconds:.1f}"


def render_numbers(scores: Mapping[Score, float]) -> str:
    """The last line of an answer; empty where no score is known."""
    return f"Scores: {_numbers(scores)}" if scores else ""


def _numbers(scores: Mapping[Score, float]) -> str:
    # One decimal, or two where there are: 3.0, 3.5, 3.67.
    return " ".join(
        f"{scores[name]:.2f}".removesuffix("0") if name in scores else "-" for name in SCORES
    )
