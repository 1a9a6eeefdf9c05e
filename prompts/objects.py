"""The things that a prompt asks for, as far as an object detector can look for them.

    >>> [(a.noun, a.name, a.count) for a in asked_things("two dogs chase a robot past a red sofa")]
    [('dogs', 'dog', 2), ('robot', None, None), ('sofa', 'couch', 1)]

A prompt's words are compared with the names of COCO's 80 classes, their plurals and synonyms. What
none of them covers, but is a thing for certain, is known to be beyond the detector. No grammar is
parsed: a word that may be a verb or a colour (`train`, `orange`) counts only behind an article or
a number.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

NUMBERS: Mapping[str, int] = {
    word: number
    for number, words in (
        (1, "one single lone solitary"),
        (2, "two both pair couple"),
        (3, "three trio"),
        (4, "four"),
        (5, "five"),
        (6, "six"),
        (7, "seven"),
        (8, "eight"),
        (9, "nine"),
        (10, "ten"),
    )
    for word in words.split()
}
_ARTICLES = {"a", "an", "another", "this", "that", "his", "her", "its", "the", "their", "my"}
_AFTER = set(", . ; : ! ? ( ) on in and or is are with at from to by of near under over".split())
_MANY = {"many", "some", "several", "few", "group", "groups", "crowd", "herd", "flock", "dozens"}
_NUMBER = rf"(?:\d+|{'|'.join(NUMBERS)})"
# Numbers that don't say how many of the next thing there are.
_UNCOUNTED = re.compile(
    rf"\b(?:\w+-{_NUMBER}|{_NUMBER}-\w+)\b(?:-\w+)*|\b\d+[a-z]+\b|\b{_NUMBER} years? old\b|"
    rf"\b{_NUMBER} (?:hundred|thousand|million|dozen)\b|\b{_NUMBER} (?:or|to) (?:more|{_NUMBER})\b|"
    rf"\b(?:at least|at most|more than|less than|up to|over|about|around|nearly|almost) {_NUMBER}\b"
)
_REACH = 4  # words between an article or a number and its noun, at most, and one: "two small red"

# Classes with what else they are called; what a plural is called is worked out. `+` before a word:
# it may be something else than a thing, and counts behind an article or a number only.
_WORDS = {
    "person": "person man woman boy girl child kid baby toddler guy lady gentleman people human "
    "couple+ teenager chef dancer musician guitarist singer soldier astronaut skier snowboarder "
    "surfer cyclist biker rider runner jogger worker farmer fisherman artist painter librarian "
    "doctor nurse teacher student player athlete cowboy knight king queen prince princess bride "
    "groom police officer firefighter businessman businesswoman chemist scientist actor actress "
    "pedestrian fireman policeman grandmother grandfather mother father daughter son friend "
    "barista hairdresser stylist welder canoeist",
    "bicycle": "bicycle bike",
    "car": "car suv sedan taxi cab jeep convertible automobile",
    "motorcycle": "motorcycle motorbike scooter",
    "airplane": "airplane plane aeroplane aircraft airliner",
    "bus": "bus minibus",
    "train": "train+ locomotive",
    "truck": "truck lorry",
    "boat": "boat sailboat ship canoe kayak yacht",
    "traffic light": "traffic_light stoplight",
    "fire hydrant": "fire_hydrant",
    "stop sign": "stop_sign",
    "parking meter": "parking_meter",
    "bench": "bench+",
    "bird": "bird parrot eagle pigeon seagull owl duck swan goose",
    "cat": "cat kitten kitty tabby",
    "dog": "dog puppy corgi poodle labrador golden_retriever husky dachshund pug beagle",
    "horse": "horse pony stallion",
    "sheep": "sheep lamb",
    "cow": "cow cattle",
    "elephant": "elephant",
    "bear": "bear+ polar_bear grizzly",
    "zebra": "zebra",
    "giraffe": "giraffe",
    "backpack": "backpack rucksack",
    "umbrella": "umbrella parasol",
    "handbag": "handbag purse",
    "tie": "tie+ necktie",
    "suitcase": "suitcase",
    "frisbee": "frisbee",
    "skis": "ski+",
    "snowboard": "snowboard+",
    "sports ball": "soccer_ball football basketball tennis_ball baseball volleyball",
    "kite": "kite+",
    "baseball bat": "baseball_bat",
    "baseball glove": "baseball_glove",
    "skateboard": "skateboard+",
    "surfboard": "surfboard",
    "tennis racket": "tennis_racket",
    "bottle": "bottle",
    "wine glass": "wine_glass",
    "cup": "cup mug",
    "fork": "fork+",
    "knife": "knife",
    "spoon": "spoon+",
    "bowl": "bowl",
    "banana": "banana",
    "apple": "apple",
    "sandwich": "sandwich burger hamburger",
    "orange": "orange+",
    "broccoli": "broccoli",
    "carrot": "carrot",
    "hot dog": "hot_dog",
    "pizza": "pizza",
    "donut": "donut doughnut",
    "cake": "cake cupcake",
    "chair": "chair armchair",
    "couch": "couch+ sofa",
    "potted plant": "potted_plant houseplant",
    "bed": "bed",
    "dining table": "dining_table table",
    "toilet": "toilet",
    "tv": "tv television",
    "laptop": "laptop",
    "mouse": "computer_mouse",
    "remote": "remote_control",
    "keyboard": "computer_keyboard",
    "cell phone": "cell_phone phone smartphone",
    "microwave": "microwave",
    "oven": "oven stove",
    "toaster": "toaster",
    "sink": "sink+",
    "refrigerator": "refrigerator fridge",
    "book": "book+",
    "clock": "clock",
    "vase": "vase",
    "scissors": "scissors",
    "teddy bear": "teddy_bear teddy stuffed_bear",
    "hair drier": "hair_drier hair_dryer",
    "toothbrush": "toothbrush",
}
# Things beyond the 80 classes that prompts ask for often, and phrases in which a class's word
# means something else.
_BEYOND = (
    "robot dragon panda kangaroo tiger lion monkey rabbit bunny fox wolf deer raccoon squirrel "
    "shark fish clown_fish whale dolphin turtle penguin unicorn dinosaur monster alien fairy "
    "mermaid butterfly bee spider snake frog snail octopus jellyfish hamster pig chicken goat "
    "camel otter koala spaceship rocket helicopter drone tank submarine spacecraft satellite "
    "castle house building tower bridge windmill lighthouse church temple statue fountain barn "
    "tree flower rose sunflower mushroom cactus mountain volcano waterfall river lake ocean beach "
    "guitar piano violin drum drum_kit trumpet saxophone veena microphone candle lamp "
    "lantern balloon water_balloon firework whisk tap leaf_blower hose towel mop bucket "
    "watering_can sledgehammer hammer sword javelin arrow gun helmet hat sunglasses mask crown "
    "dress coat saree armor ring necklace jar beaker test_tube glass pancake honey noodle bread "
    "egg cheese tomato strawberry coffee tea soup snowman pumpkin origami swing jump_rope "
    "hoverboard stroller wheelchair fence door window mirror carpet "
    # things that the words alone would take for others
    "toy_car cable_car toy_boat toy_ship toy_train dragon_kite coffee_table spray_can bookshelf "
    "iron_man spider_man apple_tree orange_tree sea_horse action_figure pool_table hot_pot"
).split()
_NOTHING = (  # words that name no thing together
    "bird_view bird_eye_view person_view first_person third_person first_person_view race_track "
    "car_park train_station bus_stop bus_station table_tennis football_field football_stadium "
    "basketball_court baseball_field soccer_field horse_race man_made cat_walk sandwich_board "
    "couple_of"
).split()
_OTHER_WORD = frozenset("style view shaped themed like sized".split())  # ... behind a thing's
# Behind a class's word they make it another thing, or a part that doesn't show the whole.
_HEADS = frozenset(
    "cage nest house kennel park farm zoo cafe show shop store food bowl collar toy toys bed "
    "costume mask hat ears ear tail paw paws nose face head skull eye eyes mouth hand hands "
    "finger fingers arm arms leg legs foot feet hair skin fur lungs body bone statue statues "
    "sculpture figurine puppet logo sign sticker poster painting silhouette shadow herd family "
    "pack carriage cart chariot race driver drivers engine engines wheel wheels door window "
    "windows dashboard headlights interior seat cockpit cabin chassis tire tires brakes garage "
    "dock station shuttle ride trip chase crash cake oven box truck".split()
)
_LIKENESSES = frozenset(
    "statue statues sculpture sculptures figurine figurines poster logo shadow shadows "
    "reflection model".split()
)
# Before a creature's word: it is made to look like one.
_MADE = frozenset(
    "toy stuffed plush wooden rocking carousel mechanical robotic robot cyborg inflatable paper "
    "origami lego clay ceramic porcelain glass crystal bronze stone marble ice snow sand rubber "
    "cardboard balloon".split()
)
_CREATURES = frozenset("person bird cat dog horse sheep cow elephant bear zebra giraffe".split())
_VEHICLES = frozenset("car bus train truck airplane boat".split())
_WITHIN = frozenset("in inside aboard on from through within".split())
_NEGATIONS = frozenset("no without not nor".split())
# Of pictures that aren't meant to look like photographs: a detector can't be trusted there.
_STYLED = re.compile(
    r"\b(anime|animat\w+|cartoon\w*|painting|paint(ed|erly)|watercolou?r|sketch\w*|drawing|drawn|"
    r"origami|paper|lego|clay\w*|pixar|disney|3d|render\w*|cgi|voxel|pixel art|low poly|comic\w*|"
    r"manga|ghibli|illustrat\w*|psyche?de?l\w*|surreal|abstract|cyberpunk|fantasy|style of|"
    r"van gogh|ukiyo|minecraft|stop.motion|mortal kombat|silhouettes?)\b"
)
_DARK = re.compile(r"\b(night|dark\w*|fog\w*|mist\w*|smok\w+|underwater|under water|dim\w*)\b")
_ACTION = re.compile(
    r"\b(run|runs|running|danc(e|es|ed|ing)|jump(s|ed|ing)|fight(s|ing)|gallop\w*|chas(e|es|ing)|"
    r"rac(es|ing)|explod\w*|spin(s|ning)|skateboarding|surfing|skiing|snowboarding|flies|flying|"
    r"sprint\w*|kick(s|ed|ing)|swing(s|ing)|throw(s|ing)|falling|crash(es|ing)|pour(s|ing)|swims|"
    r"swimming|walks|walking|rides|riding)\b"
)
_COLOURED = re.compile(
    r"\b(violet|purple|neon|cyberpunk|sunset|sunrise|golden|sepia|monochrome|colou?r\w*|vibrant|"
    r"psyche?de?l\w*|infrared|aurora|red|blue|green|orange|yellow|pink|teal|underwater|night)\b"
)
_CUTS = re.compile(
    r"\b(cuts? to|montage|shots|scenes|sequences?|then the camera|transition\w*|split.screen|"
    r"turns? into|transform\w*|time.?lapse|compilation|trailer|commercial|music video)\b"
)
_CHANGES = re.compile(
    r"\b(morph\w*|metamorphos\w*|turn(ing|ed) into|becom(e|es|ing)|became|chang(e|es|ed|ing) into|"
    r"evolv\w*|melt\w*|dissolv\w*|bloom(s|ed|ing)|grow(s|n|ing)? into|hatch\w*|explo(de|sion)\w*)\b"
)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A thing that a prompt asks for.

    Attributes:
        noun: The prompt's word or words.
        name: COCO's name of its class; None where it has none.
        count: How many, where that's said: by a number, or by `a`; None where it's open.
        exact: Whether a number says so, rather than an article.
        whole: Whether it's asked for as itself, so that its absence or its number says something.
    """

    noun: str
    name: str | None
    count: int | None = None
    exact: bool = False
    whole: bool = True


