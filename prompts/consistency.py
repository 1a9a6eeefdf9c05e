"""Whether an answer contradicts itself, the scores it was written for, or the clip's facts.

Text is understood by words only: those of a defect (`mentioned`), praise and complaint (`tone`).
They cover all of `phrasings` and `defects`, and what a model makes of these; of other text they
may see nothing. What a text claims of the clip is compared with facts, clause by clause:

    >>> dog = Fact(
    ...     kind="seen",
    ...     name="dog",
    ...     confidence=0.9,
    ...     start_seconds=0.5,
    ...     end_seconds=2.0,
    ...     at_seconds=1.0,
    ...     box=(0.1, 0.4, 0.3, 0.6),
    ... )
    >>> [(c.text, c.true) for c in claims("A dog on the left, 90 % sure, from 0.5 to 3 s.", [dog])]
    [('dog', True), ('on the left', True), ('90', True), ('0.5', False), ('3', False)]

A number or a thing that no fact knows is false, as an explanation has nothing else to rest on.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from .answer import MAX_SEVERITY, Answer, Defect, Problem, ProblemKind, render_defects
from .defects import DEFECTS
from .facts import SHARES, Fact, named, softer, where
from .objects import NUMBERS, class_of, comes_in_pairs, plural_of, things_in
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
        if loops(text):
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


def contradicts(sentence: str, facts: Sequence[Fact], *, defects: Sequence[Defect] = ()) -> bool:
    """Whether a sentence has a claim that no fact stands behind; see `claims`."""
    return not all(claim.true for claim in claims(sentence, facts, defects=defects))


def loops(text: str) -> bool:
    """Whether some words come again and again, as from a model that doesn't end."""
    words = text.lower().split()
    for length in range(1, _LOOP_WORDS + 1):
        same = 0  # words that equal the one `length` before
        for first, second in zip(words, words[length:]):
            same = same + 1 if first == second else 0
            if same >= length * (_LOOP_TIMES - 1):
                return True
    return False


# ---- claims -------------------------------------------------------------------------------------

_PRESENT = frozenset("seen asked_seen count doubled vanishes appears changes".split())
_SHARPNESS = ("sharpness", "sharpest", "softest")
_SPEED = ("speed", "busiest", "calmest")

