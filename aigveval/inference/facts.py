"""From measurements of a clip to facts, and to the fields of a row that are built on them.

    observed = observe("clip.mp4")
    facts = facts_of(observed, "two dogs run on a beach")

The thresholds are chosen by hand, on 228 undamaged clips and on four with the ladder's damage.
Which defects the facts prove stands in `prompts.facts`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from encoders.detection import Thing, overlap
from prompts import DIMENSIONS
from prompts.facts import Fact, confirmed
from prompts.objects import Asked, asked_things, is_styled
from prompts.sentences import advice, cost_sentence, sentences

from .observe import Observed

SEEN, SURE = 0.35, 0.55  # confidence of a thing that counts, and of one that a defect rests on
_MOST_SEEN = 6  # kinds of things that are listed
_LEAST_CONTRAST = 1.5  # of a frame that shows something, so that its sharpness says anything
_MORPHS = 0.34  # strength of a `Morph` that is believed
_POPS = 0.04  # its `more_after` to either side, from which on a thing appears or vanishes instead
_EDGE = 0.04  # from the frame's edge, as a share of it: a thing so near may leave

# Values of 0 %, 5 % ... 100 % of 228 clips: generated ones of 2023 to 2025, and 24 camera-made
# ones; see `examples/train_lite/evidence.py --reference`.
_QUANTILES = {
    "sharpness": "2.357 6.051 8.114 9.231 10.085 10.517 11.041 11.44 12.05 12.776 13.484 14.064 "
    "14.729 15.737 16.454 17.106 18.172 18.881 19.971 22.146 39.754",
    "grain": "0.112 0.482 0.724 1.014 1.208 1.501 1.694 2.036 2.51 2.941 3.641 4.135 4.664 5.071 "
    "5.597 6.381 7.421 8.84 9.908 11.674 20.573",
    "brightness": "6.364 12.263 21.74 26.809 31.179 33.674 35.917 37.478 38.264 39.141 40.786 "
    "42.493 43.444 45.35 46.785 48.775 50.757 53.591 57.646 63.966 83.884",
    "contrast": "5.449 12.334 14.747 15.32 16.58 17.504 18.333 19.066 19.932 20.835 21.733 22.1 "
    "23.27 24.109 25.097 26.083 27.184 27.788 28.584 30.431 40.827",
    "whites": "0 0 0 0 0 0 0 0.001 0.004 0.013 0.031 0.066 0.105 0.192 0.314 0.545 0.802 1.268 "
    "2.089 4.223 20.453",
    "blacks": "0 0 0 0 0.001 0.006 0.082 0.162 0.289 0.516 0.844 1.276 2.104 3.505 4.854 5.946 "
    "7.935 10.968 16.468 36.809 77.802",
    "cast": "0.439 1.628 3.132 4.296 4.907 6.43 7.509 9.3 9.924 11.22 12.701 14.226 15.467 "
    "16.509 18.589 21.455 22.89 27.346 33.147 38.671 73.915",
    "speed": "0.003 0.021 0.032 0.046 0.053 0.068 0.074 0.083 0.099 0.108 0.125 0.149 0.17 0.213 "
    "0.257 0.3 0.348 0.437 0.537 0.664 1.519",
    "shake": "0.006 0.016 0.028 0.041 0.063 0.085 0.097 0.117 0.141 0.163 0.184 0.214 0.286 "
    "0.365 0.53 0.934 1.482 1.93 2.445 3 4.892",
    "flicker": "0.015 0.047 0.058 0.07 0.084 0.103 0.125 0.139 0.159 0.181 0.236 0.291 0.374 0.415 "
    "0.56 0.739 1.059 1.455 2.342 4.04 7.048",
}
REFERENCE: Mapping[str, tuple[float, ...]] = {
    kind: tuple(map(float, values.split())) for kind, values in _QUANTILES.items()
}

# Classes that are large and seen well: that one of them is absent says something.
FOUND_WELL = frozenset(
    "person bicycle car motorcycle airplane bus train boat bird cat dog horse sheep cow elephant "
    "bear zebra giraffe pizza couch toilet".split()
) | {"teddy bear", "stop sign"}
# Of these another one beside it isn't a passer-by.
_ALONE = frozenset(
    "cat dog horse sheep cow elephant bear zebra giraffe airplane train bus toilet".split()
) | {"teddy bear", "stop sign"}
# Taken for one another by the detector: one of them is no proof that another is absent.
ALIKE = (
    frozenset("cat dog horse sheep cow bear elephant bird zebra giraffe person".split())
    | {"teddy bear"},
    frozenset("bicycle car motorcycle airplane bus train truck boat".split()),
)


@dataclass
class Track:
    """A thing through the frames in which it was seen.

    Args:
        name: its class.
        steps: numbers of the frames, ascending.
        things: what was seen in each.
    """

    name: str
    steps: list[int] = field(default_factory=list)
    things: list[Thing] = field(default_factory=list)

    @property
    def surest(self) -> Thing:
        """Where it was seen best."""
        return max(self.things, key=lambda thing: thing.confidence)


def tracks_of(frames: Sequence[Sequence[Thing]]) -> list[Track]:
    """Links what neighbouring frames, by their things, show of one class at nearly one place."""
    tracks: list[Track] = []
    for number, things in enumerate(frames):
        seen = [thing for thing in things if thing.confidence >= SEEN]
        open_tracks = [track for track in tracks if number - track.steps[-1] <= 2]
        pairs = sorted(
            ((_nearness(track.things[-1], thing), t, n)
             for t, track in enumerate(open_tracks) for n, thing in enumerate(seen)
             if track.name == thing.name),
            key=lambda pair: (-pair[0], *pair[1:]),
        )  # fmt: skip
        used: tuple[set[int], set[int]] = (set(), set())
        for nearness, t, n in pairs:
            if nearness > 0 and t not in used[0] and n not in used[1]:
                used[0].add(t)
                used[1].add(n)
                open_tracks[t].steps.append(number)
                open_tracks[t].things.append(seen[n])
        tracks += [
            Track(thing.name, [number], [thing]) for n, thing in enumerate(seen) if n not in used[1]
        ]
    return tracks


def _nearness(first: Thing, second: Thing) -> float:
    """Of two boxes, 1 for equal ones; 0 or less where they can't be one thing a moment later."""
    sizes = first.area / second.area
    if not 0.25 < sizes < 4:
        return 0.0
    distance = float(np.linalg.norm(np.subtract(_centre(first.box), _centre(second.box))))
    left, top, right, bottom = first.box
    side = min(right - left, bottom - top)
    return max(overlap(first.box, second.box), 0.5 - distance / (0.15 + side))


