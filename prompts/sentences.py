"""Facts and defects in sentences, one or two per dimension, and what to try.

Templates, filled with numbers of the facts and nothing else: each says what is worst, when, where
and what it costs. Of several wordings the facts themselves choose, so that the same clip always
gets the same words.
"""

import zlib
from collections.abc import Mapping, Sequence

from .answer import Defect
from .defects import DEFECTS
from .facts import Fact, is_evenly_paced, is_evenly_sharp, named, softer, where
from .objects import class_of, is_plural, one_of, plural_of, several_of
from .rubric import Dimension

_LEAST_COST = 0.1  # points of the overall score that are worth a word
_LOW, _HIGH = 25, 75  # percentiles beyond which a clip is unlike most

# What a defect's sentence is, where no fact says more.
_PLAIN: Mapping[str, tuple[str, ...]] = {
    "flicker": ("The light flickers", "Brightness pulses"),
    "warping": ("Shapes swim and bend", "Things warp as they move"),
    "ghosting": ("What moves leaves trails", "Double images follow what moves"),
    "dropped_frames": ("Movement judders", "Movement skips, as if frames were missing"),
    "shuffled_frames": ("Frames come out of order", "Movement hops back and forth"),
    "blocking": ("Compression breaks the picture into blocks", "Blocks show in flat areas"),
    "banding": ("Smooth tones fall into steps", "Gradients show bands"),
    "colour_cast": ("A tint lies over the picture", "Greys are tinted"),
    "noise": ("Grain lies over the picture", "The picture is noisy"),
    "prompt_mismatch": ("The clip seems to be about something else than the prompt",),
    "wrong_object": ("One thing of the prompt seems to be shown as another",),
    "scene_cut": ("The clip cuts to other footage",),
    "freeze": ("The picture holds still",),
    "near_static": ("Hardly anything moves", "The picture is close to a still"),
    "low_dynamic": ("The prompt asks for action, and hardly anything moves",),
}
_ADVICE: Mapping[str, str] = {
    "vanishing_object": "Try another seed, or end the clip at {start} s: the {one} vanishes then.",
    "appearing_object": "Try another seed, or start the clip at {end} s: the {one} appears then.",
    "identity_drift": "Try another seed, or less movement: the {one} turns into {other}.",
    "missing_object": "Name the {name} first in the prompt, and what {does} next.",
    "wrong_count": "Say each of the {expected} {names} apart in the prompt, or try other seeds.",
    "duplicated_object": "Write `one {one}, alone` in the prompt, or try another seed.",
    "morphing": "Try another seed, or less movement: something changes its shape at {start} s.",
    "low_dynamic": "Raise the motion setting, or say what moves where in the prompt.",
    "freeze": "Cut the clip where it freezes, {start} to {end} s, or export it again.",
    "shake": "Lower the motion setting, or ask for a static camera.",
}


def sentences(
    facts: Sequence[Fact],
    defects: Sequence[Defect],
    *,
    dimensions: Sequence[Dimension],
    costs: Mapping[str, float | None] | None = None,
) -> dict[Dimension, str]:
    """One or two sentences for each dimension that there's something to say of.

    Args:
        facts: Of the clip.
        defects: What is wrong with it.
        dimensions: Those that have a score.
        costs: Points of the overall score that each dimension's evidence adds, where it's known.
    """
    build = {"technical": _technical, "motion": _motion, "semantic": _semantic}
    found: dict[Dimension, str] = {}
    pairs = behind_each(defects, facts)
    for dimension in dimensions:
        own = [pair for pair in pairs if pair[0].dimension == dimension]
        own.sort(key=lambda pair: -pair[0].severity)
        parts = build[dimension](list(facts), own)
        parts.append(cost_sentence(dimension, (costs or {}).get(dimension), said=parts))
        if any(parts):
            found[dimension] = " ".join(part[0].upper() + part[1:] for part in parts if part)
    return found