def asked_things(prompt: str) -> list[Asked]:
    """What a prompt asks for, in its order; each class once, with numbers added up.

    Args:
        prompt: In English; of others nothing is found.
    """
    text = _UNCOUNTED.sub("many", re.sub(r"['’]s\b", "", prompt.lower()))
    words = re.findall(r"[a-z]+|\d+|[,.;:!?()]", text.replace("-", " "))
    found: dict[str, Asked] = {}
    taken = -1  # the last word that belongs to something
    absent = False  # whether the prompt says that it isn't there
    number = 0
    while number < len(words):
        phrase, name = _longest(words, number)
        count, exact, led = _count(words, number, taken)
        doubtful = name is not None and name.endswith("+")
        name = name and name.rstrip("+")
        plural = bool(phrase) and is_plural(phrase[-1])
        end = number + max(1, len(phrase))
        following = words[end] if end < len(words) else ""
        standing = name != "-" and (
            not doubtful or (led and (not following or following in _AFTER))
        )
        before = words[max(0, number - _REACH - 1) : number]
        since = words[max(taken + 1, number - _REACH - 1) : number]
        if phrase:
            absent = _is_negated(since, absent)
        if (
            phrase
            and not absent
            and standing
            and following not in _OTHER_WORD
            and ("like" not in before[-2:])
        ):
            noun = " ".join(phrase)
            whole = _is_whole(before, name or "", following, plural)
            if count is not None and (count > 1) != plural or plural and not exact:
                count = None
            one = Asked(noun=noun, name=name or None, count=count, exact=exact, whole=whole)
            key = name or noun
            beside = since[:1] == ["and"]
            found[key] = _added(found[key], one, beside=beside) if key in found else one
        if phrase:
            taken = number + len(phrase) - 1
            number = taken
        number += 1
    return [
        one if one.name and one.whole else replace(one, count=None, exact=False)
        for one in found.values()
    ]


