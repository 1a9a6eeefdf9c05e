"""Facts about a clip: what was seen, when, where and how surely; what explanations are built on.

A fact is one thing that was measured, in a form that a person and a program can both check. Rules
that can be read go from facts to defects (`defects_of`): they miss many, and are seldom wrong. What
a model names has to agree with the facts (`confirmed`). `examples/train_lite/evidence.py` measures
the rules on composites of known truth, `examples/train_lite/attribution.py --facts` what is left of
a model's defects.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any

from .answer import FACTS_LABEL, Defect
from .objects import asks_for_action, asks_for_change, asks_for_colours, asks_for_cuts, is_dim
from .rubric import Dimension

Box = tuple[float, float, float, float]

# What a fact is about, the dimension that it speaks of, and what `value` is.
KINDS: Mapping[str, tuple[Dimension, str]] = MappingProxyType(
    {
        "seen": ("semantic", "most at once"),
        "asked_seen": ("semantic", "most at once"),
        "asked_not_seen": ("semantic", "none"),
        "asked_not_judged": ("semantic", "none"),
        "count": ("semantic", "how many are seen, against `expected` of the prompt"),
        "doubled": ("semantic", "how many are seen, where the prompt asks for one"),
        "vanishes": ("motion", "none"),
        "appears": ("motion", "none"),
        "changes": ("motion", "none"),
        "morphs": ("motion", "how unlike before and after are, beyond what's usual there, 0-1"),
        "cut": ("motion", "none"),
        "freeze": ("motion", "seconds"),
        "speed": ("motion", "short sides of the frame a second, of the fastest tenth of it"),
        "busiest": ("motion", "as `speed`"),
        "calmest": ("motion", "as `speed`"),
        "flicker": ("motion", "change of brightness's change between samples, 0-100"),
        "shake": ("motion", "hundredths of the short side from one sample to the next"),
        "duration": ("technical", "seconds"),
        "sharpness": ("technical", "contrast of fine detail where it is highest, in gray levels"),
        "sharpest": ("technical", "as `sharpness`"),
        "softest": ("technical", "as `sharpness`"),
        "grain": ("technical", "contrast of fine detail where it is lowest, in gray levels"),
        "whites": ("technical", "share that is burnt out, 0-100; not a white ground"),
        "blacks": ("technical", "share of the picture that is black, 0-100"),
        "cast": ("technical", "the strongest colour's mean less the weakest's, 0-100"),
        "brightness": ("technical", "mean, 0-100"),
        "contrast": ("technical", "standard deviation of brightness, 0-100"),
    }
)


SHARES = ("whites", "blacks")  # kinds whose values are per cent of the picture


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One thing that was measured in a clip.

    Attributes:
        kind: One of `KINDS`.
        name: The thing that it is about: a class of the detector, or the prompt's word.
        other: Of `changes`, what it becomes.
        value: What was measured; `KINDS` says in what unit.
        expected: What the prompt asks for, in the same unit.
        percentile: Share of reference clips, 0-100, that have a lower value.
        confidence: Of the detector, 0-1.
        start_seconds, end_seconds: When; both None for the whole clip.
        at_seconds: When the frame is shown that `box` lies in; both or neither are given.
        box: Where: left, top, right, bottom, each as a share of the frame's width or height.

    Raises:
        ValueError: A field is out of its range; the message names it.
    """

    kind: str
    name: str | None = None
    other: str | None = None
    value: float | None = None
    expected: float | None = None
    percentile: float | None = None
    confidence: float | None = None
    start_seconds: float | None = None
    end_seconds: float | None = None
    at_seconds: float | None = None
    box: Box | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        for name in ("name", "other"):
            text = getattr(self, name)
            if text is not None and (not isinstance(text, str) or not text.strip()):
                raise ValueError(f"{name} must be words or None, got {text!r}")
        limits = {"percentile": 100.0, "confidence": 1.0}
        for name in ("value", "expected", *limits, "start_seconds", "end_seconds", "at_seconds"):
            _check(name, getattr(self, name), limits.get(name, math.inf))
        start, end = self.start_seconds, self.end_seconds
        if (start is None) != (end is None) or (start is not None and start > (end or 0)):
            raise ValueError(f"start_seconds and end_seconds must be a range, got {start}..{end}")
        if (self.box is None) != (self.at_seconds is None):
            raise ValueError("box and at_seconds must be both given or both None")
        if self.box is not None:
            if len(self.box) != 4:
                raise ValueError(f"box must have four edges, got {self.box}")
            for edge in self.box:
                _check("box", edge, 1.0)
            left, top, right, bottom = self.box
            if left >= right or top >= bottom:
                raise ValueError(f"box must be left, top, right, bottom, got {self.box}")

    @property
    def dimension(self) -> Dimension:
        """The dimension that it speaks of."""
        return KINDS[self.kind][0]

    def to_dict(self) -> dict[str, Any]:
        """Gives the fields under `FACT_FIELDS`, for `json.dumps`."""
        row = {name: getattr(self, name) for name in FACT_FIELDS}
        return row | {"box": None if self.box is None else list(self.box)}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> "Fact":
        """Inverse of `to_dict`.

        Raises:
            ValueError: A field is unknown or out of its range.
        """
        values = {name: value for name, value in row.items() if name != "dimension"}
        try:
            if values.get("box") is not None:
                values["box"] = tuple(values["box"])
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"a fact of another form: {error}") from None


