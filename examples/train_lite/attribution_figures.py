"""Figures of what a model says about ladder clips: pure functions, from `Clip` to numbers.

A figure is `{"value": [value, low, high], "cases": n}`, its interval a 95 % bootstrap interval over
sources, or None for the value where there is nothing to measure.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from agreement import cell, share, table_lines
from numpy.typing import ArrayLike, NDArray

from aigveval.metrics import bootstrap_interval
from prompts.consistency import MAX_SLOT_DIFFERENCE
from prompts.defects import DEFECTS

Figure = dict[str, Any]
Span = tuple[float, float]  # start and end in seconds

PLAIN = 3  # from this severity on a defect has to be found
CLEAN, MISMATCH = "clean", "prompt_mismatch"
TIMED = ("freeze", "flicker", "scene_cut", "shake")
# Kinds of `prompts.check_consistency`; all others are of the format.
CONTRADICTIONS = (
    "repeats_itself",
    "score_contradicts_slot",
    "defect_contradicts_score",
    "text_contradicts_score",
    "text_contradicts_defects",
)
FIRST, SHOWN = "first try", "as users get it"
AIMS = {
    f"valid format, {SHOWN}": ">= 0.99",
    "macro-F1": ">= 0.80",
    "false alarms, left-out clean clips": "<= 0.10",
    **{f"time IoU where named: {name}": ">= 0.60" for name in TIMED},
    "mismatch named, each other prompt": ">= 0.70",
    "clean scores higher, named defects": ">= 0.95",
}


@dataclass(frozen=True, kw_only=True)
class Try:
    """One answer: the kinds of its problems, and the scores that it writes, if they can be read."""

    problems: tuple[str, ...] = ()
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A clip, and what is said of it.

    Attributes:
        part: `heldout`, clean clips of `train`, or clean left-out clips with `other_prompt`.
        group: Its source.
        type: What was done to it, a name of `DEFECTS`, or `clean`.
        severity: 1-5, 0 of a clean clip.
        span: When it is damaged, None for all the time.
        duration: In seconds.
        named: Defects that are named, each with the times; of the whole clip where none is given.
        spoken: Defects that the sentences speak of.
        scores: Of the scoring pass, by name.
        first, shown: The first try, and the best of up to three.
    """

    part: Literal["heldout", "train", "other_prompt"]
    group: str
    type: str
    severity: int
    duration: float
    span: Span | None = None
    named: Mapping[str, Sequence[Span]] = field(default_factory=dict)
    spoken: Collection[str] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    first: Try = Try()
    shown: Try = Try()


def figures_of(clips: Sequence[Clip], *, text: bool = True) -> dict[str, Figure]:
    """All figures by name.

    Args:
        clips: Of all parts.
        text: Whether there are answers and scores, rather than signs alone.
    """
    left_out = [clip for clip in clips if clip.part == "heldout"]
    found: dict[str, Figure] = format_figures(left_out) if text else {}
    found |= detection(left_out) | false_alarms(clips) | times(left_out) | mismatch(clips)
    return found | (faithfulness(left_out) | number_figures(left_out) if text else {})


def mean(values: Iterable[tuple[str, float]]) -> Figure:
    """Mean of (source, value)."""
    known = list(values)
    return {"value": share(known) if known else None, "cases": len(known)}


# ---- text ---------------------------------------------------------------------------------------


def format_figures(clips: Sequence[Clip]) -> dict[str, Figure]:
    """Shares of answers in valid format, with contradictions of each kind, and of defects named."""
    found = {}
    for when, tries in (
        (FIRST, [(clip.group, clip.first) for clip in clips]),
        (SHOWN, [(clip.group, clip.shown) for clip in clips]),
    ):
        found[f"valid format, {when}"] = mean(
            (group, set(one.problems) <= set(CONTRADICTIONS)) for group, one in tries
        )
        found[f"contradiction, {when}"] = mean(
            (group, not set(CONTRADICTIONS).isdisjoint(one.problems)) for group, one in tries
        )
        for kind in CONTRADICTIONS:
            found[f"{kind.replace('_', ' ')}, {when}"] = mean(
                (group, kind in one.problems) for group, one in tries
            )
    found["sentence tells the named defect"] = mean(
        (clip.group, name in clip.spoken) for clip in clips for name in clip.named
    )
    return found


