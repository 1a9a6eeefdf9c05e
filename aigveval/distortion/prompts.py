"""Wrong prompts of known degree: the semantic faults that leave the video as it is.

Pure text functions on word lists of our own. English gets the best replacements; other languages
are mixed word by word, or character by character where nothing is written between words.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import NamedTuple

_NEAR, _FAR = 0.5, 1.0  # how wrong a word from the same group and from another group counts

_GROUPS: dict[str, str] = {
    "animal": (
        "dog cat horse tiger bear panda lion elephant rabbit cow sheep goat wolf fox "
        "monkey deer zebra giraffe camel pig mouse squirrel raccoon corgi puppy kitten"
    ),
    "bird": ("bird eagle parrot owl duck swan chicken penguin pigeon crow flamingo turkey"),
    "sea": ("fish shark whale dolphin turtle octopus crab jellyfish seal lobster clown"),
    "insect": ("butterfly bee spider ant beetle dragonfly snail ladybug"),
    "person": (
        "man woman boy girl child person chef doctor soldier dancer artist astronaut "
        "teacher farmer policeman librarian chemist baby lady gentleman robot"
    ),
    "vehicle": (
        "car bus truck train bicycle motorcycle boat ship airplane helicopter tractor van "
        "suv submarine rocket balloon canoe skateboard surfboard"
    ),
    "food": (
        "apple banana pizza cake bread cheese sandwich soup noodles pancakes hamburger "
        "salad orange strawberry chocolate egg syrup cream honey"
    ),
    "drink": ("water milk coffee tea juice wine beer liquid lemonade"),
    "furniture": ("table chair sofa bed desk lamp shelf mirror cabinet bench wardrobe swing"),
    "object": (
        "book phone laptop camera clock umbrella bottle glass cup bag knife hammer "
        "sledgehammer brush towel vase candle basket key box jar beaker bucket"
    ),
    "music": ("guitar piano violin drum trumpet flute saxophone cello harp"),
    "clothing": (
        "hat shirt jacket dress suit shoes boots scarf gloves coat bandana helmet glasses"
    ),
    "sport": (
        "ball football basketball frisbee javelin racket kite snowboard skis rope trampoline"
    ),
    "plant": ("tree flower rose grass leaf leaves cactus bush mushroom sunflower vine"),
    "nature": (
        "mountain river lake ocean sea beach desert forest jungle island waterfall "
        "volcano valley cave meadow reef snow sand sky cliff"
    ),
    "city": (
        "street house building bridge city park castle tower church school market station "
        "airport kitchen office garden library garage bathroom lawn fence floor tunnel"
    ),
    "weather": ("rain storm fog sunshine lightning rainbow wind sunset sunrise night"),
    "action": (
        "running walking jumping dancing swimming flying sleeping eating reading cooking "
        "singing climbing driving painting surfing skiing fighting laughing crying "
        "skateboarding"
    ),
    "look": (
        "red green blue yellow black white purple pink brown golden silver wooden metal "
        "stone plastic old young tiny huge"
    ),
}
_WORDS = {group: tuple(words.split()) for group, words in _GROUPS.items()}
_GROUP_OF = {word: group for group, words in _WORDS.items() for word in words}
_NOUN_GROUPS = tuple(group for group in _WORDS if group not in ("action", "look"))

_EMPTY = frozenset(
    """
    a about above after against all along amidst an and are around as at be been before behind
    below beside besides between beyond by camera can clear cinematic close detailed down during
    each every for from front has have he her high highly him his hot if in inside into is it
    its just like make makes many more most near next nobody not of off on one onto or other out
    over overhead own part quality realistic resolution right scene seen she shot side slow so
    some such than that the their them then there these they this those through three to top
    towards two ultra under until up upon very view was well were what when where which while
    who whose with within without wide beautiful style video 2k 4k 8k hd hdr masterpiece
