"""What is known of a clip, in the terms of `prompts.Answer`: scores, defects, reasoning.

A manifest (see `manifest`) has it in these columns besides `video`, `prompt` and the scores:

    defects           what is wrong with the clip, in one of three forms:
                      - a list of {"name", "severity", "start_seconds", "end_seconds"}
                      - {"technical": [...], "motion": [...], "semantic": [...]} of such lists, one
                        for each dimension that was looked at, [] where nothing was found
                      - text, as CSV needs it: `blur 3; freeze 2 0.6-1.4`, or `none`
                      Names are those of `prompts.defects.DEFECTS`, severities 1-5. Without times a
                      defect lasts the whole clip. Empty or absent: nobody looked for defects.
    duration_seconds  length of the clip
    reasoning         {"technical": "...", ...}: words of a rater to use instead of ours
    evidence          facts of the clip, a list of objects as `prompts.facts.Fact.to_dict` gives

A row of `aigveval score --explain` may stand here too: its scores are then the model's. Its own
`explanation` isn't used.

Rows of a distortion ladder (see `distortion.ladder`) have their own columns for the same.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from prompts.answer import MAX_DEFECTS, Defect, Problem
from prompts.facts import Fact, named
from prompts.parsing import TIME_SLACK_SECONDS, read_defects
from prompts.rubric import DIMENSIONS, MIN_SCORE, SCORES, Dimension, Score

from ..errors import ManifestError, as_text, one_line
from .manifest import ManifestRow, parse_row
from .readers import parse_rows
from .scales import MOS, Scale

CLEAN_SCORE = 4.25  # MOS given to a ladder's undamaged clips, of which nothing is known
FULL_DROP = 3.75  # what a ladder's manifest takes off at severity 5
# Types that act up to the last frame: their end is the length of the clip.
_TO_THE_END = ("ghosting", "warping", "near_static", "scene_cut")
_AT_THE_EDGE = 0.05  # seconds; what is rounded away in a text


@dataclass(frozen=True, kw_only=True)
class Attribution:
    """A defect with its times as given; `prompts.Defect` has those that a text has room for.

    Attributes:
        name: One of `prompts.defects.DEFECTS`.
        severity: 1-5.
        start_seconds, end_seconds: None for the whole clip.

    Raises:
        ValueError: When a value is out of range.
    """

    name: str
    severity: int
    start_seconds: float | None = None
    end_seconds: float | None = None

    def __post_init__(self) -> None:
        self.defect()

    def defect(self, factor: float = 1.0) -> Defect:
        """Gives the defect, its times multiplied."""
        start, end = (
            None if time is None else time * factor
            for time in (self.start_seconds, self.end_seconds)
        )
        return Defect(name=self.name, severity=self.severity, start_seconds=start, end_seconds=end)


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """A clip with its labels.

    Attributes:
        scores: Known ones on 1-5, nominal ones included.
        nominal: Names of scores that are assumed and not known: no loss should be taken on them.
        attributions: What is wrong; None where nobody looked.
        reasoning: Words of a rater; empty where there are none.
        evidence: Facts of the clip; empty where nobody measured.
        duration_seconds: Length of the clip; None where unknown.
    """

    row: ManifestRow
    scores: Mapping[Score, float]
    nominal: frozenset[Score] = frozenset()
    attributions: tuple[Attribution, ...] | None = None
    reasoning: Mapping[Dimension, str] = field(default_factory=dict)
    duration_seconds: float | None = None
    evidence: tuple[Fact, ...] = ()

    def defects(self, factor: float = 1.0) -> tuple[Defect, ...] | None:
        """The defects, each once, their times multiplied."""
        if self.attributions is None:
            return None
        return tuple(dict.fromkeys(item.defect(factor) for item in self.attributions))


def read_labels(
    source: str | os.PathLike[str], *, scale: Scale = MOS, clean_score: float = CLEAN_SCORE
) -> Iterator[Labelled]:
    """Yields the clips of a manifest with their labels.

    A ladder's row without scores gets nominal ones: its clean clip has `clean_score` everywhere,
    and a damage takes off its share of what lies between that and 1.

    Args:
        source: File, folder or Hub id; see `readers`.
        scale: The scale of the scores in it.
        clean_score: 1-5, see above.

    Raises:
        ManifestError: When the manifest cannot be read, or a row is wrong.
    """
    rows = [row for _, _, row in parse_rows(source, partial(_parsed, scale=scale))]
    lengths = _ladder_lengths(rows)
    for row in rows:
        try:
            yield _labelled(row, lengths, clean_score)
        except (ValueError, OverflowError) as fault:
            reason = one_line(fault)
            raise ManifestError(f"{as_text(source)}: row {row.number}: {reason}") from None


def _parsed(number: int, values: Mapping[str, Any], folder: Path, *, scale: Scale) -> ManifestRow:
    """A row of a manifest, or of results, whose scores are objects."""
    if "evidence" in values:
        scores = {name: values[name] for name in SCORES if isinstance(values.get(name), Mapping)}
        values = {**values, **{name: score.get("score") for name, score in scores.items()}}
    return parse_row(number, values, folder, scale=scale)


def _labelled(
    row: ManifestRow, lengths: Mapping[str | None, float], clean_score: float
) -> Labelled:
    ladder = "technical_drop" in row.extra
    evidence = _evidence(row.extra.get("evidence"))
    duration = _duration(row.extra.get("duration_seconds"))
    if duration is None:
        duration = next((fact.value for fact in named(evidence, "duration")), None)
    if duration is None and ladder:
        duration = lengths.get(row.group)
    scores: dict[Score, float] = {
        name: score for name, score in zip(SCORES, row.scores) if not math.isnan(score)
    }
    nominal: frozenset[Score] = frozenset()
    if ladder and not scores:
        scores, nominal = _nominal_scores(row, clean_score)
    given = row.extra.get("defects")
    found = _of_ladder(row) if ladder and given is None else _attributions(given, row.prompt)
    if found is not None:
        if len(found) > MAX_DEFECTS:
            raise ValueError(f"at most {MAX_DEFECTS} defects, got {len(found)}")
        found = tuple(_within(item, duration) for item in found)
    return Labelled(
        row=row,
        scores=scores,
        nominal=nominal,
        attributions=found,
        duration_seconds=duration,
        reasoning=_reasoning(row.extra.get("reasoning")),
        evidence=evidence,
    )


# ---- the documented columns ---------------------------------------------------------------------


def _attributions(given: Any, prompt: str | None) -> tuple[Attribution, ...] | None:
    given = _cell("defects", given)
    if given is None:
        return None
    if isinstance(given, str):
        problems: list[Problem] = []
        found = read_defects(given.strip(), problems) or ()
        if problems:
            kind = problems[0].kind.replace("_", " ")
            raise ValueError(f"defects: {kind}: {problems[0].detail!r}")
        return tuple(Attribution(**asdict(defect)) for defect in found)
    if isinstance(given, Mapping):
        if unknown := set(given) - set(DIMENSIONS):
            raise ValueError(f"defects must be of {', '.join(DIMENSIONS)}, got {sorted(unknown)}")
        wanted = [name for name in DIMENSIONS if name != "semantic" or prompt is not None]
        if any(given.get(name) is None for name in wanted):
            return None  # `Defects: none` would be a guess about the others
        return tuple(
            _attribution(item, name)
            for name in DIMENSIONS
            for item in _list("defects", given.get(name) or [])
        )
    return tuple(_attribution(item) for item in _list("defects", given))


def with_evidence(labels: Labelled, facts: Sequence[Fact]) -> Labelled:
    """With facts that were measured, as if the row had them.

    Raises:
        ValueError: When a defect lasts longer than the clip.
    """
    duration = labels.duration_seconds
    if duration is None:
        duration = next((fact.value for fact in named(facts, "duration")), None)
    found = labels.attributions
    if found is not None:
        found = tuple(_within(item, duration) for item in found)
    return replace(labels, evidence=tuple(facts), duration_seconds=duration, attributions=found)


def _cell(name: str, given: Any) -> Any:
    """A list or an object may be JSON in a cell of a CSV file; None where nothing is given."""
    if given is None or given == "":
        return None
    if not isinstance(given, str) or not given.lstrip().startswith(("[", "{")):
        return given
    try:
        return json.loads(given)
    except json.JSONDecodeError as error:
        raise ValueError(f"{name} is not JSON: {error.msg}") from None


def _list(name: str, given: Any) -> Iterable[Any]:
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        raise ValueError(f"{name} must be a list, got {one_line(repr(given), limit=60)}")
    return given


def _attribution(item: Any, dimension: str | None = None) -> Attribution:
    if not isinstance(item, Mapping) or not {"name", "severity"} <= set(item):
        raise ValueError(
            f"a defect has a name and a severity, got {one_line(repr(item), limit=80)}"
        )
    numbers = {name: item.get(name) for name in ("severity", "start_seconds", "end_seconds")}
    if any(
        isinstance(value, bool) or not isinstance(value, (int, float, type(None)))
        for value in numbers.values()
    ):
        raise ValueError(f"numbers of a defect must be numbers: {one_line(repr(item), limit=80)}")
    found = Attribution(name=str(item["name"]), **numbers)  # type: ignore[arg-type]
    dimension = dimension or item.get("dimension")
    if dimension is not None and found.defect().dimension != dimension:
        raise ValueError(
            f"{found.name} is a defect of {found.defect().dimension}, not of {dimension}"
        )
    return found


def _within(item: Attribution, duration: float | None) -> Attribution:
    """Within the clip; without times where the defect lasts all of it."""
    if item.start_seconds is None or item.end_seconds is None or duration is None:
        return item
    if item.end_seconds > duration + TIME_SLACK_SECONDS:
        raise ValueError(f"{item.name} ends at {item.end_seconds:g} s, the clip at {duration:g} s")
    if item.start_seconds < _AT_THE_EDGE and item.end_seconds > duration - _AT_THE_EDGE:
        return replace(item, start_seconds=None, end_seconds=None)
    return replace(
        item,
        start_seconds=min(item.start_seconds, duration),
        end_seconds=min(item.end_seconds, duration),
    )


def _duration(given: Any) -> float | None:
    if given is None or given == "":
        return None
    try:
        duration = float(given)
    except (TypeError, ValueError, OverflowError):
        duration = math.nan
    if not 0 < duration < 1e6:
        raise ValueError(f"duration_seconds must be above 0, got {one_line(repr(given), limit=60)}")
    return duration


def _evidence(given: Any) -> tuple[Fact, ...]:
    given = _cell("evidence", given)
    facts = []
    for item in () if given is None else _list("evidence", given):
        if not isinstance(item, Mapping):
            raise ValueError(f"a fact must be an object, got {one_line(repr(item), limit=60)}")
        try:
            facts.append(Fact.from_dict(item))
        except ValueError as error:
            raise ValueError(f"evidence: {error}") from None
    return tuple(facts)


def _reasoning(given: Any) -> Mapping[Dimension, str]:
    given = _cell("reasoning", given)
    if given is None:
        return {}
    if (
        not isinstance(given, Mapping)
        or set(given) - set(DIMENSIONS)
        or not all(text is None or isinstance(text, str) for text in given.values())
    ):
        raise ValueError(
            f"reasoning must be texts for {', '.join(DIMENSIONS)}, "
            f"got {one_line(repr(given), limit=80)}"
        )
    return {name: text for name, text in given.items() if text and text.strip()}


# ---- rows of a ladder ---------------------------------------------------------------------------


def _ladder_lengths(rows: Iterable[ManifestRow]) -> dict[str | None, float]:
    """Group to the length of its clips, which is the end of a damage up to the last frame."""
    lengths: dict[str | None, float] = {}
    for row in rows:
        end = row.extra.get("end_seconds")
        if isinstance(end, (int, float)) and (
            row.extra.get("dimension") == "technical" or row.extra.get("type") in _TO_THE_END
        ):
            lengths[row.group] = max(lengths.get(row.group, 0.0), float(end))
    return lengths


def _of_ladder(row: ManifestRow) -> tuple[Attribution, ...]:
    if row.extra.get("type") == "clean":
        return ()
    names = ("severity", "start_seconds", "end_seconds")
    return (_attribution({"name": row.extra.get("type")} | {n: row.extra.get(n) for n in names}),)


def _nominal_scores(
    row: ManifestRow, clean_score: float
) -> tuple[dict[Score, float], frozenset[Score]]:
    scores: dict[Score, float] = {}
    unsure: set[Score] = set()
    for name in DIMENSIONS:
        drop = row.extra.get(f"{name}_drop")
        if name == "semantic" and row.prompt is None:
            continue
        if drop is None:
            unsure |= {name, "overall"}
        scores[name] = clean_score - float(drop or 0) / FULL_DROP * (clean_score - MIN_SCORE)
    scores["overall"] = math.fsum(scores.values()) / len(scores)
    return scores, frozenset(unsure)
