"""Wrong prompts of known degree."""

import pytest

from aigveval.distortion.prompts import _GROUP_OF, content_words, mismatch, wrong_object
from aigveval.distortion.registry import SEVERITIES

PROMPTS = [
    "A cat is running on the grass",
    "a teddy bear in a suit having dinner in a well-decorated house",
    "The camera follows behind a white vintage SUV as it speeds up a steep dirt road.",
    "Welding",
    "一只熊猫在弹吉他",
]


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("other", ["An astronaut waves his hands on the moon", "夕阳下的丛林河流"])
def test_mismatch_goes_from_the_own_prompt_to_the_other(prompt, other):
    rows = [mismatch(prompt, other, severity) for severity in SEVERITIES]
    shares = [row[1] for row in rows if row]
    assert shares == sorted(set(shares)) and 0 < shares[0]
    assert rows[-1] == (other, 1.0)
    assert all(prompt != row[0] for row in rows if row)


@pytest.mark.parametrize("seed", range(5))
def test_wrong_object_replaces_more_and_more(seed):
    for prompt in PROMPTS[:3]:
        rows = [wrong_object(prompt, severity, seed) for severity in SEVERITIES]
        strengths = [row[1] for row in rows if row]
        assert strengths == sorted(set(strengths)) and 0 < strengths[0] and strengths[-1] > 0.6
        assert len(strengths) >= 4
        assert rows == [wrong_object(prompt, severity, seed) for severity in SEVERITIES]
        kept = [len(set(content_words(prompt)) & set(content_words(row[0]))) for row in rows if row]
        assert kept == sorted(kept, reverse=True)


def test_wrong_object_starts_with_one_noun_of_its_kind():
    changed, strength = wrong_object("A cat is running on the grass", 1, 0)
    old, new = "A cat is running on the grass".split(), changed.split()
    assert [a for a, b in zip(old[1:], new[1:]) if a != b] == ["cat"]
    assert distortion_group(new[1]) == distortion_group("cat")
    assert strength == pytest.approx(0.5 / 3, abs=1e-4)


def distortion_group(word):
    return _GROUP_OF[word]


@pytest.mark.parametrize("severity", SEVERITIES)
def test_a_wrong_prompt_is_never_the_right_one_in_turkish_either(severity):
    for prompt in ("İstanbul", "İSTANBUL", "two İstanbul", "bir kedi İzmir'de koşuyor"):
        found = wrong_object(prompt, severity)
        assert found is None or found[0] != prompt


def test_a_prompt_without_content_has_no_wrong_object():
    assert [wrong_object(text, 5) for text in ("", "on the 4k", "!!")] == [None] * 3
