"""Rewards of a generated answer, for GRPO: pure functions of parsed answers, and a wrapper for TRL.

All lie within 0-1, the higher the better; None where there is nothing to judge. A completion is
judged against `answer`, the text of a row of `aigveval.data.cot`, which holds the labels; times are
in the unit of that text, and `clip_length` too.

    trainer = GRPOTrainer(..., reward_funcs=trl_rewards(), train_dataset=dataset)

with a dataset out of `aigveval cot --form prompt`. Q-Save's rewards are not public; these are
choices, but for the table of VideoScore2 (arXiv 2509.22799).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prompts import Answer, Defect, check_consistency, parse
from prompts.consistency import claims
from prompts.facts import Fact, named
from prompts.rubric import DIMENSIONS, LEVEL_WEIGHTS, LEVELS, SCORES, Score, nearest_level

Scores = Mapping[Score, float]
# Total error of the integer scores -> reward.
VIDEOSCORE2_TABLE = {0: 1.0, 1: 0.7, 2: 0.4, 3: 0.1}
_PROBLEMS_TO_ZERO = 4  # so many faults of format leave no reward
SHORT_CHARS = 400  # an answer with two defects has about 330
LONG_CHARS = 800
ENOUGH_CLAIMS = 6  # true ones of an answer, two per dimension


def format_reward(answer: Answer) -> float:
    """Whether the text has the form of an answer: 1, less a quarter for each fault.

    Args:
        answer: Read with the `expected_scores`, so that missing lines are found.

    Examples:
        >>> text = "Motion quality: good\\nMotion: smooth.\\nDefects: none\\nScores: - 4.0 - -"
        >>> format_reward(parse(text, expected_scores=["motion"]))
        1.0
        >>> format_reward(parse("Motion: smooth.\\nDefects: none", expected_scores=["motion"]))
        0.5
        >>> format_reward(parse("A fine clip!", expected_scores=["motion"]))
        0.0
    """
    if answer.problem_counts()["no_answer"]:
        return 0.0
    return max(0.0, 1.0 - len(answer.problems) / _PROBLEMS_TO_ZERO)


def table_reward(scores: Scores, labels: Scores) -> float | None:
    """VideoScore2's reward of integer scores, over the dimensions whose label is known.

    A total error of 0, 1, 2, 3 gives 1, 0.7, 0.4, 0.1; nothing if any is off by more than 1, or
    missing. Scores are rounded to levels first; `overall`, which follows from them, is left out.

    Examples:
        >>> labels = {"technical": 2.3, "motion": 4.0, "semantic": 5.0}
        >>> table_reward({"technical": 2.0, "motion": 4.1, "semantic": 4.8}, labels)
        1.0
        >>> table_reward({"technical": 3.0, "motion": 3.0, "semantic": 5.0}, labels)
        0.4
        >>> table_reward({"technical": 4.0, "motion": 4.0, "semantic": 5.0}, labels)
        0.0
    """
    known = [name for name in DIMENSIONS if name in labels]
    if not known:
        return None
    errors = [
        abs(_level(scores[name]) - _level(labels[name])) if name in scores else 5 for name in known
    ]
    return VIDEOSCORE2_TABLE.get(sum(errors), 0.0) if max(errors) <= 1 else 0.0


def _level(score: float) -> int:
    return round(LEVEL_WEIGHTS[LEVELS.index(nearest_level(score))])


def smooth_reward(scores: Scores, labels: Scores, *, width: float = 0.5) -> float | None:
    """Mean over the known labels of 1 / (1 + (error / width)^2); a missing score counts 0.

    It has no steps, and still falls where the error is large, so that completions of one group
    always differ.

    Args:
        scores: Of the completion, 1-5.
        labels: Of the clip, 1-5.
        width: Error in MOS points that halves the reward.

    Examples:
        >>> smooth_reward({"overall": 3.0}, {"overall": 3.0})
        1.0
        >>> smooth_reward({"overall": 3.5, "motion": 2.0}, {"overall": 3.0, "motion": 3.0})
        0.35
        >>> smooth_reward({}, {"overall": 3.0})
        0.0
    """
    if not labels:
        return None
    values = [
        1 / (1 + ((scores[name] - label) / width) ** 2) if name in scores else 0.0
        for name, label in labels.items()
    ]
    return sum(values) / len(values)


def defect_f1(defects: Sequence[Defect] | None, labels: Sequence[Defect] | None) -> float | None:
    """F1 of the names of defects; 1 where there are none and none are named.

    Args:
        defects: Of the completion; None, unread, has no reward.
        labels: Of the clip; None if unknown, which cannot be judged.

    Examples:
        >>> blur, shake = Defect(name="blur", severity=3), Defect(name="shake", severity=1)
        >>> defect_f1([blur, shake], [blur])  # precision 1/2, recall 1
        0.6666666666666666
        >>> defect_f1([], []), defect_f1([], [blur]), defect_f1([blur], [])
        (1.0, 0.0, 0.0)
        >>> defect_f1([blur], None) is None
        True
    """
    if labels is None:
        return None
    if defects is None:
        return 0.0
    named, true = {d.name for d in defects}, {d.name for d in labels}
    return 2 * len(named & true) / (len(named) + len(true)) if named or true else 1.0


def time_iou(
    defects: Sequence[Defect] | None,
    labels: Sequence[Defect] | None,
    *,
    clip_length: float | None = None,
) -> float | None:
    """Intersection over union of the times of each true defect, on average; 0 for one not named.

    Several defects of one name are one set of times. None where no defect is known.

    Args:
        defects: Of the completion.
        labels: Of the clip.
        clip_length: What a defect without a time range lasts; by default up to the last known
            time, or any length where neither side has one.

    Examples:
        >>> def freeze(start, end):
        ...     return Defect(name="freeze", severity=3, start_seconds=start, end_seconds=end)
        >>> time_iou([freeze(1, 3)], [freeze(2, 4)])  # 1 s of 3 s
        0.3333333333333333
        >>> time_iou([Defect(name="freeze", severity=3)], [freeze(0, 2)], clip_length=4)
        0.5
        >>> time_iou([], [freeze(2, 4)]), time_iou([freeze(2, 4)], [])
        (0.0, None)
    """
    if not labels:
        return None
    ends = [d.end_seconds for d in (*(defects or ()), *labels) if d.end_seconds is not None]
    length = clip_length if clip_length is not None else max(ends, default=1.0)
    values = []
    for name in dict.fromkeys(defect.name for defect in labels):
        named = [d.span(length) for d in defects or () if d.name == name]
        values.append(_iou(named, [d.span(length) for d in labels if d.name == name]))
    return sum(values) / len(values)


_Spans = Sequence[tuple[float, float]]


def _iou(first: _Spans, second: _Spans) -> float:
    if not first:
        return 0.0
    marks = sorted({time for span in (*first, *second) for time in span})
    both = either = 0.0
    for start, end in zip(marks, marks[1:]):
        inside = [any(a <= start and end <= b for a, b in spans) for spans in (first, second)]
        both += (end - start) * all(inside)
        either += (end - start) * any(inside)
    if either:
        return both / either
    return len({*first} & {*second}) / len({*first, *second})  # all are moments


def facts_reward(
    answer: Answer, facts: Sequence[Fact], *, seconds_per_unit: float = 1.0
) -> float | None:
    """Whether the sentences rest on facts: true claims earn, and each false one halves.

    A claim is a number, a thing or a place, see `prompts.consistency.claims`; six different true
    ones earn all. None where no fact is known.

    Args:
        answer: Of the completion.
        facts: Of the clip.
        seconds_per_unit: Of the answer's times; those of facts are in seconds.

    Examples:
        >>> speed = Fact(kind="speed", value=0.2, percentile=60)
        >>> cut = Fact(kind="cut", start_seconds=1.2, end_seconds=1.2)
        >>> def of(text):
        ...     return facts_reward(parse(f"Motion: {text}"), [speed, cut])
        >>> of("faster than 60 % of clips, and it cuts once, at 1.2 s.")  # 2 of 6 claims
        0.3333333333333333
        >>> of("faster than 60 % of clips, and it cuts at 2.2 s.")  # one true, one false
        0.08333333333333333
        >>> of("movement is smooth."), facts_reward(parse("Motion: it cuts at 2 s."), [])
        (0.0, None)
    """
    if not facts:
        return None
    timed = answer.scaled(seconds_per_unit).defects or ()
    found = {
        (name, claim.text.lower(), claim.true)
        for name, text in answer.reasoning.items()
        for claim in claims(text, facts, defects=timed)
    }
    right = sum(true for *_, true in found)
    return min(1.0, right / ENOUGH_CLAIMS) * 0.5 ** (len(found) - right)


def consistency_reward(
    answer: Answer, *, facts: Sequence[Fact] = (), seconds_per_unit: float = 1.0
) -> float:
    """Whether the text agrees with itself: halved by each `prompts.check_consistency` finding.

    Where there are facts, what is said of them is left to `facts_reward`.

    Examples:
        >>> text = "Motion quality: good\\nMotion: {}\\nDefects: {}\\nScores: - 4.0 - -"
        >>> consistency_reward(parse(text.format("movement is smooth.", "none")))
        1.0
        >>> consistency_reward(parse(text.format("the camera shakes badly.", "none")))
        0.5
        >>> consistency_reward(parse(text.format("the camera shakes badly.", "shake 5")))
        0.5
        >>> consistency_reward(parse("I like it."))  # says nothing
        0.0
    """
    if not answer.scores and not answer.reasoning and answer.defects is None:
        return 0.0
    found = check_consistency(answer, facts=facts or None, seconds_per_unit=seconds_per_unit)
    return 0.5 ** sum(problem.kind != "text_contradicts_facts" for problem in found)


def length_reward(text: str, *, short: int = SHORT_CHARS, long: int = LONG_CHARS) -> float:
    """1 up to `short` characters, then falling to 0 at `long`; an empty text has 0.

    Examples:
        >>> length_reward("x" * 400), length_reward("x" * 600), length_reward("x" * 900)
        (1.0, 0.5, 0.0)
        >>> length_reward("")
        0.0
    """
    if not text.strip():
        return 0.0
    return min(1.0, max(0.0, (long - len(text)) / (long - short)))


# ---- all of them for one completion, and TRL ----------------------------------------------------

NAMES = ("format", "table", "smooth", "defect_f1", "time_iou", "consistency", "facts", "length")


def rewards(
    completion: str,
    answer: str,
    *,
    clip_length: float | None = None,
    given: str = "",
    finished: bool = True,
    facts: Sequence[Fact] = (),
) -> dict[str, float | None]:
    """All rewards of one completion by name.

    Args:
        completion: What the model wrote.
        answer: The text with the labels; a whole answer has the same lines.
        clip_length: See `time_iou`; also what "beyond the clip" means.
        given: What stands before the completion in the answer, such as levels that the scoring
            pass filled in. It counts for the form, but by itself it earns nothing.
        finished: Whether the model ended its text itself; if not, the last line is ignored.
        facts: Of the clip, if they are known. A text that has them may be as long as the labels'.

    Examples:
        >>> text = "Motion quality: good\\nMotion: smooth.\\nDefects: none\\nScores: - 4.0 - -"
        >>> found = rewards(text, text)
        >>> found["format"], found["smooth"], found["defect_f1"], found["time_iou"]
        (1.0, 1.0, 1.0, None)
        >>> levels, _, rest = text.partition("\\n")
        >>> rewards(rest, text, given=levels + "\\n") == found
        True
    """
    labels = parse(answer)
    expected = [name for name in SCORES if name in labels.scores]
    whole = parse(
        given + completion,
        expected_scores=expected,
        duration_seconds=clip_length,
        finished=finished,
    )
    own = parse(completion, finished=finished)
    scores, silent = own.scores, not (own.scores or own.reasoning or own.defects is not None)
    lasts = next((fact.value for fact in named(facts, "duration")), None)
    unit = lasts / clip_length if lasts and clip_length else 1.0
    short = max(SHORT_CHARS, len(answer) if facts else 0)
    return {
        "format": format_reward(whole),
        "table": table_reward(scores, labels.scores),
        "smooth": smooth_reward(scores, labels.scores),
        "defect_f1": defect_f1(whole.defects, labels.defects),
        "time_iou": time_iou(whole.defects, labels.defects, clip_length=clip_length),
        "consistency": 0.0
        if silent
        else consistency_reward(whole, facts=facts, seconds_per_unit=unit),
        "facts": facts_reward(own, facts, seconds_per_unit=unit),
        "length": length_reward(completion, short=short, long=short + LONG_CHARS - SHORT_CHARS),
    }


RewardFunction = Callable[..., list[float | None]]


def trl_rewards(names: Sequence[str] = NAMES) -> list[RewardFunction]:
    """Functions for `reward_funcs` of TRL's `GRPOTrainer`, one per name, logged under that name.

    Each takes `completions`, texts or chats, and these columns of the data set:

        answer       The text with the labels.
        clip_length  Optional, see `time_iou`.
        given        Optional, see `rewards`.
        finished     Optional, see `rewards`.
        evidence     Optional: the facts of each clip, as of `Fact.to_dict` or as JSON text.

    Raises:
        ValueError: A name is not in `NAMES`.

    Examples:
        >>> (f1,) = trl_rewards(["defect_f1"])
        >>> f1.__name__
        'defect_f1'
        >>> chat = [{"role": "assistant", "content": "Defects: blur 3"}]
        >>> f1(completions=["Defects: none", chat], answer=["Defects: blur 2"] * 2, group=[1, 1])
        [0.0, 1.0]
    """
    if unknown := set(names) - set(NAMES):
        raise ValueError(f"rewards must be among {', '.join(NAMES)}, got {sorted(unknown)}")
    return [_trl_reward(name) for name in names]


def _trl_reward(name: str) -> RewardFunction:
    def reward(
        completions: Sequence[Any],
        answer: Sequence[str],
        clip_length: Sequence[float | None] | None = None,
        given: Sequence[str] | None = None,
        finished: Sequence[bool] | None = None,
        evidence: Sequence[Any] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        count = len(completions)
        rows = zip(
            completions,
            answer,
            clip_length or [None] * count,
            given or [""] * count,
            finished or [True] * count,
            evidence or [None] * count,
        )
        return [
            rewards(
                text_of(completion),
                label,
                clip_length=length,
                given=before,
                finished=ended,
                facts=_facts(found),
            )[name]
            for completion, label, length, before, ended, found in rows
        ]

    reward.__name__ = name
    return reward


def _facts(found: Any) -> list[Fact]:
    given = json.loads(found) if isinstance(found, str) else found
    return [Fact.from_dict(row) for row in given or ()]


def text_of(completion: Any) -> str:
    """The text of a completion, which TRL gives as a text or a chat."""
    if isinstance(completion, str):
        return completion
    return "".join(_content(turn.get("content")) for turn in completion)


def _content(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.get("text") or "" for part in content or ())  # parts, as of VLMs
