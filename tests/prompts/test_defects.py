"""The vocabulary of defects."""

import dataclasses

import pytest

from prompts.defects import DEFECTS
from prompts.rubric import DIMENSIONS


def test_defects_cover_the_ladder_and_the_generators():
    by_dimension = {d: {k.name for k in DEFECTS.values() if k.dimension == d} for d in DIMENSIONS}
    assert by_dimension["technical"] >= {
        "blur",
        "noise",
        "blocking",
        "banding",
        "low_resolution",
        "overexposure",
        "underexposure",
        "colour_cast",
    }
    assert by_dimension["motion"] >= {
        "freeze",
        "dropped_frames",
        "shuffled_frames",
        "shake",
        "flicker",
        "ghosting",
        "warping",
        "near_static",
        "morphing",
        "vanishing_object",
        "low_dynamic",
        "unnatural_motion",
    }
    assert by_dimension["semantic"] >= {
        "prompt_mismatch",
        "scene_cut",
        "wrong_object",
        "duplicated_object",
        "wrong_count",
        "missing_object",
    }
    assert sum(map(len, by_dimension.values())) == len(DEFECTS)


def test_the_vocabulary_cannot_be_changed():
    with pytest.raises(TypeError):
        DEFECTS["x"] = DEFECTS["blur"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        DEFECTS["blur"].dimension = "motion"


def test_words_and_names_map_one_to_one():
    words = [kind.words for kind in DEFECTS.values()]
    assert [word.replace(" ", "_") for word in words] == list(DEFECTS)
    assert DEFECTS["dropped_frames"].words == "dropped frames"
