"""Reasoning of an answer, written from its scores and defects."""

import random
from collections.abc import Mapping, Sequence

from .answer import Defect
from .defects import DEFECTS
from .phrasings import DEGREES, LEVEL_PHRASES, Phrases, Split
from .rubric import DIMENSIONS, Dimension, Score, nearest_level

MAX_MENTIONED = 2  # defects per dimension that are put in words, the worst first


def write_reasoning(
    scores: Mapping[Score, float],
    defects: Sequence[Defect] | None,
    *,
    split: Split,
    key: str = "",
    variant: int = 0,
    degrees: bool = True,
) -> dict[Dimension, str]:
    """One sentence per dimension of which something is known.

    It names the dimension's worst defects with their severity, or the level where it has none.

    Args:
        scores: Known scores, 1-5.
        defects: Of the clip; None where they're unknown.
        split: Whose wordings to take; none is in both.
        key: Picks the wording: the same key gives the same text, on any machine.
        variant: Of one key, each of the first four variants has another wording in training (two
            in test), where one defect or none is named.
        degrees: Put severities into words.
    """
    lines: dict[Dimension, str] = {}
    for dimension in DIMENSIONS:
        rng = random.Random(f"{key}|{dimension}")
        own = [defect for defect in defects or () if defect.dimension == dimension]
        worst: dict[str, Defect] = {}
        for defect in sorted(own, key=lambda defect: -defect.severity):
            worst.setdefault(defect.name, defect)
        if worst:
            said = [
                _fill(
                    _choose(DEFECTS[defect.name], split, rng, variant),
                    defect,
                    rng,
                    degrees=degrees,
                )
                for defect in list(worst.values())[:MAX_MENTIONED]
            ]
        elif dimension in scores:
            level = nearest_level(scores[dimension])
            said = [_choose(LEVEL_PHRASES[dimension][level], split, rng, variant)]
        else:
            continue
        lines[dimension] = f"{', and '.join(said)}."
    return lines


def _choose(phrases: Phrases, split: Split, rng: random.Random, variant: int) -> str:
    choices = phrases.train if split == "train" else phrases.test
    return choices[(rng.randrange(len(choices)) + variant) % len(choices)]


def _fill(phrase: str, defect: Defect, rng: random.Random, *, degrees: bool) -> str:
    if not degrees:
        return " ".join(phrase.format(adj="", adv="", part="a part").split())
    words = {slot: rng.choice(choices[defect.severity - 1]) for slot, choices in DEGREES.items()}
    return phrase.format(**words)