def number_figures(clips: Sequence[Clip]) -> dict[str, Figure]:
    """How far the numbers of the text are from the scores of the slots, in MOS points."""
    within, differences = [], []
    for clip in clips:
        numbers = clip.shown.numbers
        apart = [
            abs(numbers[name] - score) for name, score in clip.scores.items() if name in numbers
        ]
        whole = len(apart) == len(clip.scores)
        within.append((clip.group, whole and max(apart) <= MAX_SLOT_DIFFERENCE + 1e-9))
        if apart:
            differences.append((clip.group, float(np.mean(apart))))
    return {
        "numbers within 0.5 of the scores": mean(within),
        "mean absolute difference of numbers": mean(differences),
    }


# ---- defects ------------------------------------------------------------------------------------


def f1(truth: ArrayLike, named: ArrayLike) -> NDArray[np.float64]:
    """F1 of each type, (types,), of (clips, types) bool; NaN of a type that no clip has."""
    truth, named = np.asarray(truth, dtype=bool), np.asarray(named, dtype=bool)
    hits = (truth & named).sum(0)
    total = truth.sum(0) + named.sum(0)
    return np.where(truth.any(0), 2 * hits / np.maximum(total, 1), np.nan)


def macro_f1(truth: ArrayLike, named: ArrayLike) -> float:
    """Mean F1 of the types that there are.

    Raises:
        ValueError: There are none.
    """
    values = f1(truth, named)
    if np.isnan(values).all():
        raise ValueError("macro_f1: no clip is damaged")
    return float(np.nanmean(values))


def is_plain_or_clean(clip: Clip) -> bool:
    """Whether it is clear what to say of it."""
    return clip.type == CLEAN or clip.severity >= PLAIN


def detection(clips: Sequence[Clip]) -> dict[str, Figure]:
    """Macro-F1, and F1 of each type."""
    chosen = list(filter(is_plain_or_clean, clips))
    types = [name for name in DEFECTS if any(clip.type == name for clip in chosen)]
    if not types:
        return {"macro-F1": mean([])}
    truth = np.array([[clip.type == name for name in types] for clip in chosen])
    named = np.array([[name in clip.named for name in types] for clip in chosen])
    groups = [clip.group for clip in chosen]

    def figure(columns: Sequence[int]) -> Figure:
        arrays = truth[:, columns], named[:, columns]
        value = macro_f1(*arrays)
        low, high = bootstrap_interval(macro_f1, *arrays, groups=groups)
        cases = int(arrays[0].any(1).sum())
        return {"value": [round(v, 3) for v in (value, low, high)], "cases": cases}

    found = {"macro-F1": figure(range(len(types)))}
    return found | {f"F1: {name}": figure([n]) for n, name in enumerate(types)}


def confusion(clips: Sequence[Clip]) -> dict[str, dict[str, Any]]:
    """Type, or `clean`, to the number of clips and how often which other defect is named."""
    others: dict[str, Counter[str]] = defaultdict(Counter)
    count: Counter[str] = Counter()
    for clip in filter(is_plain_or_clean, clips):
        count[clip.type] += 1
        others[clip.type].update(name for name in clip.named if name != clip.type)
    return {
        kind: {"clips": count[kind], "named": dict(others[kind].most_common())}
        for kind in (CLEAN, *DEFECTS)
        if count[kind]
    }


def false_alarms(clips: Iterable[Clip]) -> dict[str, Figure]:
    """Shares of clean clips of which any defect is named."""
    clean = [clip for clip in clips if clip.type == CLEAN]
    return {
        f"false alarms, {label} clean clips": mean(
            (clip.group, bool(clip.named)) for clip in clean if clip.part == part
        )
        for part, label in (("heldout", "left-out"), ("train", "trained on"))
    }


def iou(true: Span, named: Iterable[Span]) -> float:
    """Intersection over union of a span and the union of some.

    Examples:
        >>> iou((1.0, 3.0), [(2.0, 4.0)])
        0.3333333333333333
    """
    merged: list[Span] = []
    for start, end in sorted(named):
        if merged and start <= merged[-1][1]:
            last = merged.pop()
            start, end = last[0], max(end, last[1])
        merged.append((start, end))
    both = sum(max(0.0, min(end, true[1]) - max(start, true[0])) for start, end in merged)
    union = true[1] - true[0] + sum(end - start for start, end in merged) - both
    return both / union if union > 0 else 0.0


