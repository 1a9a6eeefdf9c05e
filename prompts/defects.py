"""What can be wrong with a clip: a record per defect, with the words it is written and known by.

To add a defect, add a record. The order of the records and of their phrases is part of the
training data: it decides what the random choice of words gives.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from .phrasings import Phrases
from .rubric import Dimension


@dataclass(frozen=True, kw_only=True)
class DefectKind(Phrases):
    """One thing that can be wrong with a clip, with the phrases about it.

    A phrase says nothing that the label doesn't: no object, colour or place is named. `{adj}`,
    `{adv}` and `{part}` are filled in by severity; see `phrasings.DEGREES`.

    Attributes:
        name: Identifier, lower case with underscores.
        dimension: The dimension whose score it lowers.
        description: A few words for a reader who doesn't know the name.
        cues: Regular expression of the words by which a text is known to speak of it. It matches
            every one of its phrases and none of another defect of the same dimension.
    """

    name: str
    dimension: Dimension
    description: str
    cues: str

    @property
    def words(self) -> str:
        """The name as it's written in an answer: with spaces, which tokenize into plain words."""
        return self.name.replace("_", " ")


_KINDS = (
    DefectKind(
        name="blur",
        dimension="technical",
        description="out of focus or smeared, edges are soft",
        cues=r"blur\w*|soft(ness)?|unsharp\w*|out of focus|smear\w*",
        train=(
            "edges are {adv} blurred",
            "the picture is {adv} soft",
            "{adj} blur lies over the picture",
            "the shot is {adv} out of focus",
        ),
        test=("contours look {adv} smeared", "{adj} softness hides the edges"),
    ),
    DefectKind(
        name="noise",
        dimension="technical",
        description="grain or random speckle",
        cues=r"nois[ey]\w*|grain\w*|speckle\w*",
        train=(
            "{adj} noise crawls over the picture",
            "flat areas are {adv} grainy",
            "{adj} speckle dances in every frame",
            "the picture is {adv} noisy",
        ),
        test=("{adj} grain covers the shot", "every frame is {adv} speckled"),
    ),
    DefectKind(
        name="blocking",
        dimension="technical",
        description="square blocks from strong compression",
        cues=r"(macro)?block\w*|broken into squares",
        train=(
            "{adj} blocks break up the picture",
            "compression leaves {adj} blocking",
            "the picture is {adv} broken into squares",
            "{adj} macroblocks sit on flat areas",
        ),
        test=("a starved bitrate leaves {adj} blocks", "flat areas are {adv} split into blocks"),
    ),
    DefectKind(
        name="banding",
        dimension="technical",
        description="steps in what should be a smooth gradient",
        cues=r"band(s|ing)|posteri[sz]\w*|steps",
        train=(
            "gradients show {adj} banding",
            "smooth tones are {adv} split into bands",
            "{adj} steps show in smooth tones",
            "colours are {adv} posterised",
        ),
        test=("shading falls into {adj} steps", "{adj} bands run through fine gradients"),
    ),
    DefectKind(
        name="low_resolution",
        dimension="technical",
        description="fine detail is gone, as if enlarged from a small picture",
        cues=r"(low.)?resolution|upscal\w*|enlarged|fine detail",
        train=(
            "the picture looks {adv} upscaled",
            "{adj} loss of resolution",
            "fine detail is {adv} reduced",
            "it looks {adv} enlarged from a small frame",
        ),
        test=("resolution is {adv} low", "{adj} upscaling wipes out texture"),
    ),
    DefectKind(
        name="overexposure",
        dimension="technical",
        description="too bright, detail is lost in the whites",
        cues=r"over.?expos\w*|burnt out|blown out|washed out|highlights clip",
        train=(
            "highlights are {adv} burnt out",
            "the picture is {adv} overexposed",
            "{adj} overexposure eats the highlights",
            "the shot is {adv} washed out",
        ),
        test=("whites are {adv} blown out", "{adj} excess of light, highlights clip"),
    ),
    DefectKind(
        name="underexposure",
        dimension="technical",
        description="too dark, detail is lost in the blacks",
        cues=r"under.?expos\w*|crushed|dark(ness)?",
        train=(
            "shadows are {adv} crushed",
            "the picture is {adv} underexposed",
            "{adj} underexposure hides the shadows",
            "the shot is {adv} dark",
        ),
        test=("blacks are {adv} crushed", "the frame sinks into {adj} darkness"),
    ),
    DefectKind(
        name="colour_cast",
        dimension="technical",
        description="a tint lies over the whole picture",
        cues=r"cast|tint\w*|white balance",
        train=(
            "{adj} colour cast over the picture",
            "the picture is {adv} tinted",
            "white balance is {adv} off",
            "greys are {adv} tinted",
        ),
        test=("{adj} tint sits on every frame", "neutral tones show {adj} cast"),
    ),
    DefectKind(
        name="deformed_object",
        dimension="technical",
        description="hands, faces or things have a wrong shape",
        cues=r"deform\w*|malform\w*|misshapen",
        train=(
            "shapes are {adv} deformed",
            "things are {adv} misshapen",
            "{adj} deformities catch the eye",
            "forms are {adv} malformed",
        ),
        test=("{adj} malformation of what is shown", "what is shown is {adv} deformed"),
    ),
    DefectKind(
        name="freeze",
        dimension="motion",
        description="the picture holds on one frame, then jumps ahead",
        cues=r"fr[eo]ez\w*|frozen|froze|stuck|standstill|held frame",
        train=(
            "the picture freezes, then jumps ahead",
            "motion is {adv} held up by a freeze",
            "{adj} freeze before motion jumps on",
            "the shot gets {adv} stuck on one frame",
        ),
        test=("one frame is frozen for a stretch", "{adj} standstill on a held frame"),
    ),
    DefectKind(
        name="dropped_frames",
        dimension="motion",
        description="judder: movement skips because frames are missing",
        cues=r"dropped|judder\w*|stutter\w*|skip\w*|jerky|frames are (gone|missing)",
        train=(
            "{adj} judder from dropped frames",
            "motion stutters {adv}",
            "{adj} stutter in every movement",
            "movement skips {adv} where frames are gone",
        ),
        test=("dropped frames make motion {adv} jerky", "{adj} skips where frames are missing"),
    ),
    DefectKind(
        name="shuffled_frames",
        dimension="motion",
        description="frames come in the wrong order",
        cues=r"shuffl\w*|order|back and forth|back in time",
        train=(
            "frames are {adv} out of order",
            "motion hops {adv} back and forth",
            "{adj} disorder of shuffled frames",
            "frames come in the wrong order",
        ),
        test=("{adj} jumps back in time", "the order of frames is {adv} mixed up"),
    ),
    DefectKind(
        name="shake",
        dimension="motion",
        description="the camera trembles",
        cues=r"shak\w*|trembl\w*|jitter\w*|unsteady",
        train=(
            "the camera shakes {adv}",
            "{adj} camera shake",
            "the frame is {adv} unsteady",
            "{adj} jitter of the camera",
        ),
        test=("the camera trembles {adv}", "{adj} shaking as if handheld"),
    ),
    DefectKind(
        name="flicker",
        dimension="motion",
        description="brightness pulses from frame to frame",
        cues=r"flicker\w*|strob\w*|pulsat\w*|pulses",
        train=(
            "brightness flickers {adv}",
            "{adj} flicker of brightness",
            "light pulses {adv} from frame to frame",
            "exposure is {adv} pulsating",
        ),
        test=("{adj} strobing of the light", "the light is {adv} flickering"),
    ),
    DefectKind(
        name="ghosting",
        dimension="motion",
        description="trails or double pictures of what moves",
        cues=r"ghost\w*|trails|double images|afterimages?|echo\w*",
        train=(
            "{adj} ghosting behind what moves",
            "moving things leave {adj} trails",
            "movement is {adv} doubled by ghosts",
            "{adj} double images follow motion",
        ),
        test=("{adj} afterimages follow the action", "what moves leaves {adj} echoes"),
    ),
    DefectKind(
        name="warping",
        dimension="motion",
        description="shapes bend and swim from frame to frame",
        cues=r"warp\w*|bend\w*|swim|melt\w*",
        train=(
            "shapes warp {adv} from frame to frame",
            "{adj} warping of shapes",
            "things bend and swim {adv}",
            "surfaces melt {adv} as they move",
        ),
        test=("{adj} rubbery bending of shapes", "outlines are {adv} melting"),
    ),
    DefectKind(
        name="near_static",
        dimension="motion",
        description="hardly anything moves in the whole clip",
        cues=r"static|still(ness)?|slowed|sluggish|lack of movement",
        train=(
            "motion is {adv} slowed down",
            "the shot is {adv} static",
            "{adj} lack of movement",
            "movement is {adv} sluggish",
        ),
        test=("the clip is {adv} close to a still", "{adj} stillness in the whole shot"),
    ),
    DefectKind(
        name="low_dynamic",
        dimension="motion",
        description="much less movement than the prompt calls for",
        cues=r"dynamics?|timid|tame|energy|more action",
        train=(
            "the prompt calls for more action",
            "dynamics are {adv} flat",
            "the action is {adv} timid",
            "{adj} want of energy in the action",
        ),
        test=("the action is {adv} tame", "{adj} shortage of energy"),
    ),
    DefectKind(
        name="unnatural_motion",
        dimension="motion",
        description="movement that breaks physics or anatomy",
        cues=r"unnatural\w*|physics|implausib\w*|impossib\w*",
        train=(
            "movement is {adv} unnatural",
            "{adj} breaks of physics",
            "motion looks {adv} implausible",
            "movement is {adv} at odds with physics",
        ),
        test=("{adj} impossible movements", "the action runs {adv} unnaturally"),
    ),
    DefectKind(
        name="morphing",
        dimension="motion",
        description="an object turns into another one",
        cues=r"morph\w*|turns into|transform\w*",
        train=(
            "an object morphs {adv} into another",
            "{adj} morphing of an object",
            "something turns into another thing",
            "identity drifts, {adj} morphing",
        ),
        test=("an object transforms without cause", "{adj} transformation of a thing"),
    ),
    DefectKind(
        name="vanishing_object",
        dimension="motion",
        description="an object disappears or appears without a cause",
        cues=r"vanish\w*|disappear\w*|pop(s|ping)?",
        train=(
            "an object vanishes without cause",
            "{adj} popping, things come and go",
            "something disappears or appears mid-shot",
            "an object pops in or out",
        ),
        test=("things appear or disappear at random", "{adj} vanishing of an object"),
    ),
    DefectKind(
        name="prompt_mismatch",
        dimension="semantic",
        description="the clip shows something else than the prompt",
        cues=r"mismatch\w*|not match|off the prompt|something else|another story|at odds",
        train=(
            "{part} of the prompt does not match",
            "{adj} mismatch of clip and prompt",
            "the clip is {adv} off the prompt",
            "{part} of the prompt is about something else",
        ),
        test=("{part} of the text tells another story", "prompt and clip are {adv} at odds"),
    ),
    DefectKind(
        name="scene_cut",
        dimension="semantic",
        description="the clip cuts to another scene",
        cues=r"cuts?|another scene|other footage",
        train=(
            "the clip cuts to another scene",
            "{adj} break, a cut to other footage",
            "a cut leaves the asked scene",
            "the scene is cut off by other footage",
        ),
        test=("a hard cut to a different scene", "foreign footage is cut in"),
    ),
    DefectKind(
        name="wrong_object",
        dimension="semantic",
        description="one thing of the prompt is shown as another thing",
        cues=r"wrong (thing|object)|mix-up|swap\w*|in place of|replaced",
        train=(
            "the wrong thing is shown, {adj} mix-up",
            "{part} of what was asked is swapped",
            "the wrong object stands in the scene",
            "a thing is shown in place of the one asked",
        ),
        test=("{adj} swap of what was asked", "what was asked is replaced by another thing"),
    ),
    DefectKind(
        name="missing_object",
        dimension="semantic",
        description="one thing of the prompt isn't shown",
        cues=r"missing|left out|nowhere|never shows|absent",
        train=(
            "one thing of the prompt is missing",
            "an asked object is left out",
            "something asked for is nowhere to be seen",
            "{adj} gap, an object is missing",
        ),
        test=("a thing from the prompt never shows up", "an asked object is absent"),
    ),
    DefectKind(
        name="duplicated_object",
        dimension="semantic",
        description="one thing of the prompt is shown more than once",
        cues=r"twice|duplicat\w*|cloned|copies|doubled",
        train=(
            "an object is shown twice",
            "{adj} duplication of an object",
            "a thing of the prompt is cloned",
            "extra copies of one thing appear",
        ),
        test=("one object is duplicated", "something shows up doubled"),
    ),
    DefectKind(
        name="wrong_count",
        dimension="semantic",
        description="not as many things as the prompt says",
        cues=r"number|miscount\w*|count|amount|too (many|few)",
        train=(
            "the number of things is {adv} wrong",
            "{adj} miscount against the prompt",
            "the count is not the one asked",
            "there are too many or too few of them",
        ),
        test=("the amount of things is {adv} wrong", "{adj} error in the number of objects"),
    ),
    DefectKind(
        name="appearing_object",
        dimension="motion",
        description="an object appears from nowhere",
        cues=r"out of nowhere|thin air|materiali[sz]\w*|enters? without",
        train=(
            "an object comes out of nowhere",
            "something materialises {adv} mid-shot",
            "{adj} arrival out of thin air",
            "a thing enters without a way in",
        ),
        test=("an object is there out of nowhere", "a thing materialises without cause"),
    ),
    DefectKind(
        name="identity_drift",
        dimension="motion",
        description="a thing doesn't stay the same thing",
        cues=r"identity (of|does)|another kind|not the same thing|becomes?",
        train=(
            "the identity of a thing is {adv} unstable",
            "a thing becomes another kind of thing",
            "{adj} change, a thing is not the same thing later",
            "what it is becomes {adv} unclear over time",
        ),
        test=("its identity does not hold, {adj} drift", "a thing ends as another kind of thing"),
    ),
)

DEFECTS: Mapping[str, DefectKind] = MappingProxyType({kind.name: kind for kind in _KINDS})