FACT_FIELDS = ("kind", "dimension", *(f.name for f in fields(Fact) if f.name != "kind"))


def where(box: Box) -> str:
    """A box in words: `on the left`, `in the middle`, `at the top right`."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    across = "left" if x < 0.36 else "right" if x > 0.64 else ""
    down = "top" if y < 0.3 else "bottom" if y > 0.7 else ""
    if not across and not down:
        return "in the middle"
    if not down:
        return f"on the {across}"
    return f"at the {down} {across}".rstrip()


def named(facts: Sequence[Fact], *kinds: str) -> list[Fact]:
    """The facts of some kinds, in their order."""
    return [fact for fact in facts if fact.kind in kinds]


def render_facts(facts: Sequence[Fact]) -> str:
    """Facts in one line, as an LLM is given them before it explains: `Facts: dog seen ...; ...`.

    It has the numbers that sentences are checked by; of most measurements these are not the raw
    values, but the shares of reference clips that have less.
    """
    lines = [_in_words(fact) for fact in facts]
    if (less := softer(facts)) is not None:
        lines.append(f"softest {less:.0f} % below the sharpest")
    return f"{FACTS_LABEL}: {'; '.join(lines) or 'none'}"


def softer(facts: Sequence[Fact]) -> float | None:
    """How far the softest stretch lies below the sharpest, in per cent."""
    soft, crisp = named(facts, "softest"), named(facts, "sharpest")
    if not soft or not crisp or soft[0].value is None or not crisp[0].value:
        return None
    return 100 * (1 - soft[0].value / crisp[0].value)


def is_evenly_sharp(facts: Sequence[Fact]) -> bool:
    """Whether no stretch is much softer than the sharpest."""
    less = softer(facts)
    return less is not None and round(less) < 10


def is_evenly_paced(facts: Sequence[Fact]) -> bool:
    """Whether no stretch moves much more than the calmest."""
    busy, calm = (next(iter(named(facts, kind)), None) for kind in ("busiest", "calmest"))
    if busy is None or calm is None or busy.value is None or calm.value is None:
        return False
    still = any(fact.percentile == 0 for fact in named(facts, "speed"))
    return still or busy.value <= 1.5 * calm.value


def _in_words(fact: Fact) -> str:
    what = {
        "asked_seen": "{name} asked and seen",
        "asked_not_seen": "{name} asked and not seen",
        "asked_not_judged": "{name} asked and can't be judged",
        "seen": "{name} seen",
        "count": "{expected:.0f} {name} asked",
        "doubled": "{expected:.0f} {name} asked",
        "changes": "{name} turns into {other}",
        "morphs": "something turns into something else",
        "vanishes": "{name} vanishes",
        "appears": "{name} appears",
        "duration": "lasts {value:.1f} s",
        "whites": "{value:.0f} % burnt out",
        "blacks": "{value:.0f} % black",
    }.get(fact.kind, fact.kind)
    given = {name: getattr(fact, name) or 0.0 for name in ("value", "expected")}
    parts = [what.format(name=fact.name, other=fact.other, **given)]
    if fact.kind in ("seen", "asked_seen", "count", "doubled") and fact.value is not None:
        parts.append(
            f"{fact.value:.0f} at most" if "seen" in fact.kind else f"{fact.value:.0f} seen"
        )
    if fact.percentile is not None and fact.kind not in SHARES:
        parts.append(f"more than {fact.percentile:.0f} % of clips")
    if fact.confidence is not None and fact.box is not None:
        parts.append(f"{100 * fact.confidence:.0f} % sure")
    if fact.box is not None:
        parts.append(where(fact.box))
    if fact.start_seconds is not None and fact.end_seconds is not None:
        parts.append(f"{fact.start_seconds:.1f}-{fact.end_seconds:.1f} s")
    return ", ".join(parts)


def _check(name: str, value: Any, highest: float) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{name} must be a number, got {value!r}")
    if not math.isfinite(value) or not 0 <= value <= highest:
        raise ValueError(f"{name} must be finite and in 0..{highest:g}, got {value}")


# ---- defects ------------------------------------------------------------------------------------


def defects_of(facts: Sequence[Fact], *, prompt: str | None = None) -> list[Defect]:
    """Defects that the facts leave little doubt of."""
    found = []
    for fact in facts:
        name, severity = _RULES.get(fact.kind, ("", 0))
        if fact.kind == "speed":
            wanted = asks_for_action(prompt or "")
            if wanted and fact.percentile is not None and fact.percentile <= _HARDLY_MOVES:
                name, severity = "low_dynamic", 4
        elif fact.kind == "count":
            severity = min(5, 2 + int(abs((fact.value or 0) - (fact.expected or 0))))
        elif fact.kind == "asked_not_seen" and is_dim(prompt or ""):
            continue
        elif fact.kind == "morphs" and asks_for_change(prompt or ""):
            continue
        if name:
            found.append(
                Defect(
                    name=name,
                    severity=severity,
                    start_seconds=fact.start_seconds,
                    end_seconds=fact.end_seconds,
                )
            )
    return found


# What vanishes or changes stays a fact: named as a defect it was right in too few made clips (see
# docs/explanations.md).
_RULES = {
    "appears": ("appearing_object", 4),
    "asked_not_seen": ("missing_object", 4),
    "count": ("wrong_count", 3),
    "doubled": ("duplicated_object", 3),
    "freeze": ("freeze", 4),
    "morphs": ("morphing", 4),
}
_HARDLY_MOVES = 4  # percentile of speed


# A model's detector is fooled by content that it didn't learn from: what it names has to agree
# with what can be measured, as percentiles of reference clips.
_AT_LEAST = {
    "noise": ("grain", 70.0),
    "overexposure": ("whites", 97.0),
    "underexposure": ("blacks", 75.0),
    "colour_cast": ("cast", 80.0),
    "shake": ("shake", 85.0),
    "flicker": ("flicker", 90.0),
}
_AT_MOST = {
    "blur": ("sharpness", 15.0),
    "low_resolution": ("sharpness", 15.0),
    "near_static": ("speed", 20.0),
}
# Scores up to which a clip may be about something else: where something that was asked for is seen,
# and where nothing is.
_AT_ODDS, _AT_ODDS_UNSEEN = 2.25, 3.0
_WORD = re.compile(r"\b[^\W\d_]{2,}\b")  # a prompt such as "0014" says nothing


def agrees(
    defect: Defect, facts: Sequence[Fact], prompt: str | None, scores: Mapping[str, float]
) -> bool:
    """Whether nothing that was measured speaks against a defect that a model names.

    Args:
        defect: of the model.
        facts: of the clip.
        prompt: the text that it was generated from, if it's known.
        scores: 1-5, of the dimensions that have one.
    """
    measured = {fact.kind: fact.percentile for fact in facts if fact.percentile is not None}
    kinds = {fact.kind for fact in facts}
    for limits, sign in ((_AT_LEAST, 1), (_AT_MOST, -1)):
        kind, limit = limits.get(defect.name, ("", 0.0))
        if kind in measured and sign * (measured[kind] - limit) < 0:
            return False
    apart = "speed" in kinds and "speed" not in measured  # frames too far to know how things move
    if apart and defect.dimension == "motion" and defect.name != "freeze":
        return False
    if defect.name in ("shake", "flicker") and "speed" in kinds and defect.name not in kinds:
        return False  # of two frames nothing tells it
    if defect.name == "freeze":  # where nothing ever moves, nobody knows what would have
        return "freeze" in kinds or measured.get("speed", 100.0) < 1
    if defect.name == "scene_cut":
        return "cut" in kinds and not asks_for_cuts(prompt or "")
    if defect.name == "colour_cast":
        return not asks_for_colours(prompt or "")
    if defect.dimension == "semantic":
        limit = _AT_ODDS if "asked_seen" in kinds else _AT_ODDS_UNSEEN
        return bool(_WORD.search(prompt or "")) and scores.get("semantic", limit) <= limit
    return True


def confirmed(
    defects: Sequence[Defect],
    facts: Sequence[Fact],
    prompt: str | None,
    scores: Mapping[str, float],
) -> tuple[Defect, ...]:
    """The defects that a row names: those the rules find, and a model's that `agrees` keeps."""
    ours = [d for d in defects_of(facts, prompt=prompt) if d.dimension in scores]
    names = {defect.name for defect in ours}
    others = (d for d in defects if d.name not in names and agrees(d, facts, prompt, scores))
    return (*ours, *(_at_cuts(defect, facts) for defect in others))


def _at_cuts(defect: Defect, facts: Sequence[Fact]) -> Defect:
    """Other footage from the nearest cut to the nearest later one, or to the clip's end."""
    begin, until = defect.start_seconds, defect.end_seconds
    cuts = [fact.start_seconds or 0.0 for fact in named(facts, "cut")]
    if defect.name != "scene_cut" or begin is None or until is None or not cuts:
        return defect
    start = min(cuts, key=lambda cut: abs(cut - begin))
    ends = [fact.value or 0.0 for fact in named(facts, "duration")]
    later = [time for time in (*cuts, *ends) if time > start]
    end = min(later, key=lambda time: abs(time - until)) if later else max(start, until)
    return replace(defect, start_seconds=start, end_seconds=end)