def _centre(box: Sequence[float]) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


# ---- facts --------------------------------------------------------------------------------------


def facts_of(observed: Observed, prompt: str | None = None) -> list[Fact]:
    """Facts about a clip, those of the prompt, if it's known, first."""
    facts: list[Fact] = []
    if observed.things is not None:
        tracks = tracks_of(observed.things)
        facts += _of_prompt(observed, prompt or "")
        facts += _of_things(observed, tracks)
        facts += _of_changes(observed, tracks)
    return facts + _of_motion(observed) + _of_picture(observed)


def _of_prompt(observed: Observed, prompt: str) -> list[Fact]:
    facts = []
    for asked in asked_things(prompt):
        if asked.name is None:
            facts.append(Fact(kind="asked_not_judged", name=asked.noun))
            continue
        steps, best = _surest(observed, asked.name)
        if best is not None and best.confidence >= SEEN:
            at = float(observed.slow_seconds[steps[0]]), _end(observed, steps[-1])
            most = max(_number(things, asked.name) for things in observed.things or ())
            facts.append(
                _fact(
                    "asked_seen", asked.noun, observed, best, value=max(1.0, float(most)), times=at
                )
            )
            facts += _of_count(observed, asked)
        elif not asked.whole or is_styled(prompt) or not _is_readable(observed, asked.name):
            facts.append(Fact(kind="asked_not_judged", name=asked.noun))
        else:
            confidence = round(best.confidence, 3) if best else 0.0
            facts.append(Fact(kind="asked_not_seen", name=asked.noun, confidence=confidence))
    return facts