""".split()
)


def content_words(prompt: str) -> list[str]:
    """The words that carry content, lower case, in order, each once."""
    # Not in lower case as a whole: a capital I with a dot becomes two characters.
    words = (word.lower() for word in re.findall(r"[^\W\d_]+", prompt))
    return list(dict.fromkeys(word for word in words if len(word) > 2 and word not in _EMPTY))


def _known(word: str) -> str | None:
    """The listed form of a word in the singular or plural."""
    for form in (word, word.removesuffix("s"), word.removesuffix("es")):
        if form in _GROUP_OF:
            return form
    return None


def _pick(rng: random.Random, group: str, taken: set[str]) -> str:
    return rng.choice([word for word in _WORDS[group] if word not in taken] or _WORDS[group])


def wrong_object(prompt: str, severity: int, seed: int = 0) -> tuple[str, float] | None:
    """Replace objects of the prompt: first one noun by one of its kind, at last all content words.

    All replacements, in a fixed order (known nouns, other words, then actions and looks; each known
    noun first by a near one, say dog -> horse, then by a far one, say dog -> piano), form one
    sequence; severity s takes the first s fifths of it. So a higher severity holds a lower one.

    Returns:
        The wrong prompt and its strength (0 to 1: mean wrongness of the content words), or None
        where the prompt is too short for this severity to differ from the one below.
    """
    rng = random.Random(f"{seed} {prompt}")
    words = content_words(prompt)
    nouns = [w for w in words if (known := _known(w)) and _GROUP_OF[known] in _NOUN_GROUPS]
    others = [w for w in words if not _known(w) and not w.endswith(("ing", "ed", "ly"))]
    rest = [w for w in words if w not in nouns and w not in others and not w.endswith("ly")]
    taken = {_known(word) or word for word in words}
    steps: list[tuple[str, str, float]] = []
    for word in nouns + others + rest:
        known = _known(word)
        group = _GROUP_OF[known] if known else "action" if word.endswith(("ing", "ed")) else None
        if group is not None:
            near = _pick(rng, group, taken)
            taken.add(near)
            steps.append((word, near, _NEAR if known else _FAR))
        if group not in ("action", "look"):
            far_group = rng.choice([g for g in _NOUN_GROUPS if g != group])
            far = _pick(rng, far_group, taken)
            taken.add(far)
            steps.append((word, far, _FAR))
    count = len(steps) * severity // 5
    if count == len(steps) * (severity - 1) // 5:
        return None
    replaced = {word: (new, weight) for word, new, weight in steps[:count]}

    def swap(match: re.Match[str]) -> str:
        old = match.group()
        if old.lower() not in replaced:
            return old
        new = replaced[old.lower()][0]
        if old.lower() not in _GROUP_OF and _known(old.lower()) and not new.endswith("s"):
            new += "s"
        return new.capitalize() if old[0].isupper() else new

    changed = re.sub(r"[^\W\d_]+", swap, prompt)
    changed = re.sub(
        r"\b([Aa])n? (?=([a-z]))",
        lambda m: m.group(1) + ("n " if m.group(2) in "aeiou" else " "),
        changed,
    )
    return changed, round(sum(weight for _, weight in replaced.values()) / len(words), 4)


def mismatch(prompt: str, other: str, severity: int) -> tuple[str, float] | None:
    """Another clip's prompt: the first part stays the clip's own, the rest comes from the other.

    At severity s the own prompt keeps its first (5 - s) fifths and the other prompt's last s fifths
    follow; 5 is the other prompt as it stands.

    Returns:
        The wrong prompt and the share of its words that are the other prompt's, or None where the
        prompts are too short for this severity to differ from the one below.
    """
    own_words, other_words = _units(prompt), _units(other)

    def mix(degree: int) -> tuple[list[str], list[str]]:
        count = len(own_words) * (5 - degree) // 5
        while degree and count and _is_empty(own_words[count - 1]):
            count -= 1  # no "a panda surfing on the" before the other clip's words
        if not count and degree < 5:  # nor nothing: the first word of content stays
            count = next((i + 1 for i, word in enumerate(own_words) if not _is_empty(word)), 1)
        kept = own_words[:count]
        return kept, other_words[len(other_words) - -(-len(other_words) * degree // 5) :]

    kept, taken = mix(severity)
    if not taken or (kept, taken) == mix(severity - 1):
        return None
    space = " " if " " in prompt.strip() or " " in other.strip() else ""
    text = f"{space.join(kept).rstrip(',.;:')}, {space.join(taken)}" if kept else other
    return text, round(len(taken) / (len(kept) + len(taken)), 4)


def _is_empty(word: str) -> bool:
    return word.lower().strip(",.;:") in _EMPTY


def _units(prompt: str) -> list[str]:
    words = prompt.split()
    return words if len(words) > 1 else list(prompt.strip())


class WrongPrompt(NamedTuple):
    """One kind of wrong prompt.

    Attributes:
        apply: (prompt, prompt of another clip, severity, seed) -> (wrong prompt, strength), or None
            where the prompts are too short for this severity.
        unit: What the strength measures.
        needs_other: Whether it takes the other clip's prompt; without, that may be empty.
    """

    apply: Callable[[str, str, int, int], tuple[str, float] | None]
    unit: str
    needs_other: bool = False


# By the name of the defect in `prompts.defects.DEFECTS`.
WRONG_PROMPTS = {
    "prompt_mismatch": WrongPrompt(
        lambda prompt, other, severity, seed: mismatch(prompt, other, severity),
        "share of words from the other prompt",
        needs_other=True,
    ),
    "wrong_object": WrongPrompt(
        lambda prompt, other, severity, seed: wrong_object(prompt, severity, seed),
        "wrongness of the content words",
    ),
}
