"""Reading an answer out of what a model wrote; the form is that of `answer`."""

import re
from collections.abc import Callable, Collection, Mapping

from .answer import (
    DETECTIONS_LABEL,
    FACTS_LABEL,
    MAX_DEFECTS,
    MAX_REASONING_BYTES,
    MAX_SEVERITY,
    Answer,
    Defect,
    Problem,
    ProblemKind,
)
from .defects import DEFECTS
from .rubric import (
    DIMENSIONS,
    LEVEL_WEIGHTS,
    LEVELS,
    MAX_SCORE,
    MIN_SCORE,
    SCORE_LABELS,
    SCORES,
    Dimension,
    Score,
)

MAX_ANSWER_CHARS = 8000  # longer than any valid answer; a model that never ends is cut here
TIME_SLACK_SECONDS = 0.051  # the rounding of a written time
_LATEST = 999_999.9  # seconds that a `Defect` can have

_Add = Callable[[ProblemKind, str], None]
_FLAGS = re.IGNORECASE | re.ASCII  # without ASCII a dotless i would pass as an i
_NUMBER = r"([0-9]{1,6}(?:\.[0-9]{1,6})?)"
_DEFECT = re.compile(rf"([a-z][a-z_ ]*) ([0-9]{{1,6}})(?: {_NUMBER}-{_NUMBER})?", _FLAGS)
_LEVEL = re.compile("|".join(LEVELS), _FLAGS)
_SCORES = re.compile(" ".join([rf"(?:{_NUMBER}|-)"] * len(SCORES)))


def parse(
    text: str,
    *,
    expected_scores: Collection[Score] = (),
    duration_seconds: float | None = None,
    finished: bool = True,
) -> Answer:
    """Read an answer from a model's text. Never raises: what can't be read becomes a problem.

    A part that has a problem is left out of the answer, so that nothing wrong is ever shown. Where
    the line `Scores` is absent, a level word counts as its number.

    Args:
        text: What the model wrote, special tokens removed.
        expected_scores: If given, the text must be a whole answer: these scores, the reasoning of
            their dimensions and a line of defects; what's absent is a `missing_line` problem.
        duration_seconds: Length of the clip, in the unit of the text's times; a defect that ends
            after it is a problem.
        finished: Whether the model ended its text itself. If not, the last line is cut somewhere
            and doesn't count.
    """
    problems: list[Problem] = []

    def add(kind: ProblemKind, detail: str) -> None:
        problems.append(Problem(kind=kind, detail=detail[:80]))

    if len(text) > MAX_ANSWER_CHARS:
        add("too_long", f"{len(text)} characters")
        text, finished = text[:MAX_ANSWER_CHARS], False
    if not finished:
        text, _, rest = text.rpartition("\n")
        add("unfinished", rest)
    found: dict[str, str] = {}
    labels = (*SCORE_LABELS.values(), DETECTIONS_LABEL, FACTS_LABEL)
    known = {*map(str.lower, labels), *DIMENSIONS, "defects", "scores"}
    for line in filter(None, (" ".join(part.split()) for part in text.split("\n"))):
        label, _, rest = line.partition(":")
        label, rest = label.strip().lower(), rest.strip()
        if not rest or label not in known:
            add("unexpected_line", line)
        elif label in found:
            add("repeated_line", line)
        else:
            found[label] = rest
    reasoning: dict[Dimension, str] = {}
    for name in DIMENSIONS:
        if len(found.get(name, "").encode("utf-8", "replace")) > MAX_REASONING_BYTES:
            add("too_long", found[name])
        elif name in found:
            reasoning[name] = found[name]
    scores = _read_scores(found, add)
    defects = None
    if "defects" in found:
        defects = read_defects(found["defects"], problems, duration_seconds=duration_seconds)
    if expected_scores and not (scores or reasoning or defects is not None):
        add("no_answer", text)
    elif expected_scores:
        wanted = {SCORE_LABELS[name].lower() for name in expected_scores} | {"defects", "scores"}
        wanted |= set(DIMENSIONS).intersection(expected_scores)
        for label in sorted(wanted - set(found)):
            add("missing_line", label)
    return Answer(scores=scores, defects=defects, reasoning=reasoning, problems=tuple(problems))


def _read_scores(found: Mapping[str, str], add: _Add) -> dict[Score, float]:
    scores: dict[Score, float] = {}
    for name, label in SCORE_LABELS.items():
        word = found.get(label.lower())
        if word is not None and _LEVEL.fullmatch(word):
            scores[name] = LEVEL_WEIGHTS[LEVELS.index(word.lower())]
        elif word is not None:
            add("malformed_score", word)
    if "scores" not in found:
        return scores
    match = _SCORES.fullmatch(found["scores"])
    if not match:
        add("malformed_score", found["scores"])
        return scores
    for name, number in zip(SCORES, match.groups()):
        if number is None:
            continue
        score = float(number)
        level = scores.pop(name, score)
        if not MIN_SCORE <= score <= MAX_SCORE:
            add("score_out_of_range", f"{name} {number}")
        elif abs(level - score) > 1:  # the word beside the nearest is no contradiction yet
            add("level_contradicts_score", f"{name} {number}")
        else:
            scores[name] = score
    return scores


def read_defects(
    text: str, problems: list[Problem], *, duration_seconds: float | None = None
) -> tuple[Defect, ...] | None:
    """Read `render_defects`' line; None where nothing of it can be read.

    Args:
        text: The line without its label.
        problems: What's wrong is appended here.
        duration_seconds: See `parse`.
    """
    if text.lower() == "none":
        return ()
    limit = _LATEST
    if duration_seconds is not None:
        limit = min(limit, duration_seconds + TIME_SLACK_SECONDS)
    defects: dict[Defect, None] = {}
    for item in map(str.strip, text.split(";")):
        kind: ProblemKind | None = None
        match = _DEFECT.fullmatch(item)
        if not match:
            problems.append(Problem(kind="malformed_defect", detail=item[:80]))
            continue
        name, severity = match[1].lower().replace(" ", "_"), int(match[2])
        start, end = (None if time is None else float(time) for time in match.group(3, 4))
        if name not in DEFECTS:
            kind = "unknown_defect"
        elif not 1 <= severity <= MAX_SEVERITY:
            kind = "severity_out_of_range"
        elif start is not None and end is not None and start > end:
            kind = "times_reversed"
        elif end is not None and end > limit:
            kind = "time_beyond_clip"
        elif len(defects) == MAX_DEFECTS:
            kind = "too_long"
        else:
            defect = Defect(name=name, severity=severity, start_seconds=start, end_seconds=end)
            kind = "repeated_defect" if defect in defects else None
            defects[defect] = None
        if kind:
            problems.append(Problem(kind=kind, detail=item[:80]))
    return tuple(defects) or None  # nothing readable is not the same as no defects