def _is_readable(observed: Observed, name: str) -> bool:
    """Whether a class would have been seen: something else is, surely, and nothing like it.

    Drawings and fog leave the detector without a clue, and an odd cat is taken for a bear.
    """
    frames = observed.things or []
    alike = next((group for group in ALIKE if name in group), frozenset[str]())
    sure = sum(any(t.confidence >= 0.7 for t in things) for things in frames)
    like = any(t.confidence >= 0.25 and t.name in alike for things in frames for t in things)
    return name in FOUND_WELL and sure >= len(frames) / 2 and not like


def _of_count(observed: Observed, asked: Asked) -> list[Fact]:
    assert observed.things is not None and asked.name is not None
    if asked.count is None:
        return []
    surely = [_number(things, asked.name, least=SURE) for things in observed.things]
    maybe = [_number(things, asked.name, least=0.2, alike=False) for things in observed.things]
    few, many = sorted(surely)[len(surely) // 4], max(maybe)
    if few > asked.count and (asked.exact or asked.name in _ALONE):  # nearly always more
        seen = few
    elif asked.exact and 0 < many < asked.count:  # never as many, however unsurely
        seen = many
    else:
        return []
    kind = "count" if asked.exact else "doubled"
    _, best = _surest(observed, asked.name)
    assert best is not None
    return [_fact(kind, asked.noun, observed, best, value=float(seen), expected=float(asked.count))]


def _number(things: Sequence[Thing], name: str, *, least: float = SEEN, alike: bool = True) -> int:
    """How many things of a class a frame shows; with `alike`, of about the size of the largest."""
    found = [thing for thing in things if thing.name == name and thing.confidence >= least]
    largest = max((thing.area for thing in found), default=0.0)
    return sum(thing.area >= 0.4 * largest for thing in found) if alike else len(found)


def _surest(observed: Observed, name: str) -> tuple[list[int], Thing | None]:
    """In which frames a class is seen, and where it is seen best; maybe hardly at all."""
    frames = observed.things or []
    found = [(n, t) for n, things in enumerate(frames) for t in things if t.name == name]
    if not found:
        return [], None
    return sorted({n for n, t in found if t.confidence >= SEEN}), max(
        (t for _, t in found), key=lambda thing: thing.confidence
    )


def _of_things(observed: Observed, tracks: Sequence[Track]) -> list[Fact]:
    assert observed.things is not None
    facts = []
    names = dict.fromkeys(track.name for track in tracks)
    for name in names:
        own = [track for track in tracks if track.name == name]
        best = max((track.surest for track in own), key=lambda thing: thing.confidence)
        steps = sorted({step for track in own for step in track.steps})
        if best.confidence < SURE or (len(steps) < 2 <= len(observed.things)):
            continue
        most = max(sum(t.name == name and t.confidence >= SEEN for t in f) for f in observed.things)
        at = float(observed.slow_seconds[steps[0]]), _end(observed, steps[-1])
        facts.append(_fact("seen", name, observed, best, value=float(most), times=at))
    return sorted(facts, key=lambda fact: -(fact.confidence or 0))[:_MOST_SEEN]


def _end(observed: Observed, step: int) -> float:
    """Until when a thing of a frame is known to be there: to the next frame that was looked at."""
    times = observed.slow_seconds
    return float(times[step + 1]) if step + 1 < len(times) else observed.duration_seconds


def _of_changes(observed: Observed, tracks: Sequence[Track]) -> list[Fact]:
    """Things that vanish or appear within the frame, or turn into another class."""
    assert observed.things is not None
    facts: list[Fact] = []
    last = len(observed.things) - 1
    turned: set[int] = set()
    for track in tracks:  # one that goes on as another class, at the same place
        for other in tracks:
            if other.name != track.name and _turns(observed, track, other):
                turned |= {id(track), id(other)}
                at = observed.slow_seconds[[track.steps[-1], other.steps[0]]]
                facts.append(
                    _fact("changes", track.name, observed, track.things[-1], other=other.name,
                          times=(float(at[0]), float(at[1])))
                )  # fmt: skip
    for track in tracks:
        if id(track) in turned:
            continue
        if track.steps[-1] <= last - 2 and _pops(observed, track, forward=True):
            at = observed.slow_seconds[[track.steps[-1], track.steps[-1] + 1]]
            times = _moment(observed, track.things[-1], *map(float, at))
            facts.append(_fact("vanishes", track.name, observed, track.things[-1], times=times))
        if track.steps[0] >= 2 and _pops(observed, track, forward=False):
            at = observed.slow_seconds[[track.steps[0] - 1, track.steps[0]]]
            times = _moment(observed, track.things[0], *map(float, at))
            facts.append(_fact("appears", track.name, observed, track.things[0], times=times))
    return facts


def _pops(observed: Observed, track: Track, *, forward: bool) -> bool:
    """Whether a thing is gone from one frame to the next, or comes, well inside of the picture.

    It was seen surely in two frames; then two frames show nothing at all at its place, and nothing
    of its class elsewhere that wasn't there before. Between them its place changes at once, and
    far more than what is around it, which tells it from a thing that turns away or is covered
    slowly, and from a camera that moves on.
    """
    assert observed.things is not None
    steps = track.steps if forward else [-n for n in track.steps[::-1]]
    things = track.things if forward else track.things[::-1]
    if len(steps) < 2 or min(things[-1].confidence, things[-2].confidence) < SURE:
        return False
    here, there = abs(steps[-1]), abs(steps[-1] + 1)
    further = abs(steps[-1] + 2)
    thing = things[-1]
    moved = np.subtract(_centre(thing.box), _centre(things[-2].box))
    reach = _EDGE + float(np.abs(moved).max())
    if min(*thing.box[:2], 1 - thing.box[2], 1 - thing.box[3]) < reach or thing.area > 0.5:
        return False
    times = sorted((float(observed.slow_seconds[here]), float(observed.slow_seconds[further])))
    if not observed.same_shot(*times):
        return False
    before = _number(observed.things[here], thing.name, least=0.2, alike=False)
    for step in (there, further):
        found = observed.things[step]
        if any(overlap(one.box, thing.box) > 0.2 and one.confidence >= 0.2 for one in found):
            return False
        if _number(found, thing.name, least=0.2, alike=False) >= before:
            return False
    return _jump(observed, thing, *sorted((here, there))) is not None


def _moment(observed: Observed, thing: Thing, start: float, end: float) -> tuple[float, float]:
    """Between which two samples the place of a thing changes most."""
    steps = [int(np.abs(observed.slow_seconds - time).argmin()) for time in (start, end)]
    found = _jump(observed, thing, *steps)
    return found if found is not None else (start, end)


def _jump(observed: Observed, thing: Thing, first: int, second: int) -> tuple[float, float] | None:
    """When the place of a thing changes at once between two frames, and the rest doesn't."""
    start, end = (float(observed.slow_seconds[n]) for n in (first, second))
    seconds = observed.fast_seconds
    within = [n for n in range(len(seconds) - 1) if seconds[n + 1] > start and seconds[n] < end]
    if not within:
        return None
    height, width = observed.pictures.shape[1:]
    left, right = int(thing.box[0] * width), max(1, round(thing.box[2] * width))
    top, bottom = int(thing.box[1] * height), max(1, round(thing.box[3] * height))
    inside = np.zeros((height, width), bool)
    inside[top:bottom, left:right] = True
    moves = []
    for n in range(max(0, within[0] - 4), min(len(seconds) - 1, within[-1] + 5)):
        change = np.abs(np.subtract(*observed.pictures[[n, n + 1]].astype(np.int16)))
        moves.append((n, float(change[inside].mean()), float(change[~inside].mean())))
    best = max((move for move in moves if move[0] in within), key=lambda move: move[1])
    usual = float(np.median([move[1] for move in moves]))
    if best[1] < 10 or best[1] < 3.5 * usual or best[1] < 3 * best[2]:
        return None
    return float(seconds[best[0]]), float(seconds[best[0] + 1])


def _turns(observed: Observed, track: Track, other: Track) -> bool:
    """Whether a thing is one class for long, then surely another one at the same place."""
    assert observed.things is not None
    gap = other.steps[0] - track.steps[-1]
    if not 1 <= gap <= 2 or min(len(track.steps), len(other.steps)) < 2:
        return False
    names = {track.name, other.name}
    if not names <= FOUND_WELL or any(names <= group for group in ALIKE):
        return False
    first, second = track.things[-1], other.things[0]
    sure = min(track.surest.confidence, other.surest.confidence) >= 0.7
    if not sure or overlap(first.box, second.box) < 0.4:
        return False
    times = observed.slow_seconds[[track.steps[-1], other.steps[0]]]
    if not observed.same_shot(float(times[0]), float(times[1])):
        return False
    # Neither is half seen in the other's time: what is hard to tell apart doesn't turn.
    early = [t for n in range(track.steps[-1]) for t in observed.things[n] if t.name == other.name]
    late = [t for n in range(other.steps[0] + 1, len(observed.things))
            for t in observed.things[n] if t.name == track.name]  # fmt: skip
    return not any(
        t.confidence >= 0.2 and overlap(t.box, near.box) > 0.2
        for found, near in ((early, first), (late, second))
        for t in found
    )


def _of_motion(observed: Observed) -> list[Fact]:
    facts = [Fact(kind="cut", start_seconds=time, end_seconds=time) for time in observed.cuts]
    facts += [
        Fact(kind="freeze", value=round(end - start, 2), start_seconds=start, end_seconds=end)
        for start, end in observed.freezes
    ]
    facts += _of_morph(observed)
    if not len(observed.speeds):
        return facts
    facts.append(_measured("speed", observed.speed))
    if len(observed.drifts) > 1:  # of two frames nothing tells whether movement changes
        facts.append(_measured("shake", observed.shake))
        facts.append(_measured("flicker", observed.flicker))
    seconds = observed.fast_seconds
    if len(observed.speeds) >= 8:
        parts = np.array_split(np.arange(len(observed.speeds)), 8)
        means = [float(np.median(observed.speeds[part])) for part in parts]
        for kind, pick in (("busiest", np.argmax), ("calmest", np.argmin)):
            part = parts[int(pick(means))]
            times = float(seconds[part[0]]), float(seconds[part[-1] + 1])
            facts.append(_measured(kind, means[int(pick(means))], times=times))
    # What stands still does so however seldom it's looked at.
    if observed.is_comparable or observed.is_still:
        return facts
    return [replace(fact, percentile=None) for fact in facts]


def _of_morph(observed: Observed) -> list[Fact]:
    morph = observed.morph
    if morph is None or morph.strength < _MORPHS or abs(morph.more_after) > _POPS:
        return []
    start, middle, end = (
        round(float(observed.slow_seconds[step]), 3)
        for step in (morph.first, (morph.first + morph.last) // 2, morph.last)
    )
    return [
        Fact(
            kind="morphs",
            value=round(morph.strength, 3),
            box=observed.in_frame(morph.box),
            at_seconds=middle,
            start_seconds=start,
            end_seconds=end,
        )
    ]


def _of_picture(observed: Observed) -> list[Fact]:
    facts = [Fact(kind="duration", value=round(observed.duration_seconds, 3))]
    facts += [_measured(kind, float(np.median(found))) for kind, found in observed.looks.items()]
    sharpness = observed.looks.get("sharpness", np.zeros(0))
    shown = np.flatnonzero(observed.looks["contrast"] >= _LEAST_CONTRAST)
    if len(sharpness) and len(shown) >= 4:
        for kind, pick in (("sharpest", np.argmax), ("softest", np.argmin)):
            n = int(shown[pick(sharpness[shown])])
            times = float(observed.slow_seconds[n]), _end(observed, n)
            facts.append(_measured(kind, float(sharpness[n]), times=times))
    return facts


_AS = {"busiest": "speed", "calmest": "speed", "sharpest": "sharpness", "softest": "sharpness"}


def _measured(kind: str, value: float, times: tuple[float, float] | None = None) -> Fact:
    return Fact(
        kind=kind,
        value=round(value, 4),
        percentile=percentile(_AS.get(kind, kind), value),
        start_seconds=round(times[0], 3) if times else None,
        end_seconds=round(times[1], 3) if times else None,
    )


def percentile(kind: str, value: float) -> float | None:
    """Share of the reference clips, 0-100 in whole numbers, that have a lower value."""
    points = REFERENCE.get(kind)
    if points is None:
        return None
    if value <= points[0]:  # of several clips without a white pixel none has less
        return 0.0
    return float(round(np.interp(value, points, np.linspace(0, 100, len(points)))))


def _fact(
    kind: str,
    name: str,
    observed: Observed,
    thing: Thing,
    *,
    times: tuple[float, float] | None = None,
    **values: Any,
) -> Fact:
    """A fact about a thing of one of the frames."""
    frames = observed.things or []
    step = next(n for n, found in enumerate(frames) if any(one is thing for one in found))
    return Fact(
        kind=kind,
        name=name,
        confidence=round(thing.confidence, 3),
        box=observed.in_frame(thing.box),
        at_seconds=round(float(observed.slow_seconds[step]), 3),
        start_seconds=round(times[0], 3) if times else None,
        end_seconds=round(times[1], 3) if times else None,
        **values,
    )


# Kinds of problems that keep a defect from being read, or make it doubtful.
_OF_DEFECTS = (
    *("no_answer", "too_long", "unfinished", "missing_line: defects", "repeated_line: Defects"),
    *("malformed_defect", "unknown_defect", "severity_out_of_range", "times_reversed"),
    *("time_beyond_clip", "defect_contradicts_score"),
)

# ---- rows ---------------------------------------------------------------------------------------


def explained(
    row: Mapping[str, Any],
    observed: Observed,
    facts: Sequence[Fact],
    prompt: str | None,
    *,
    words: bool,
) -> dict[str, Any]:
    """The fields of an explained row, with what was measured.

    Args:
        row: scores and explanation of the model.
        observed: of its clip.
        facts: as `facts_of` makes them of that.
        prompt: the text that it was generated from, if it's known.
        words: whether the model's own sentences and defects stay; else they are made from facts,
            and of its defects those that agree with them, and of its problems those of its
            defects, as nothing else of its text is shown. Where facts contradicted all that the
            model said of a dimension, a sentence is made of them there, too.
    """
    fields = dict(row) | {"warnings": (*row.get("warnings", ()), *observed.warnings)}
    defects = tuple(row.get("defects") or ())
    moved = row.get("contributions")
    costs = moved.to_dict() if moved is not None else {}
    scored = [name for name in DIMENSIONS if row.get(name) and (name != "semantic" or prompt)]
    if words:
        told = row.get("explanation") or {}
        dropped = "text_contradicts_facts: " in " ".join(row.get("problems") or ())
        lost = [name for name in scored if name not in told and dropped]
        fields["explanation"] = sentences(facts, defects, dimensions=lost, costs=costs) | {
            name: " ".join(filter(None, (text, cost_sentence(name, costs.get(name), said=[text]))))
            for name, text in told.items()
        }
    else:
        scores: dict[str, float] = {name: row[name].score for name in scored}
        defects = confirmed(defects, facts, prompt, scores)
        fields["defects"] = defects
        problems = row.get("problems") or ()
        fields["problems"] = tuple(line for line in problems if line.startswith(_OF_DEFECTS))
        fields["explanation"] = sentences(facts, defects, dimensions=scored, costs=costs)
    return fields | {"evidence": tuple(facts), "advice": advice(facts, defects)}
