"""Whether an answer contradicts itself, the scores it was written for, or the clip.

Text is understood by words only: those of a defect (`mentioned`), praise and complaint (`tone`).
They cover all of `phrasings` and `defects`, and what a model makes of these; of other text they
may see nothing.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from .answer import MAX_SEVERITY, Answer, Defect, Problem, ProblemKind, render_defects
from .defects import DEFECTS
from .facts import Fact
from .grounding import claims, sentences_of
from .parsing import TIME_SLACK_SECONDS
from .rubric import MAX_SCORE, MIN_SCORE, Dimension, Score

Tone = Literal["praise", "mixed", "complaint"]

MAX_SLOT_DIFFERENCE = 0.5  # between a score of the text and that of its slot
DROP_PER_SEVERITY = 0.75  # MOS points, as in the distortion ladder
_PRAISE_FROM, _COMPLAINT_TO = 2.5, 3.5  # scores that agree with a praise and with a complaint
_LOOP_WORDS, _LOOP_TIMES = 8, 4  # up to so many words, so many times in a row, are a loop

_CUE_OF = {name: re.compile(rf"\b({kind.cues})\b", re.IGNORECASE) for name, kind in DEFECTS.items()}

# The first that is found decides: "hardly follows" and "poorly" are no praise.
_TONES: tuple[tuple[Tone, str], ...] = (
    (
        "complaint",
        r"weak|low|short|cheap|disappoint\w*|unusable|broken|ruin\w*|wreck|fails?|poor\w*"
        r"|bad\w*|hardly|little|ignor\w*|nothing|none|not|barely|strays",
    ),
    ("mixed", r"passable|acceptable|middling|average|so-so|ordinary|in part|half\w*|loose"),
    (
        "praise",
        r"sharp\w*|crisp|clean|flawless\w*|pristine|well|good|solid|fine|smooth\w*|fluid"
        r"|even(ly)?|natural|steady|sound|without a hitch|all that|everything|whole|as asked"
        r"|to the letter|exactly|fits?|met|close|follow\w*|most|excellent\w*|perfect\w*",
    ),
)
_TONE_OF = [(tone, re.compile(rf"\b({words})\b", re.IGNORECASE)) for tone, words in _TONES]


def mentioned(text: str, dimension: Dimension) -> set[str]:
    """Names of the dimension's defects that a reasoning speaks of."""
    return {
        name
        for name, kind in DEFECTS.items()
        if kind.dimension == dimension and _CUE_OF[name].search(text)
    }


def tone(text: str) -> Tone | None:
    """Whether a reasoning praises or complains; None where no known word is found."""
    return next((tone for tone, words in _TONE_OF if words.search(text)), None)


def highest_score(severity: int) -> float:
    """The best score, 1-5, that a dimension can have with a defect of this severity.

    One step of severity above what the ladder's nominal drop leaves of an excellent clip.
    """
    return MAX_SCORE - DROP_PER_SEVERITY * (severity - 1)


def highest_severity(score: float) -> int:
    """The gravest defect, 1-5, that a dimension with this score can have: see `highest_score`."""
    fits = [n for n in range(1, MAX_SEVERITY + 1) if score <= highest_score(n)]
    return max(fits, default=1)


def check_consistency(
    answer: Answer,
    *,
    duration_seconds: float | None = None,
    slot_scores: Mapping[Score, float] | None = None,
    facts: Sequence[Fact] | None = None,
    seconds_per_unit: float = 1.0,
) -> tuple[Problem, ...]:
    """What makes an answer untrustworthy although it can be read.

    - `time_beyond_clip`: a defect ends after the clip.
    - `score_contradicts_slot`: a score is more than 0.5 away from its slot's.
    - `defect_contradicts_score`: a severe defect in a dimension with a high score.
    - `text_contradicts_score`: a reasoning praises below 2.5, or complains above 3.5.
    - `text_contradicts_defects`: a reasoning speaks of a defect that isn't listed.
    - `repeats_itself`: the same words four times in a row.
    - `text_contradicts_facts`: a sentence with a claim that no fact stands behind. One whose claims
      are all true is not compared with scores and defects: it says what was measured.

    Args:
        answer: As `parsing.parse` gives it; its own `problems` aren't repeated.
        duration_seconds: Length of the clip, in the unit of the answer's times.
        slot_scores: What the scoring pass says; those of names that the answer lacks are ignored.
        facts: Of the clip, with times in seconds; None where they're unknown.
        seconds_per_unit: Of the answer's times.
    """
    problems: list[Problem] = []

    def add(kind: ProblemKind, detail: str) -> None:
        problems.append(Problem(kind=kind, detail=detail[:80]))

    for name, score in answer.scores.items():
        slot = (slot_scores or {}).get(name, score)
        if abs(score - slot) > MAX_SLOT_DIFFERENCE + 1e-9:
            add("score_contradicts_slot", f"{name} {score:.2f}, slot {slot:.2f}")
    for defect in answer.defects or ():
        end, text = defect.end_seconds or 0, render_defects([defect])
        if duration_seconds is not None and end > duration_seconds + TIME_SLACK_SECONDS:
            add("time_beyond_clip", text)
        score = answer.scores.get(defect.dimension, MIN_SCORE)
        if score > highest_score(defect.severity):
            add("defect_contradicts_score", f"{text}, {defect.dimension} {score:.2f}")
    timed = () if facts is None else answer.scaled(seconds_per_unit).defects or ()
    for dimension, text in answer.reasoning.items():
        if _loops(text):
            add("repeats_itself", text)
        if facts is not None:
            text = _ungrounded(text, facts, timed, add)
        listed = {d.name for d in answer.defects or () if d.dimension == dimension}
        named = mentioned(text, dimension)
        if answer.defects is not None and named - listed:
            add("text_contradicts_defects", f"{', '.join(sorted(named - listed))}: {text}")
        if named or listed or dimension not in answer.scores:
            continue  # the severity of the defects is compared with the score above
        mood, score = tone(text), answer.scores[dimension]
        if (
            mood == "praise"
            and score < _PRAISE_FROM
            or (mood == "complaint" and score >= _COMPLAINT_TO)
        ):
            add("text_contradicts_score", f"{dimension} {score:.2f}: {text}")
    return tuple(problems)


def _ungrounded(
    text: str,
    facts: Sequence[Fact],
    defects: Sequence[Defect],
    add: Callable[[ProblemKind, str], None],
) -> str:
    """The sentences that claim nothing; those that claim what isn't so become problems."""
    rest = []
    for sentence in sentences_of(text):
        found = claims(sentence, facts, defects=defects)
        if not found:
            rest.append(sentence)
        elif not all(claim.true for claim in found):
            add("text_contradicts_facts", sentence)
    return " ".join(rest)


def _loops(text: str) -> bool:
    """Whether some words come again and again, as from a model that doesn't end."""
    words = text.lower().split()
    for length in range(1, _LOOP_WORDS + 1):
        same = 0  # words that equal the one `length` before
        for first, second in zip(words, words[length:]):
            same = same + 1 if first == second else 0
            if same >= length * (_LOOP_TIMES - 1):
                return True
    return False