def cost_sentence(dimension: Dimension, moved: float | None, *, said: Sequence[str]) -> str:
    """How much a dimension's evidence moves the overall score; empty where it's little or unknown.

    Args:
        dimension: Whose evidence.
        moved: Points of the overall score, below 0 for those that it costs.
        said: What is said of the dimension before.
    """
    if moved is None or abs(moved) < _LEAST_COST:
        return ""
    what = {"technical": "picture", "motion": "movement", "semantic": "content"}[dimension]
    wordings = _COST[moved > 0] if said else _COST[moved > 0][:1]
    return _choose(said, *wordings).format(what=what, n=f"{abs(moved):.2f}")


_COST = {
    False: (
        "The {what} costs the overall score {n}.",
        "The {what} takes {n} off the overall score.",
    ),
    True: (
        "The {what} adds {n} to the overall score.",
        "The {what} lifts the overall score by {n}.",
    ),
}


def advice(facts: Sequence[Fact], defects: Sequence[Defect]) -> tuple[str, ...]:
    """What to try, one line for each defect that a fact stands behind; the gravest first."""
    lines: dict[str, None] = {}
    for defect, fact in sorted(behind_each(defects, facts), key=lambda pair: -pair[0].severity):
        one = defect.name == "wrong_count" and fact is not None and fact.expected == 1
        line = _ADVICE.get("duplicated_object" if one else defect.name)
        if line and fact:
            name = fact.name or "thing"
            several = is_plural(name)
            lines[line.format(
                name=name,
                one=one_of(name),
                names=several_of(name),
                does="they do" if several or class_of(name) == "person" else "it does",
                other=_a(fact.other),
                expected=_number(fact.expected),
                start=_seconds(fact.start_seconds),
                end=_seconds(fact.end_seconds),
            )] = None  # fmt: skip
    return tuple(lines)


_BEHIND = {
    "vanishing_object": "vanishes",
    "appearing_object": "appears",
    "identity_drift": "changes",
    "morphing": "morphs",
    "missing_object": "asked_not_seen",
    "wrong_count": "count",
    "duplicated_object": "doubled",
    "low_dynamic": "speed",
    "near_static": "speed",
    "freeze": "freeze",
    "shake": "shake",
    "blur": "sharpness",
    "low_resolution": "sharpness",
    "overexposure": "whites",
    "underexposure": "blacks",
    "noise": "grain",
    "flicker": "flicker",
    "colour_cast": "cast",
    "scene_cut": "cut",
}


def behind(defect: Defect, facts: Sequence[Fact]) -> Fact | None:
    """The fact that a defect rests on: of its kind, and of its time where there are several."""
    found = named(facts, _BEHIND.get(defect.name, "-"))
    at = [fact for fact in found if fact.start_seconds == defect.start_seconds]
    return next(iter(at or found), None)


def behind_each(
    defects: Sequence[Defect], facts: Sequence[Fact]
) -> list[tuple[Defect, Fact | None]]:
    """Each defect with the fact it rests on; of several that are alike each has its own."""
    left = list(facts)
    found = []
    for defect in defects:
        fact = behind(defect, left) or behind(defect, facts)
        if fact in left:
            left.remove(fact)
        found.append((defect, fact))
    return found


# ---- per dimension ------------------------------------------------------------------------------


_Pairs = list[tuple[Defect, Fact | None]]  # defects, the gravest first, and facts behind them


def _technical(facts: list[Fact], pairs: _Pairs) -> list[str]:
    parts = [_of_picture(defect, fact, facts) for defect, fact in pairs[:2]]
    sharpness = next(iter(named(facts, "sharpness")), None)
    said = {defect.name for defect, _ in pairs[:2]}
    if sharpness is not None and sharpness.percentile is not None:
        line = _compared(sharpness, "sharper than", "less sharp than")
        soft, crisp = named(facts, "softest"), named(facts, "sharpest")
        less = softer(facts)
        if is_evenly_sharp(facts):
            within = f", within {less:.0f} %" if round(less or 0) else ""
            line += f", and evenly so{within} from start to end"
        elif less is not None:
            line += f", softest at {_span(soft[0])}, {less:.0f} % below the sharpest"
            line += f", {_span(crisp[0])}"
        parts.append(line + ".")
    for kind, low, high, defect in (
        ("brightness", "darker than", "brighter than", "exposure"),
        ("contrast", "flatter in tone than", "richer in contrast than", "exposure"),
    ):
        fact = next(iter(named(facts, kind)), None)
        if fact and fact.percentile is not None and not any(defect in name for name in said):
            if fact.percentile <= _LOW / 2 or fact.percentile >= 100 - _LOW / 2:
                parts.append(_compared(fact, high, low) + ".")
    return parts[:3]


