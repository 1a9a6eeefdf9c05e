"""The results for a video: `Score`, `Assessment` and `Timeline`, validated when they are built.

A row is the same everywhere: `video, prompt, overall, technical, motion, semantic, model, version,
seconds, error, warnings`, each score as `{"score", "std"}` or null. A calibrated model, such as
`lite`, adds `low` and `high` to each score and `familiarity` to each row. A run that explains adds
`explanation`, `defects`, `problems`, `contributions`, `evidence` and `advice` to the rows that it
could. Files of rows: see `aigveval.reports.results`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, SupportsIndex, overload

from prompts import DIMENSIONS, Defect
from prompts.facts import Fact
from prompts.rubric import MAX_SCORE, MIN_SCORE

from .errors import one_line
from .versions import __version__

LARGEST_STD = (MAX_SCORE - MIN_SCORE) / 2  # half of the mass at each end of the scale
UNFAMILIAR = 5.0  # percentile of familiarity under which people are told
SCORE_FIELDS = ("overall", *DIMENSIONS)  # in the order in which rows and tables show them
EXTRAS = {  # what only some rows have: name -> fields, the first of which tells whether it's there
    "explanation": ("explanation", "defects", "problems"),
    "contributions": ("contributions",),
    "evidence": ("evidence", "advice"),
    "familiarity": ("familiarity",),
}
DEFECT_FIELDS = ("name", "dimension", "severity", "start_seconds", "end_seconds")
CONTRIBUTION_FIELDS = (*DIMENSIONS, "sum", "residue", "baseline")

# What an engine knows of a clip, as `Assessment` takes it: a `Score` or None by the name of each
# score, and maybe the fields of an explanation and `contributions`.
Scores = dict[str, Any]


@dataclass(frozen=True)
class Score:
    """A score on the mean-opinion-score scale.

    Args:
        score: expectation, 1 (bad) to 5 (excellent).
        std: standard deviation of the distribution over the five levels, 0 to 2: how much the
            model wavers between levels.
        low, high: ends of the interval that holds what people would say of four clips in five,
            as measured on clips that the model had not learnt from; None for a model that was
            not calibrated.

    Raises:
        ValueError: when a number is not finite or out of its range.
    """

    score: float
    std: float
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        _check_range("score", self.score, MIN_SCORE, MAX_SCORE)
        _check_range("std", self.std, 0.0, LARGEST_STD)
        if self.low is not None and self.high is not None:
            _check_range("low", self.low, MIN_SCORE, self.score)
            _check_range("high", self.high, self.score, MAX_SCORE)
        elif self.low is not None or self.high is not None:
            raise ValueError("low and high must be both given or both None")

    def to_dict(self) -> dict[str, float]:
        """Gives the numbers that there are, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Contributions:
    """How far the evidence on each dimension moves the overall score.

    A dimension's contribution is the overall score less what it is with the tokens of that
    dimension's encoders replaced by their training mean. `baseline` is the score with all of them
    replaced. What dimensions do together is more or less than the sum of what each does alone, and
    `residue` says by how much: overall = baseline + sum + residue.

    Args:
        baseline: 1 to 5.
        residue: in points of the scale, as all that follows.
        technical, motion, semantic: above 0 where the evidence raises the score; None where the
            model has no encoder for the dimension.

    Raises:
        ValueError: when a number is not finite or out of its range.
    """

    baseline: float
    residue: float
    technical: float | None = None
    motion: float | None = None
    semantic: float | None = None

    def __post_init__(self) -> None:
        span = MAX_SCORE - MIN_SCORE
        _check_range("baseline", self.baseline, MIN_SCORE, MAX_SCORE)
        _check_range("residue", self.residue, -4 * span, 4 * span)
        for name in DIMENSIONS:
            if (value := getattr(self, name)) is not None:
                _check_range(f"contribution of {name}", value, -span, span)

    @property
    def sum(self) -> float:
        """Of the dimensions' contributions, to five decimals."""
        return round(math.fsum(getattr(self, name) or 0.0 for name in DIMENSIONS), 5)

    def to_dict(self) -> dict[str, float | None]:
        """Gives the numbers under `CONTRIBUTION_FIELDS`, the sum included."""
        return {name: getattr(self, name) for name in CONTRIBUTION_FIELDS}


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
        warnings: what was done to show it as a player does, or is wrong with it, one line each,
            such as `interlaced: deinterlaced`; none as a rule.
        familiarity: percentile, 0 to 100: of the clips with new prompts that the model was
            calibrated on, how many are less like those it learnt from. Under 5 the scores may be
            off by more than usual, and their intervals are wider. None without a calibration.
        explanation: reasoning per dimension, as far as the model gave one that can be read; None
            when it was not asked, as the next two.
        defects: what is wrong with the video; None also when the model's list cannot be read.
        problems: what is wrong with the model's answer, each `kind: text`, see
            `prompts.answer.ProblemKind`. Parts that cannot be read are left out of the answer.
        contributions: None when they were not asked for.
        evidence: the facts that the explanation rests on: what was seen and measured, when and
            where; None when it was not asked for, as the next one.
        advice: what to try about the defects that a fact stands behind, one line each.

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
    warnings: tuple[str, ...] = ()
    explanation: Mapping[str, str] | None = None
    defects: tuple[Defect, ...] | None = None
    problems: tuple[str, ...] | None = None
    contributions: Contributions | None = None
    evidence: tuple[Fact, ...] | None = None
    advice: tuple[str, ...] | None = None
    familiarity: float | None = None

    def __post_init__(self) -> None:
        _check_range("seconds", self.seconds, 0.0, math.inf)
        if self.familiarity is not None:
            _check_range("familiarity", self.familiarity, 0.0, 100.0)
        if (self.explanation is None) != (self.problems is None):
            raise ValueError("explanation and problems must be both given or both None")
        if (self.evidence is None) != (self.advice is None):
            raise ValueError("evidence and advice must be both given or both None")
        for line in self.advice or ():
            _check_line("advice", line)
        if unknown := set(self.explanation or ()) - set(DIMENSIONS):
            raise ValueError(f"an explanation is about {DIMENSIONS}, got {sorted(unknown)}")
        for warning in self.warnings:
            _check_line("a warning", warning)
        given = [name for name in SCORE_FIELDS if getattr(self, name) is not None]
        if self.error is None and "overall" not in given:
            raise ValueError("an assessment without an error needs an overall score")
        if self.error is not None:
            given += self.extras
            if given:
                raise ValueError(f"an assessment with an error cannot have scores, got {given}")
            _check_line("error", self.error)

    @classmethod
    def failed(cls, video: str, prompt: str | None, model: str, error: str) -> Assessment:
        """The row of a video that no model came to; `error` in one line."""
        return cls(
            video=video,
            prompt=prompt,
            model=model,
            version=__version__,
            seconds=0.0,
            error=error,
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines for people: the warnings, and whether the clip is unlike what the model knows."""
        if self.familiarity is None or self.familiarity >= UNFAMILIAR:
            return self.warnings
        line = f"unlike what it learnt from (familiarity {self.familiarity:.1f})"
        return (*self.warnings, line)

    @property
    def extras(self) -> list[str]:
        """Which of `explanation`, `contributions`, `evidence` and `familiarity` the row has."""
        return [name for name in EXTRAS if getattr(self, name) is not None]

    def to_dict(self) -> dict[str, Any]:
        """Gives the row, with nested scores and the extras that there are; for `json.dumps`."""
        row = {name: getattr(self, name) for name in ROW_FIELDS}
        for name in SCORE_FIELDS:
            row[name] = row[name] and row[name].to_dict()
        row["warnings"] = list(self.warnings)
        if self.familiarity is not None:
            row["familiarity"] = self.familiarity
        if self.explanation is not None:
            row["explanation"] = dict(self.explanation)
            defects = self.defects
            row["defects"] = None if defects is None else list(map(defect_to_dict, defects))
            row["problems"] = list(self.problems or ())
        if self.contributions is not None:
            row["contributions"] = self.contributions.to_dict()
        if self.evidence is not None:
            row["evidence"] = [fact.to_dict() for fact in self.evidence]
            row["advice"] = list(self.advice or ())
        return row

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Assessment:
        """Builds an assessment from a row of `to_dict`; other keys are ignored.

        Raises:
            ValueError: when a key is missing or a value is out of range.
        """
        if not isinstance(row, Mapping):
            raise ValueError(f"a row must be a mapping, got {one_line(repr(row), limit=40)}")
        try:
            values = {name: row[name] for name in ROW_FIELDS if name != "warnings"}
            values |= _extras_of(row)
            for name in SCORE_FIELDS:
                if values[name] is not None:
                    given = values[name]
                    ends = {end: given.get(end) for end in ("low", "high")}
                    values[name] = Score(score=given["score"], std=given["std"], **ends)
        except KeyError as error:
            raise ValueError(f"no {error.args[0]!r} in the row") from None
        except (AttributeError, TypeError):
            raise ValueError('a score must be {"score", "std"} or null') from None
        warnings = row.get("warnings")  # rows of earlier versions have none
        if not isinstance(warnings, (list, tuple, type(None))):
            found = one_line(repr(warnings), limit=40)
            raise ValueError(f"warnings must be a list of lines, got {found}")
        values["warnings"] = tuple(warnings or ())
        for name in ("video", "model", "version", "prompt", "error"):
            optional = name in ("prompt", "error") and values[name] is None
            if not optional and not isinstance(values[name], str):
                found = one_line(repr(values[name]), limit=40)
                raise ValueError(f"{name} must be text, got {found}")
        return cls(**values)

    def key(self) -> tuple[str, str | None, str, str]:
        """Identifies the work behind the row: equal keys give equal scores."""
        return (self.video, self.prompt, self.model, self.version)

    def _repr_html_(self) -> str:
        """The row as a notebook shows it: frames, scores as bars, defects along the time."""
        from .reports.html.card import in_notebook

        return in_notebook(self)


class Assessments(list[Assessment]):
    """A list of rows that a notebook shows as a table, to be sorted by a click.

    rows = aigveval.Assessments(assessor.score_many(clips))
    rows[:10]  # a table, too
    """

    @overload
    def __getitem__(self, index: SupportsIndex) -> Assessment: ...

    @overload
    def __getitem__(self, index: slice) -> Assessments: ...

    def __getitem__(self, index: SupportsIndex | slice) -> Assessment | Assessments:
        found = super().__getitem__(index)
        return Assessments(found) if isinstance(found, list) else found

    def _repr_html_(self) -> str:
        from .reports.html.card import table_in_notebook

        return table_in_notebook(self)


@dataclass(frozen=True, kw_only=True)
class Window:
    """A stretch of a video, in seconds, and its scores; None for one that there is not."""

    start_seconds: float
    end_seconds: float
    scores: Scores


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """Scores along a video: its windows in order, and the assessment of the whole clip."""

    duration_seconds: float
    windows: list[Window]
    clip: Assessment

    def defects_within(self, start_seconds: float, end_seconds: float) -> list[Defect]:
        """The defects that a stretch has a part in."""
        spans = ((d, d.span(self.duration_seconds)) for d in self.clip.defects or ())
        return [d for d, (start, end) in spans if start < end_seconds and end >= start_seconds]


_EXTRA_FIELDS = {name for own in EXTRAS.values() for name in own}
ROW_FIELDS = tuple(one.name for one in fields(Assessment) if one.name not in _EXTRA_FIELDS)


def defect_to_dict(defect: Defect) -> dict[str, Any]:
    """Gives a defect under `DEFECT_FIELDS`; without times it lasts the whole clip."""
    return {name: getattr(defect, name) for name in DEFECT_FIELDS}


def _extras_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The extras of a row of `to_dict`, where Parquet has null for what is absent."""
    found: dict[str, Any] = {"familiarity": row.get("familiarity")}
    try:
        if (explanation := row.get("explanation")) is not None:
            found["explanation"] = {n: str(t) for n, t in explanation.items() if t is not None}
            found["problems"] = tuple(map(str, row["problems"]))
            if (defects := row.get("defects")) is not None:
                given = [{n: v for n, v in item.items() if n != "dimension"} for item in defects]
                found["defects"] = tuple(Defect(**values) for values in given)
        if (numbers := row.get("contributions")) is not None:
            found["contributions"] = Contributions(
                **{name: value for name, value in numbers.items() if name != "sum"}
            )
        if (evidence := row.get("evidence")) is not None:
            found["evidence"] = tuple(map(Fact.from_dict, evidence))
            found["advice"] = tuple(map(str, row["advice"]))
    except (AttributeError, TypeError) as error:
        raise ValueError(f"an explanation or contributions of another form: {error}") from None
    return found


def _check_line(name: str, text: object) -> None:
    if not isinstance(text, str) or not text.strip() or len(text.splitlines()) > 1:
        raise ValueError(f"{name} must be one line of text, got {text!r}")


def _check_range(name: str, value: float, lowest: float, highest: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{name} must be a number, got {one_line(repr(value), limit=40)}")
    if not math.isfinite(value) or not lowest <= value <= highest:
        raise ValueError(f"{name} must be finite and in {lowest:g}..{highest:g}, got {value}")
