"""Sentences for defects and levels, kept apart for training and test.

A sentence says nothing that the label doesn't: no object, colour or place is named. `{adj}` and
`{adv}` are words of the severity, `{part}` a share of the prompt; see `DEGREES`. Each sentence of a
defect holds a word by which `consistency.mentioned` knows it, and no word of a neighbour's.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

Split = Literal["train", "test"]


class Phrases(NamedTuple):
    """Wordings of one thing; none is in both."""

    train: tuple[str, ...]
    test: tuple[str, ...]


# Slot to the words for severity 1 to 5, several for each.
DEGREES: Mapping[str, tuple[tuple[str, ...], ...]] = MappingProxyType(
    {
        "adj": (("slight", "faint"), ("mild", "moderate"), ("clear", "marked"),
                ("heavy", "strong"), ("extreme", "massive")),
        "adv": (("slightly", "faintly"), ("mildly", "somewhat"), ("clearly", "markedly"),
                ("badly", "heavily"), ("extremely", "hopelessly")),
        "part": (("a little", "a bit"), ("some", "a part"), ("much", "a large part"),
                 ("most", "the greater part"), ("all", "the whole")),
    }
)

DEFECT_PHRASES: Mapping[str, Phrases] = MappingProxyType(
    {
        "blur": Phrases(
            ("edges are {adv} blurred", "the picture is {adv} soft",
             "{adj} blur lies over the picture", "the shot is {adv} out of focus"),
            ("contours look {adv} smeared", "{adj} softness hides the edges"),
        ),
        "noise": Phrases(
            ("{adj} noise crawls over the picture", "flat areas are {adv} grainy",
             "{adj} speckle dances in every frame", "the picture is {adv} noisy"),
            ("{adj} grain covers the shot", "every frame is {adv} speckled"),
        ),
        "blocking": Phrases(
            ("{adj} blocks break up the picture", "compression leaves {adj} blocking",
             "the picture is {adv} broken into squares", "{adj} macroblocks sit on flat areas"),
            ("a starved bitrate leaves {adj} blocks", "flat areas are {adv} split into blocks"),
        ),
        "banding": Phrases(
            ("gradients show {adj} banding", "smooth tones are {adv} split into bands",
             "{adj} steps show in smooth tones", "colours are {adv} posterised"),
            ("shading falls into {adj} steps", "{adj} bands run through fine gradients"),
        ),
        "low_resolution": Phrases(
            ("the picture looks {adv} upscaled", "{adj} loss of resolution",
             "fine detail is {adv} reduced", "it looks {adv} enlarged from a small frame"),
            ("resolution is {adv} low", "{adj} upscaling wipes out texture"),
        ),
        "overexposure": Phrases(
            ("highlights are {adv} burnt out", "the picture is {adv} overexposed",
             "{adj} overexposure eats the highlights", "the shot is {adv} washed out"),
            ("whites are {adv} blown out", "{adj} excess of light, highlights clip"),
        ),
        "underexposure": Phrases(
            ("shadows are {adv} crushed", "the picture is {adv} underexposed",
             "{adj} underexposure hides the shadows", "the shot is {adv} dark"),
            ("blacks are {adv} crushed", "the frame sinks into {adj} darkness"),
        ),
        "colour_cast": Phrases(
            ("{adj} colour cast over the picture", "the picture is {adv} tinted",
             "white balance is {adv} off", "greys are {adv} tinted"),
            ("{adj} tint sits on every frame", "neutral tones show {adj} cast"),
        ),
        "deformed_object": Phrases(
            ("shapes are {adv} deformed", "things are {adv} misshapen",
             "{adj} deformities catch the eye", "forms are {adv} malformed"),
            ("{adj} malformation of what is shown", "what is shown is {adv} deformed"),
        ),
        "freeze": Phrases(
            ("the picture freezes, then jumps ahead", "motion is {adv} held up by a freeze",
             "{adj} freeze before motion jumps on", "the shot gets {adv} stuck on one frame"),
            ("one frame is frozen for a stretch", "{adj} standstill on a held frame"),
        ),
        "dropped_frames": Phrases(
            ("{adj} judder from dropped frames", "motion stutters {adv}",
             "{adj} stutter in every movement", "movement skips {adv} where frames are gone"),
            ("dropped frames make motion {adv} jerky", "{adj} skips where frames are missing"),
        ),
        "shuffled_frames": Phrases(
            ("frames are {adv} out of order", "motion hops {adv} back and forth",
             "{adj} disorder of shuffled frames", "frames come in the wrong order"),
            ("{adj} jumps back in time", "the order of frames is {adv} mixed up"),
        ),
        "shake": Phrases(
            ("the camera shakes {adv}", "{adj} camera shake",
             "the frame is {adv} unsteady", "{adj} jitter of the camera"),
            ("the camera trembles {adv}", "{adj} shaking as if handheld"),
        ),
        "flicker": Phrases(
            ("brightness flickers {adv}", "{adj} flicker of brightness",
             "light pulses {adv} from frame to frame", "exposure is {adv} pulsating"),
            ("{adj} strobing of the light", "the light is {adv} flickering"),
        ),
        "ghosting": Phrases(
            ("{adj} ghosting behind what moves", "moving things leave {adj} trails",
             "movement is {adv} doubled by ghosts", "{adj} double images follow motion"),
            ("{adj} afterimages follow the action", "what moves leaves {adj} echoes"),
        ),
        "warping": Phrases(
            ("shapes warp {adv} from frame to frame", "{adj} warping of shapes",
             "things bend and swim {adv}", "surfaces melt {adv} as they move"),
            ("{adj} rubbery bending of shapes", "outlines are {adv} melting"),
        ),
        "near_static": Phrases(
            ("motion is {adv} slowed down", "the shot is {adv} static",
             "{adj} lack of movement", "movement is {adv} sluggish"),
            ("the clip is {adv} close to a still", "{adj} stillness in the whole shot"),
        ),
        "low_dynamic": Phrases(
            ("the prompt calls for more action", "dynamics are {adv} flat",
             "the action is {adv} timid", "{adj} want of energy in the action"),
            ("the action is {adv} tame", "{adj} shortage of energy"),
        ),
        "unnatural_motion": Phrases(
            ("movement is {adv} unnatural", "{adj} breaks of physics",
             "motion looks {adv} implausible", "movement is {adv} at odds with physics"),
            ("{adj} impossible movements", "the action runs {adv} unnaturally"),
        ),
        "morphing": Phrases(
            ("an object morphs {adv} into another", "{adj} morphing of an object",
             "something turns into another thing", "identity drifts, {adj} morphing"),
            ("an object transforms without cause", "{adj} transformation of a thing"),
        ),
        "vanishing_object": Phrases(
            ("an object vanishes without cause", "{adj} popping, things come and go",
             "something disappears or appears mid-shot", "an object pops in or out"),
            ("things appear or disappear at random", "{adj} vanishing of an object"),
        ),
        "prompt_mismatch": Phrases(
            ("{part} of the prompt does not match", "{adj} mismatch of clip and prompt",
             "the clip is {adv} off the prompt", "{part} of the prompt is about something else"),
            ("{part} of the text tells another story", "prompt and clip are {adv} at odds"),
        ),
        "scene_cut": Phrases(
            ("the clip cuts to another scene", "{adj} break, a cut to other footage",
             "a cut leaves the asked scene", "the scene is cut off by other footage"),
            ("a hard cut to a different scene", "foreign footage is cut in"),
        ),
        "wrong_object": Phrases(
            ("the wrong thing is shown, {adj} mix-up", "{part} of what was asked is swapped",
             "the wrong object stands in the scene", "a thing is shown in place of the one asked"),
            ("{adj} swap of what was asked", "what was asked is replaced by another thing"),
        ),
        "missing_object": Phrases(
            ("one thing of the prompt is missing", "an asked object is left out",
             "something asked for is nowhere to be seen", "{adj} gap, an object is missing"),
            ("a thing from the prompt never shows up", "an asked object is absent"),
        ),
        "duplicated_object": Phrases(
            ("an object is shown twice", "{adj} duplication of an object",
             "a thing of the prompt is cloned", "extra copies of one thing appear"),
            ("one object is duplicated", "something shows up doubled"),
        ),
        "wrong_count": Phrases(
            ("the number of things is {adv} wrong", "{adj} miscount against the prompt",
             "the count is not the one asked", "there are too many or too few of them"),
            ("the amount of things is {adv} wrong", "{adj} error in the number of objects"),
        ),
    }
)

# Dimension and level to what is said where no defect is named.
LEVEL_PHRASES: Mapping[str, Mapping[str, Phrases]] = MappingProxyType(
    {
        "technical": {
            "excellent": Phrases(
                ("the picture is sharp and clean", "crisp detail and clean tones",
                 "exposure and detail are flawless", "sharp, clean and well exposed"),
                ("detail is crisp and colours are true", "a pristine picture throughout"),
            ),
            "good": Phrases(
                ("the picture is mostly clean", "detail and exposure hold up well",
                 "a clean picture with good detail", "sharpness and tones are fine"),
                ("the picture quality is solid", "tones and detail look fine"),
            ),
            "fair": Phrases(
                ("the picture is passable, no more", "detail is just acceptable",
                 "picture quality is middling", "an average picture"),
                ("the picture is so-so", "detail and tones are ordinary"),
            ),
            "poor": Phrases(
                ("the picture is weak", "picture quality is low",
                 "detail and tones fall short", "the picture looks cheap"),
                ("the picture disappoints", "the image is of low quality"),
            ),
            "bad": Phrases(
                ("the picture is unusable", "picture quality is very low",
                 "the picture is ruined", "hardly anything of the picture holds up"),
                ("the image is a wreck", "the picture fails throughout"),
            ),
        },
        "motion": {
            "excellent": Phrases(
                ("movement is smooth and natural", "motion flows without a hitch",
                 "the action runs smooth and steady", "camera and subject move flawlessly"),
                ("fluid, natural movement", "motion is perfectly even"),
            ),
            "good": Phrases(
                ("movement is mostly smooth", "motion holds together well",
                 "the action runs evenly", "motion is good and steady"),
                ("movement is largely fluid", "motion is sound"),
            ),
            "fair": Phrases(
                ("movement is passable, no more", "motion is just acceptable",
                 "motion is middling", "an average flow of motion"),
                ("movement is so-so", "the action is ordinary"),
            ),
            "poor": Phrases(
                ("movement is weak", "motion falls short",
                 "the action is poorly carried", "motion quality is low"),
                ("movement disappoints", "the motion is of low quality"),
            ),
            "bad": Phrases(
                ("movement is unusable", "motion is broken",
                 "the motion is ruined", "hardly any movement holds up"),
                ("the action is a wreck", "motion fails throughout"),
            ),
        },
        "semantic": {
            "excellent": Phrases(
                ("the clip shows all that was asked", "everything in the prompt is there",
                 "the prompt is followed to the letter", "subject and action are as asked"),
                ("it shows exactly what was asked", "the whole prompt is on screen"),
            ),
            "good": Phrases(
                ("the clip follows the prompt well", "most of the prompt is there",
                 "subject and setting fit the prompt", "the prompt is largely met"),
                ("the content fits what was asked", "it stays close to the prompt"),
            ),
            "fair": Phrases(
                ("the prompt is met in part", "the clip follows the prompt halfway",
                 "the link to the prompt is loose", "about half of it fits the prompt"),
                ("prompt and clip agree in part", "a loose take on the prompt"),
            ),
            "poor": Phrases(
                ("the clip hardly follows the prompt", "little of the prompt is there",
                 "the prompt is mostly ignored", "it fits the prompt poorly"),
                ("the clip strays far from the prompt", "the prompt is barely met"),
            ),
            "bad": Phrases(
                ("the clip ignores the prompt", "nothing of the prompt is there",
                 "the prompt is not followed at all", "clip and prompt share nothing"),
                ("the prompt is fully ignored", "none of the prompt is met"),
            ),
        },
    }
)