def _of_picture(defect: Defect, fact: Fact | None, facts: list[Fact]) -> str:
    when = _when(defect)
    value = None if fact is None or fact.value is None else fact.value
    if defect.name in ("blur", "low_resolution") and fact is not None:
        return _choose(facts, "The picture is soft{}.", "Detail is soft{}.").format(when)
    if defect.name == "overexposure" and value is not None:
        return f"Too bright{when}: {value:.0f} % of the picture is burnt out."
    if defect.name == "underexposure" and value is not None:
        return f"Too dark{when}: {value:.0f} % of the picture is black."
    return _plain(defect, facts)


def _motion(facts: list[Fact], pairs: _Pairs) -> list[str]:
    parts = []
    for defect, fact in pairs[:3]:
        if fact is None or defect.name in ("flicker", "near_static", "low_dynamic"):
            parts.append(_plain(defect, facts))
        elif defect.name == "vanishing_object":
            line = _choose(facts, "The {0} {1} is gone at {2} s without leaving the frame.",
                           "{A} {1} vanishes at {2} s, inside of the frame.")  # fmt: skip
            parts.append(_of_thing(line, fact))
        elif defect.name == "appearing_object":
            line = _choose(facts, "{A} {1} is there at {2} s, and came from nowhere.",
                           "At {2} s {a} appears {1}, inside of the frame.")  # fmt: skip
            parts.append(_of_thing(line, fact))
        elif defect.name == "identity_drift":
            line = "The {} {} turns into {} between {} and {} s."
            parts.append(
                line.format(
                    one_of(fact.name or "thing"),
                    _where(fact),
                    _a(fact.other),
                    _seconds(fact.start_seconds),
                    _seconds(fact.end_seconds),
                )
            )
        elif defect.name == "morphing":
            line = _choose(facts, "Something {} turns into something else, {}.",
                           "What is {} turns into another thing, {}.")  # fmt: skip
            parts.append(line.format(_where(fact), _span(fact)))
        elif defect.name == "freeze":
            parts.append(
                _choose(
                    facts, "The picture holds still for {} s, {}.", "A freeze of {} s, {}."
                ).format(_number(fact.value), _span(fact))  # fmt: skip
            )
        elif defect.name == "shake":
            than = fact.percentile
            more = "" if than is None else f", more than in {round(than)} % of clips"
            parts.append(f"The camera shakes{_when(defect)}{more}.")
    speed = next(iter(named(facts, "speed")), None)
    if speed is not None and speed.percentile is not None:
        line = _compared(speed, "faster than", "slower than")
        busy, calm = named(facts, "busiest"), named(facts, "calmest")
        if busy and calm and not is_evenly_paced(facts):
            line += f", most at {_span(busy[0])}, least at {_span(calm[0])}"
        elif busy and calm and speed.percentile > 0:
            line += ", at nearly one pace throughout"
        parts.append(line + ".")
    if cuts := named(facts, "cut"):
        times = ", ".join(_seconds(fact.start_seconds) for fact in cuts[:4])
        parts.append(f"It cuts at {times} s{' and later' if len(cuts) > 4 else ''}.")
    shake = next(iter(named(facts, "shake")), None)
    told = any(defect.name == "shake" for defect, _ in pairs)
    if shake is not None and shake.percentile is not None and not told:
        if shake.percentile <= _LOW:
            parts.append(f"The camera is steadier than in {100 - shake.percentile:.0f} % of clips.")
        elif shake.percentile >= _HIGH:
            parts.append(f"The frame is less steady than in {shake.percentile:.0f} % of clips.")
    return parts[:4]