def things_in(text: str) -> list[tuple[int, int]]:
    """Where a text names things, whether a detector knows their classes or not.

    A word that may be something else, such as `orange`, counts behind an article or a number only.

    Returns:
        Start and end of each, in the order of the text.
    """
    # Not in lower case as a whole: a capital I with a dot becomes two characters.
    places = [match.span() for match in re.finditer(r"[A-Za-z]+|\d+|[,.;:!?()]", text)]
    words = [text[start:end].lower() for start, end in places]
    found, number = [], 0
    while number < len(words):
        phrase, name = _longest(words, number)
        last = number + max(0, len(phrase) - 1)
        sure = not (name or "").endswith("+") or _stands(words, number, last + 1)
        if phrase and name != "-" and sure:
            found.append((places[number][0], places[last][1]))
        number = last + 1
    return found


def _stands(words: list[str], start: int, end: int) -> bool:
    """Whether words stand between an article or a number and the end of a phrase."""
    before, after = words[start - 1 : start], words[end : end + 1]
    led = any(w in _ARTICLES or w in NUMBERS or w.isdigit() for w in before)
    return led and (not after or after[0] in _AFTER)


def class_of(words: str) -> str | None:
    """COCO's name of a thing, `dog` of `puppies`; None where it has none."""
    if words in _WORDS:
        return words
    return _TABLE.get(tuple(words.lower().split()), "").rstrip("+-") or None