# What a clause speaks of, by its words: its numbers are of facts of these kinds, or of its thing's.
_TOPICS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"sharp\w*|soft\w*|blur\w*|crisp\w*|detail\w*|focus", _SHARPNESS),
    (r"grain\w*|nois\w+|clean\w*", ("grain",)),
    (r"bright\w*|dark\w*|burnt|black|exposed|light", ("brightness", *SHARES)),
    (r"contrast\w*|tone|flatter", ("contrast",)),
    (r"tint\w*|cast|gr[ae]ys?", ("cast",)),
    (r"fast\w*|slow\w*|mov\w+|pace|motion|speed|calm\w*|bus(y|ier|iest)|most at|least at", _SPEED),
    (r"shak\w+|stead\w+|unsteady", ("shake",)),
    (r"flicker\w*|puls\w+", ("flicker",)),
    (r"fr[eo]ez\w*|froze\w*|still", ("freeze",)),
    (r"cuts?", ("cut",)),
    (r"lasts?|long|duration", ("duration",)),
)
_TOPIC_OF = [(re.compile(rf"\b({words})\b", re.IGNORECASE), kinds) for words, kinds in _TOPICS]
# On which side of the reference clips a percentage stands: 1 for those that have less.
_SIDES = tuple(
    (re.compile(words, re.IGNORECASE), kind, sign)
    for words, kind, sign in (
        (r"\bless sharp than|\b(softer|blurrier) than", "sharpness", -1),
        (r"\b(sharper|crisper) than", "sharpness", 1),
        (r"\b(slower|calmer) than|\bmoves less than", "speed", -1),
        (r"\b(faster|busier|livelier) than|\bmoves more than", "speed", 1),
        (r"\bdarker than", "brightness", -1),
        (r"\bbrighter than", "brightness", 1),
        (r"\b(flatter( in tone)?|less contrast|poorer in contrast) than", "contrast", -1),
        (r"\b(richer in contrast|more contrast) than", "contrast", 1),
        (r"\bsteadier than", "shake", -1),
        (r"\b(less steady|shakier) than|\bshakes?\b.*\bmore than", "shake", 1),
        (r"\bless grainy than|\bless noisy than", "grain", -1),
        (r"\b(grainier|noisier) than", "grain", 1),
    )
)
_NUMBER = r"\d+(?:\.\d+)?"
_NUMBERS = re.compile(rf"(?<![\w.]){_NUMBER}(?!\w|\.\d)")
_TIMES = re.compile(
    rf"(?<![\w.]){_NUMBER}(?:\s*(?:-|–|,|to|and|or)\s*{_NUMBER})*(?=\s*(?:s|sec|seconds?)\b)"
)
_RANGES = tuple(
    re.compile(rf"{words}(?=\s*(?:s|sec|seconds?)\b)")
    for words in (
        rf"(?<![\w.])(?P<start>{_NUMBER})\s*(?:-|–|to)\s*(?P<end>{_NUMBER})",
        rf"\bbetween (?P<start>{_NUMBER}) and (?P<end>{_NUMBER})",
    )
)
# Behind such words stands when it is so.
_EXTREMES = tuple(
    (re.compile(rf"\b({words})\b", re.IGNORECASE), kind)
    for words, kind in (
        ("softest", "softest"),
        ("sharpest", "sharpest"),
        ("busiest|fastest|most", "busiest"),
        ("calmest|slowest|least", "calmest"),
    )
)
_NEAR = re.compile(
    rf"\W*(?:(?:at|from|between|and|to|about|around)\W+|{_NUMBER}\W+)*", re.IGNORECASE
)
_PERCENT = re.compile(r"\s*(?:%|per ?cent\b)")
_PLACES = re.compile(
    r"\b(?:on|to|at|in) the (?:(?P<down>top|bottom|upper|lower)(?:[ -](?P<corner>left|right))?"
    r"|(?P<across>left|right)|(?P<middle>middle|centre|center))\b",
    re.IGNORECASE,
)
_ABSENT = re.compile(
    r"\b(no|(?<!from )(?<!out of )nowhere|missing|absent|lacks?|lacking|without an?"
    r"|never (seen|shown|appears)|not (to be )?(seen|visible|shown|there|found)"
    r"|(isn't|aren't) (seen|visible|shown|there))\b",
    re.IGNORECASE,
)
_UNKNOWN = re.compile(r"\b(judged?|can't tell|cannot tell|not known|unknown)\b", re.IGNORECASE)
_ASKED = re.compile(r"\b(prompt\w*|asked|wanted|requested)\b", re.IGNORECASE)
_SHOWN = re.compile(r"\b(seen|shown|visible|recogni[sz]ed)\b", re.IGNORECASE)
_EVENTS = (
    (re.compile(r"\b(vanish\w*|disappear\w*|gone)\b", re.IGNORECASE), "vanishes"),
    (re.compile(r"\b(appears?(?! to)|out of nowhere|from nowhere)\b", re.IGNORECASE), "appears"),
    (re.compile(r"\b(turns? into|morphs?|becomes?)\b", re.IGNORECASE), "changes"),
)
_CLAUSES = re.compile(r",?\s\b(?:but|while|whereas)\b\s", re.IGNORECASE)
_SENTENCES = re.compile(r"(?<=[.!?;])\s+")
_ONE_IN_WORDS = re.compile(  # without ASCII a dotless i would pass as an i
    rf"\b({'|'.join(NUMBERS)})\W+(?:[a-z]+\W+)?$", re.IGNORECASE | re.ASCII
)
_ONE_IN_DIGITS = re.compile(r"(?<![\w.])(\d+)\W+(?:[a-z]+\W+)?$", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Something that a sentence says and that facts can tell.

    Attributes:
        kind: A `number`, with its unit or without, a `thing` (that it's there, or not, or what
            becomes of it), or its `place`.
        text: As it stands in the sentence.
        true: Whether a fact stands behind it.
    """

    kind: Literal["number", "thing", "place"]
    text: str
    true: bool


def claims(
    text: str, facts: Sequence[Fact], *, defects: Sequence[Defect] = ()
) -> tuple[Claim, ...]:
    """What a text says, and whether it's true.

    A number has to be a fact's as precisely as it's written; a time one of its times (both of a
    range of one fact), a percentage its share of reference clips (on the side that the words say),
    its certainty or its share of the picture, and any other a count. The fact is one of the thing
    that's named before the number (after it, if none is), or of what the clause speaks of, such as
    sharpness.

    Args:
        text: One or more sentences.
        facts: Of the clip.
        defects: What the answer lists besides; sentences may give their times, too.
    """
    found: list[Claim] = []
    for sentence in sentences_of(text):
        for clause in _CLAUSES.split(sentence):
            found += _Clause(clause, facts, defects).claims()
    return tuple(found)


def sentences_of(text: str) -> list[str]:
    """A text's sentences, each with its end."""
    return [part for part in _SENTENCES.split(text.strip()) if part]


@dataclass(frozen=True)
class _Mention:
    """A thing in a clause."""

    start: int
    end: int
    text: str
    facts: tuple[Fact, ...]


class _Clause:
    """One clause, and the facts that it may speak of."""

    def __init__(self, text: str, facts: Sequence[Fact], defects: Sequence[Defect]) -> None:
        self.text, self.facts, self.defects = text, facts, defects
        self.mentions = sorted(self._mentions(), key=lambda mention: mention.start)
        kinds = {kind for words, own in _TOPIC_OF if words.search(text) for kind in own}
        self.topical = [fact for fact in facts if fact.kind in kinds]

    def claims(self) -> list[Claim]:
        found = [*self._things(), *self._places(), *self._numbers()]
        return [claim for _, claim in sorted(found, key=lambda pair: pair[0])]

    def _mentions(self) -> Iterator[_Mention]:
        taken: list[tuple[int, int]] = []
        names = {name for fact in self.facts for name in (fact.name, fact.other) if name}
        words = sorted({*names, *map(plural_of, names)}, key=len, reverse=True)
        if words:
            pattern = rf"\b({'|'.join(map(re.escape, words))})\b"
            for match in re.finditer(pattern, self.text, re.IGNORECASE):
                taken.append(match.span())
                yield _Mention(*match.span(), match[0], self._about(match[0].lower()))
        for start, end in things_in(self.text):
            if not any(start < right and left < end for left, right in taken):
                word = self.text[start:end]
                yield _Mention(start, end, word, self._about(word.lower()))

    def _about(self, word: str) -> tuple[Fact, ...]:
        """The facts about a thing, or about others of its class."""
        own = class_of(word) or word

        def same(name: str | None) -> bool:
            return name is not None and (
                word in (name, plural_of(name)) or own in (name, class_of(name))
            )

        return tuple(fact for fact in self.facts if same(fact.name) or same(fact.other))

    # -- things

    def _things(self) -> Iterator[tuple[int, Claim]]:
        for mention in self.mentions:
            claim = Claim(kind="thing", text=mention.text, true=self._is_true(mention))
            yield mention.start, claim

    def _is_true(self, mention: _Mention) -> bool:
        kinds = {fact.kind for fact in mention.facts}
        if _UNKNOWN.search(self.text):
            return "asked_not_judged" in kinds
        if _ABSENT.search(self.text):
            return "asked_not_seen" in kinds
        for words, kind in _EVENTS:
            if words.search(self.text):
                # of what morphs nobody knows the name
                morphs = kind == "changes" and bool(named(self.facts, "morphs"))
                return kind in kinds or (morphs and bool(kinds))
        if _ASKED.search(self.text) and not _SHOWN.search(self.text):
            return bool(kinds)
        return bool(kinds & _PRESENT)

    # -- places

    def _places(self) -> Iterator[tuple[int, Claim]]:
        for match in _PLACES.finditer(self.text):
            mention = self._bound(match.start())
            facts = self.facts if mention is None else mention.facts
            said = {_PLACE_WORDS.get(word.lower(), word.lower()) for word in match.groups() if word}
            true = any(said <= set(where(fact.box).split()) for fact in facts if fact.box)
            yield match.start(), Claim(kind="place", text=match[0], true=true)

    def _bound(self, place: int) -> _Mention | None:
        """The thing that something at this place in the clause is about: the last one before it."""
        before = [mention for mention in self.mentions if mention.start < place]
        return before[-1] if before else next(iter(self.mentions), None)

    # -- numbers

    def _numbers(self) -> Iterator[tuple[int, Claim]]:
        times = {
            match.start() + number.start()
            for match in _TIMES.finditer(self.text)
            for number in _NUMBERS.finditer(match[0])
        }
        ranges = {
            match.start(part): (match["start"], match["end"])
            for words in _RANGES
            for match in words.finditer(self.text)
            for part in ("start", "end")
        }
        counted = set()
        for mention in self.mentions:  # "two dogs", "2 small dogs"
            before = self.text[: mention.start]
            for match in (_ONE_IN_WORDS.search(before), _ONE_IN_DIGITS.search(before)):
                if match is None or match.start(1) in times:
                    continue
                if match[1].lower() == "pair" and comes_in_pairs(mention.text):
                    continue
                written = str(NUMBERS.get(match[1].lower(), match[1]))
                true = _is_among(written, _counts(mention.facts))
                counted.add(match.start(1))
                yield match.start(1), Claim(kind="number", text=match[1], true=true)
        last = 0
        for match in _NUMBERS.finditer(self.text):
            place, written = match.start(), match[0]
            if place in counted:
                continue
            scope = self._scope(place)
            if place in ranges:
                true = self._is_range(ranges[place], scope)
            elif place in times:
                known = [time for span in self._spans(scope) for time in span]
                known += [f.value for f in named(scope, "freeze", "duration") if f.value]
                true = _is_among(written, known)
            elif _PERCENT.match(self.text, match.end()):
                side = self._side(self.text[last:place])
                true = _is_among(written, _percentages(scope) if side is None else side)
                last = match.end()
            else:
                true = _is_among(written, _counts(scope))
            yield place, Claim(kind="number", text=written, true=true)

    def _scope(self, place: int) -> Sequence[Fact]:
        """The facts that a number can be of."""
        said = [
            (match.end(), kind)
            for words, kind in _EXTREMES
            for match in words.finditer(self.text, 0, place)
        ]
        mention = self._bound(place)
        found = [*(mention.facts if mention else ()), *self.topical]
        if said and _NEAR.fullmatch(self.text, max(said)[0], place):
            return named(found, max(said)[1])
        return found if mention or self.topical else self.facts

    def _spans(self, facts: Sequence[Fact]) -> list[tuple[float, float]]:
        """When the facts are, and the defects that are listed."""
        ones: list[Fact | Defect] = [*facts, *self.defects]
        return [
            (one.start_seconds, one.end_seconds)
            for one in ones
            if one.start_seconds is not None and one.end_seconds is not None
        ]

    def _is_range(self, written: tuple[str, str], facts: Sequence[Fact]) -> bool:
        return any(
            _is_among(written[0], [start]) and _is_among(written[1], [end])
            for start, end in self._spans(facts)
        )

    def _side(self, before: str) -> list[float] | None:
        """What a percentage has to be behind words such as `sharper than`; None without these."""
        for words, kind, sign in _SIDES:
            if words.search(before):
                shares = [f.percentile for f in named(self.facts, kind) if f.percentile is not None]
                return [share if sign > 0 else 100 - share for share in shares]
        return None


_PLACE_WORDS = {"upper": "top", "lower": "bottom", "centre": "middle", "center": "middle"}


def _is_among(written: str, known: Collection[float]) -> bool:
    """Whether a number is one of those that are known, as precisely as it's written."""
    decimals = len(written.partition(".")[2])
    return any(abs(float(written) - value) <= 0.5 * 10**-decimals + 1e-6 for value in known)


def _percentages(facts: Sequence[Fact]) -> list[float]:
    found = [100 * fact.confidence for fact in facts if fact.confidence is not None]
    found += [fact.value for fact in named(facts, *SHARES) if fact.value is not None]
    for share in (fact.percentile for fact in facts if fact.percentile is not None):
        found += [share, 100 - share]
    less = softer(facts)
    return found if less is None else [*found, less]


def _counts(facts: Sequence[Fact]) -> list[float]:
    counted = named(facts, "seen", "asked_seen", "count", "doubled")
    found = [n for fact in counted for n in (fact.value, fact.expected) if n is not None]
    kinds = [fact.kind for fact in facts]
    return found + [float(kinds.count(kind)) for kind in ("cut", "freeze", "vanishes", "appears")]