def _semantic(facts: list[Fact], pairs: _Pairs) -> list[str]:
    parts = []
    for defect, fact in pairs[:2]:
        if fact is None or defect.name == "scene_cut":
            parts.append(_plain(defect, facts))
        elif defect.name == "missing_object":
            line = _choose(facts, "No {} to be seen in any frame looked at.",
                           "Nowhere in the frames looked at: the prompt's {}.")  # fmt: skip
            parts.append(line.format(fact.name))
        elif fact.kind in ("count", "doubled"):
            asked = _number(fact.expected)
            parts.append(
                f"The prompt says {asked} ({fact.name}), {_number(fact.value)} "
                f"{'is' if fact.value == 1 else 'are'} seen{_at(fact)}."
            )
    absent = {fact.name for fact in named(facts, "asked_not_seen")} if not pairs else set()
    seen = [
        f"{f.name} ({_as(f.name)}{_sure(f)}{_at(f)}{_during(f)})"
        for f in named(facts, "asked_seen")[:3]
    ]
    if seen:
        lead = _choose(facts, "Of the prompt, seen: {}.", "What was asked for and is seen: {}.")
        parts.append(lead.format(", ".join(seen)))
    if absent:
        parts.append(f"Not seen: {', '.join(sorted(filter(None, absent)))}.")
    others = [f"{f.name} ({_sure(f)}{_at(f)}{_during(f)})" for f in named(facts, "seen")[:2]]
    nothing = not seen and not others
    beyond = [fact.name for fact in named(facts, "asked_not_judged") if fact.name][:4]
    if beyond:
        rest = ", and nothing else is recognised for certain" * nothing
        parts.append(f"Can't be judged: {', '.join(beyond)}{rest}.")
    if not seen and others:
        parts.append(f"Recognised in it: {', '.join(others)}.")
    elif nothing and not beyond:
        lasts = next((f" in its {_seconds(f.value)} s" for f in named(facts, "duration")), "")
        parts.append(f"Nothing is recognised for certain{lasts}.")
    return parts[:4]


# ---- words --------------------------------------------------------------------------------------


def _choose(facts: Sequence[object], *wordings: str) -> str:
    return wordings[zlib.crc32(repr(facts).encode()) % len(wordings)]


def _compared(fact: Fact, more: str, less: str) -> str:
    """`sharper than 72 % of the clips that it is compared with`."""
    assert fact.percentile is not None
    above = round(fact.percentile)
    if above >= 50:
        return f"{more} {above} % of reference clips"
    return f"{less} {100 - above} % of reference clips"


def _plain(defect: Defect, facts: Sequence[Fact]) -> str:
    wordings = _PLAIN.get(defect.name, ())
    line = _choose(facts, *wordings) if wordings else ""
    kind = DEFECTS[defect.name]
    return f"{line or kind.words + ': ' + kind.description}{_when(defect)}."


def _when(defect: Defect) -> str:
    if defect.start_seconds is None or defect.end_seconds is None:
        return ""
    return f" at {_span(defect)}"


def _span(of: Fact | Defect) -> str:
    start, end = _seconds(of.start_seconds), _seconds(of.end_seconds)
    return f"{start} s" if start == end else f"{start}-{end} s"


def _during(fact: Fact) -> str:
    return f", {_span(fact)}" if fact.start_seconds is not None else ""


def _at(fact: Fact) -> str:
    return f", {_where(fact)}" if fact.box else ""


def _where(fact: Fact) -> str:
    return where(fact.box) if fact.box else "in the picture"


def _of_thing(line: str, fact: Fact) -> str:
    """A sentence about what vanishes or appears, with its name, place and time."""
    return line.format(
        one_of(fact.name or "thing"),
        _where(fact),
        _seconds(fact.end_seconds),
        a=_a(fact.name),
        A=_a(fact.name).capitalize(),
    )


def _a(noun: str | None) -> str:
    """With its article, as the classes of the detector have it: `an elephant`, `a pair of skis`."""
    noun = one_of(noun or "thing")
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _as(noun: str | None) -> str:
    """What a detector knows a prompt's thing as, where that says less: `as a person` of a chef."""
    name = class_of(noun or "")
    if name is None or noun in (name, plural_of(name)):
        return ""
    return f"as {plural_of(name) if is_plural(noun or '') else _a(name)}, "


def _sure(fact: Fact) -> str:
    return f"{round(100 * (fact.confidence or 0))} % sure"


def _seconds(value: float | None) -> str:
    return f"{value or 0:.1f}"


def _number(value: float | None) -> str:
    return f"{value or 0:.4g}"