def is_styled(prompt: str) -> bool:
    """Whether a prompt asks for something else than a photograph's look, as far as words tell."""
    return bool(_STYLED.search(prompt.lower()))


def is_dim(prompt: str) -> bool:
    """Whether a prompt asks for night, fog, smoke or water around things."""
    return bool(_DARK.search(prompt.lower()))


def asks_for_action(prompt: str) -> str | None:
    """The first word of a prompt that asks for movement of a whole body or thing, if any."""
    found = _ACTION.search(prompt.lower())
    return found[0] if found else None


def asks_for_cuts(prompt: str) -> bool:
    """Whether a prompt asks for more than one shot."""
    return bool(_CUTS.search(prompt.lower()))


def asks_for_change(prompt: str) -> bool:
    """Whether a prompt asks for something to become another thing, or for more than one shot."""
    return asks_for_cuts(prompt) or bool(_CHANGES.search(prompt.lower()))


def asks_for_colours(prompt: str) -> bool:
    """Whether a prompt asks for light or colours that tint a whole picture."""
    return bool(_COLOURED.search(prompt.lower()))


def plural_of(noun: str) -> str:
    """The plural of a class's name: `dog` to `dogs`, `person` to `people`."""
    *before, last = noun.split()
    return " ".join([*before, _PLURALS.get(last) or _regular(last)])


def one_of(noun: str) -> str:
    """What one of a class is called, where its name stands for no single one: `pair of skis`."""
    return f"{_PIECES[noun]} of {noun}" if noun in _PIECES else noun


def several_of(noun: str) -> str:
    """What several of a class, or of a prompt's word, are called: `dogs`, `pairs of skis`."""
    if noun in _PIECES:
        return f"{_PIECES[noun]}s of {noun}"
    return noun if is_plural(noun) else plural_of(noun)


def comes_in_pairs(noun: str) -> bool:
    """Whether a pair of them is one thing: of scissors, not of dogs."""
    return _PIECES.get(noun.lower()) == "pair"


def is_plural(noun: str) -> bool:
    """Whether a noun, or its last word, stands for several things: `dogs`, `people`, `sheep`."""
    last = noun.split()[-1]
    if last in _MASS or last in _PLURALS.values():
        return True
    return last.endswith("s") and not last.endswith("ss") and last not in ("bus", "canvas")