def times(clips: Sequence[Clip]) -> dict[str, Figure]:
    """IoU of true and named times, of clips of which a part is damaged."""
    cases = [
        (clip, iou(clip.span, clip.named.get(clip.type, ())))
        for clip in clips
        if clip.type in TIMED and clip.severity >= PLAIN and clip.span
    ]
    found = {}
    for name in ("all four", *TIMED):
        own = [(clip, value) for clip, value in cases if name in ("all four", clip.type)]
        found[f"time IoU where named: {name}"] = mean(
            (clip.group, value) for clip, value in own if clip.type in clip.named
        )
        found[f"time IoU, a miss counts 0: {name}"] = mean(
            (clip.group, value) for clip, value in own
        )
    return found


def mismatch(clips: Sequence[Clip]) -> dict[str, Figure]:
    """How often it is said that the prompt is another one, and what else instead."""
    ladder = [clip for clip in clips if clip.part == "heldout" and clip.type == MISMATCH]
    other = [clip for clip in clips if clip.part == "other_prompt"]
    found = {
        f"mismatch named, ladder, severity >= {PLAIN}": mean(
            (clip.group, MISMATCH in clip.named) for clip in ladder if clip.severity >= PLAIN
        ),
        "mismatch named, each other prompt": mean(
            (clip.group, MISMATCH in clip.named) for clip in other
        ),
    }
    semantic = [
        name for name, kind in DEFECTS.items() if kind.dimension == "semantic" and name != MISMATCH
    ]
    for name in semantic:
        instead = [
            (clip.group, name in clip.named and MISMATCH not in clip.named) for clip in other
        ]
        if any(value for _, value in instead):
            found[f"named instead, each other prompt: {name}"] = mean(instead)
    return found


def faithfulness(clips: Sequence[Clip]) -> dict[str, Figure]:
    """Shares of pairs whose clean clip has the higher score in the dimension of the defect."""
    clean = {clip.group: clip for clip in clips if clip.type == CLEAN}
    pairs = [
        (clip, clean[clip.group])
        for clip in clips
        if clip.type != CLEAN and clip.severity >= PLAIN and clip.group in clean
    ]

    def rises(chosen: Iterable[tuple[Clip, Clip]], score: str | None = None) -> Figure:
        return mean(
            (clip.group, before.scores[name] > clip.scores[name])
            for clip, before in chosen
            for name in [score or DEFECTS[clip.type].dimension]
            if name in clip.scores and name in before.scores
        )

    found: dict[str, Figure] = {}
    named = [pair for pair in pairs if pair[0].type in pair[0].named]
    for label, chosen in (("named defects", named), ("all pairs", pairs)):
        found[f"clean scores higher, {label}"] = rises(chosen)
        found[f"clean scores higher overall, {label}"] = rises(chosen, "overall")
        for kind in DEFECTS:
            if any(clip.type == kind for clip, _ in pairs):
                found[f"clean scores higher, {label}: {kind}"] = rises(
                    pair for pair in chosen if pair[0].type == kind
                )
    return found


# ---- tables -------------------------------------------------------------------------------------


def as_markdown(
    figures: Mapping[str, Mapping[str, Figure]],
    confusions: Mapping[str, Mapping[str, Mapping[str, Any]]],
) -> str:
    """Tables with a column per model: figures, and what else is named."""
    columns = list(figures)
    # The order of the fullest column; the others may have rows of their own.
    names = dict.fromkeys(
        name for c in sorted(columns, key=lambda c: -len(figures[c])) for name in figures[c]
    )
    rows = []
    for name in names:
        found = [figures[column].get(name) for column in columns]
        cases = dict.fromkeys(str(one["cases"]) for one in found if one)
        values = [cell(one["value"] if one else None) for one in found]
        rows.append([name, AIMS.get(name, ""), " / ".join(cases), *values])
    others = []
    for kind in (CLEAN, *DEFECTS):
        named = [confusions[column].get(kind) for column in columns]
        if any(named):
            count = next(one["clips"] for one in named if one)
            others.append([kind, str(count), *map(_most_named, named)])
    lines = table_lines(["figure", "aim", "clips", *columns], rows)
    lines += ["", "What else is named, and of how many of the clips:", ""]
    return "\n".join(lines + table_lines(["type", "clips", *columns], others)) + "\n"


def _most_named(found: Mapping[str, Any] | None, *, most: int = 2) -> str:
    items = list(found["named"].items())[:most] if found else []
    return ", ".join(f"{name} {count}" for name, count in items) or "-"