_PLURALS = {
    "person": "people",
    "man": "men",
    "woman": "women",
    "child": "children",
    "sheep": "sheep",
    "cattle": "cattle",
    "fish": "fish",
    "skis": "skis",
    "scissors": "scissors",
    "knife": "knives",
    "goose": "geese",
    "mouse": "mice",
    "policeman": "policemen",
    "fireman": "firemen",
    "fisherman": "fishermen",
    "gentleman": "gentlemen",
    "businessman": "businessmen",
    "businesswoman": "businesswomen",
    "people": "peoples",
    "wolf": "wolves",
    "aircraft": "aircraft",
}

_PIECES = {"skis": "pair", "scissors": "pair", "broccoli": "piece"}


def _regular(noun: str) -> str:
    if noun.endswith(("s", "x", "ch", "sh", "z")):
        return noun + "es"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


def _table() -> dict[tuple[str, ...], str]:
    """Words to a class; `+` where it is in doubt, empty beyond them, `-` for no thing at all."""
    table: dict[tuple[str, ...], str] = {}
    named = [("-", " ".join(_NOTHING)), ("", " ".join(_BEYOND)), *_WORDS.items()]
    for name, nouns in named:
        for noun in nouns.split():
            doubtful = "+" * noun.endswith("+")
            words = tuple(noun.rstrip("+").split("_"))
            table[words] = name + doubtful
            table[*words[:-1], plural_of(words[-1])] = name  # "oranges" are no colour
    return table


_TABLE = _table()
_LONGEST = max(map(len, _TABLE))
_MASS = {"people", "cattle", "police"}


def _longest(words: list[str], start: int) -> tuple[tuple[str, ...], str | None]:
    for length in range(_LONGEST, 0, -1):
        phrase = tuple(words[start : start + length])
        if len(phrase) == length and phrase in _TABLE:
            return phrase, _TABLE[phrase]
    return (), None


def _is_whole(before: list[str], name: str, following: str, plural: bool) -> bool:
    """Whether words ask for a thing itself, to be seen as a whole.

    Not for another one (`dog park`), a part (`a man's hand`), a likeness (`a statue of a horse`) or
    what is around the camera (`in a car`).
    """
    if following in _HEADS and (not plural or following.endswith("s")):
        return False
    if before[-1:] == ["toy"] or (name in _CREATURES and before and before[-1] in _MADE):
        return False
    led = before[:-1] if before[-1:] and before[-1] in _ARTICLES else before
    if name in _VEHICLES and led and led[-1] in _WITHIN:
        return False
    return not any(of == "of" and what in _LIKENESSES for what, of in zip(before, before[1:]))


def _is_negated(since: list[str], absent: bool) -> bool:
    """Whether words before a thing say that it isn't there; of a list each thing, as its first."""
    if absent and all(word in (",", "or", "nor", "and") for word in since):
        return True
    after = ""
    for word in reversed(since):
        if word in _NEGATIONS:
            return after != "only"
        if not word.isalpha() or (word in _ARTICLES and after):
            break
        after = word
    return False


def _count(words: list[str], place: int, taken: int) -> tuple[int | None, bool, bool]:
    """How many the words before a noun say, whether that's a number, and if there is any such."""
    for before in range(place - 1, max(taken, place - 1 - _REACH), -1):
        word = words[before]
        if word in _MANY or word == "them":
            return None, False, True
        if word.isdigit() and len(word) < 5 and 0 < int(word) <= 10:
            return int(word), True, True
        if word == "pair" and comes_in_pairs(words[place]):
            continue
        if word in NUMBERS:
            return NUMBERS[word], True, True
        if word in _ARTICLES:
            one = 1 if word in ("a", "an") else None
            return one, False, True
        if not word.isalpha():
            break
    return None, False, False


def _added(first: Asked, second: Asked, *, beside: bool) -> Asked:
    """Two mentions of a class: numbers of different things add up, and what is open stays open.

    A number that comes later may be of the same ones: `two dogs play. One dog barks`.
    """
    whole = first.whole and second.whole
    if first.count is None or second.count is None or (second.exact and not beside):
        return replace(first, count=None, exact=False, whole=whole)
    count, exact = first.count + second.count, first.exact and second.exact
    return replace(first, count=count, exact=exact, whole=whole)
