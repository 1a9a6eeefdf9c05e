"""Rewards: the worked examples of their docstrings, their limits, and TRL's calls."""

import doctest
import json
import random

import pytest

from aigveval.train import rewards as module
from aigveval.train.rewards import (
    NAMES,
    consistency_reward,
    defect_f1,
    format_reward,
    length_reward,
    rewards,
    smooth_reward,
    table_reward,
    time_iou,
    trl_rewards,
)
from prompts import Defect, parse, render
from prompts.facts import Fact
from prompts.rubric import SCORES

from ...prompts.test_answer import ANSWER, TEXT
from ...prompts.test_parsing import random_answer


def test_the_examples_are_right():
    result = doctest.testmod(module)
    assert result.attempted >= 25
    assert result.failed == 0


FACTS = [
    Fact(kind="sharpness", value=9.0, percentile=30),
    Fact(kind="speed", value=0.2, percentile=60),
    Fact(kind="shake", value=2.0, percentile=90),
    Fact(kind="cut", start_seconds=1.2, end_seconds=1.2),
    Fact(kind="duration", value=2.0),
    Fact(kind="asked_seen", name="dog", value=1, confidence=0.9, at_seconds=1.0, box=(0, 0, 1, 1)),
]
GROUNDED = (
    TEXT.replace("heavy blocks", "less sharp than 70 % of clips; heavy blocks")
    .replace(
        "shakes slightly.", "shakes at 0.6-1.4 s, more than in 90 % of clips. It cuts at 1.2 s."
    )
    .replace("the clip follows the prompt well.", "a dog is seen in the middle (90 % sure).")
)


def test_false_claims_cost_and_true_ones_earn():
    def of(text, facts=FACTS):
        return rewards(text, GROUNDED, clip_length=2.0, facts=facts)["facts"]

    assert of(GROUNDED) == 1
    for wrong in (
        GROUNDED.replace("70 %", "71 %"),
        GROUNDED.replace("less sharp", "sharper"),
        GROUNDED.replace("1.2 s", "1.3 s"),
        GROUNDED.replace("a dog", "a cat"),
        GROUNDED.replace("in the middle", "on the left"),
    ):
        assert 0 < of(wrong) <= 0.5, wrong
    assert 0 < of(GROUNDED.replace("70 %", "71 %").replace("1.2 s", "1.3 s")) <= 0.25
    # fewer claims earn less, and the same one again earns nothing
    few = "Motion: faster than 60 % of clips."
    assert of(few) == of(f"{few} Again, faster than 60 % of clips.") == pytest.approx(1 / 6)
    assert of(GROUNDED, facts=[]) is None
    # a defect's times are its own, and in tenths in an answer that has no clock
    assert of(GROUNDED.replace("shake 1 0.6-1.4", "shake 1 0.6-1.9")) == 0.25
    tenths = GROUNDED.replace("shake 1 0.6-1.4", "shake 1 3.0-7.0")
    assert rewards(tenths, tenths, clip_length=10.0, facts=FACTS)["facts"] == 1


def test_sentences_of_facts_are_not_held_against_scores():
    text = (
        "Motion quality: good\nMotion: it shakes more than in 90 % of clips, and cuts at 1.2 s.\n"
    )
    text += "Defects: none\nScores: - 4.0 - -"
    assert consistency_reward(parse(text)) < 1
    assert consistency_reward(parse(text), facts=FACTS) == 1
    # what rests on no fact is, beside them too
    assert consistency_reward(parse(text.replace("s.\n", "s. A freeze.\n")), facts=FACTS) == 0.5


def test_a_text_of_facts_may_be_as_long_as_the_labels():
    label = GROUNDED.replace("1.2 s.", "1.2 s. " + "It cuts at 1.2 s. " * 20)
    told = rewards(label, label, clip_length=2.0, facts=FACTS)
    assert len(label) > 700 and told["length"] == 1
    assert rewards(label, label, clip_length=2.0)["length"] < 0.5


def test_facts_come_as_rows_or_as_text():
    (function,) = trl_rewards(["facts"])
    rows = [fact.to_dict() for fact in FACTS]
    found = function(
        completions=[GROUNDED] * 3,
        answer=[GROUNDED] * 3,
        clip_length=[2.0] * 3,
        evidence=[rows, json.dumps(rows), None],
    )
    assert found == [1, 1, None]


def freeze(*times, severity=3):
    start, end = times or (None, None)
    return Defect(name="freeze", severity=severity, start_seconds=start, end_seconds=end)


def test_all_rewards_are_full_for_the_labels_themselves():
    assert rewards(TEXT, TEXT, clip_length=2.0) == dict.fromkeys(NAMES, 1.0) | {"facts": None}
    told = rewards(GROUNDED, GROUNDED, clip_length=2.0, facts=FACTS)
    assert told == dict.fromkeys(NAMES, 1.0)


def test_all_rewards_lie_within_0_and_1_whatever_the_text():
    rng = random.Random(0)
    for _ in range(200):
        answer = random_answer(rng)
        text = "".join(rng.choices([render(answer), "\n", "Scores: 9", "x" * 300, "; "], k=3))
        for name, value in rewards(text, render(random_answer(rng)), clip_length=9.0).items():
            assert value is None or 0 <= value <= 1, (name, text)


def test_bad_text_has_no_reward():
    told = rewards("the clip is nice", TEXT, clip_length=2.0)
    assert told == dict.fromkeys(NAMES, 0.0) | {"length": 1.0, "facts": None}
    assert rewards("the clip is nice", TEXT, facts=FACTS)["facts"] == 0


@pytest.mark.parametrize(
    "errors, reward",
    [
        ((0, 0, 0), 1.0),
        ((1, 0, 0), 0.7),
        ((1, 1, 0), 0.4),
        ((1, 1, 1), 0.1),
        ((-1, 1, -1), 0.1),
        ((2, 0, 0), 0.0),
        ((0, 0, -2), 0.0),
    ],
)
def test_the_table_of_videoscore2(errors, reward):
    labels = dict.fromkeys(("technical", "motion", "semantic"), 3.0)
    scores = {name: 3.0 + error for name, error in zip(labels, errors)}
    assert table_reward(scores, labels | {"overall": 1.0}) == reward


def test_a_missing_score_or_label():
    assert table_reward({"technical": 3.0}, {"technical": 3.0, "motion": 3.0}) == 0
    assert table_reward({"technical": 3.0, "motion": 1.0}, {"technical": 3.0}) == 1
    assert table_reward({"overall": 3.0}, {"overall": 3.0}) is None
    assert smooth_reward({"overall": 3.0}, {"overall": 3.0, "motion": 3.0}) == 0.5
    assert smooth_reward({"overall": 3.0}, {}) is None


def test_the_smooth_reward_falls_all_the_way():
    values = [smooth_reward({"overall": 1 + n / 10}, {"overall": 1}) for n in range(41)]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == 41
    assert values[5] == pytest.approx(0.5)


def test_iou_of_several_ranges_of_one_defect():
    told = [freeze(0, 1), freeze(2, 3)]
    assert time_iou(told, [freeze(0, 3)]) == pytest.approx(2 / 3)
    assert time_iou([freeze(0, 2), freeze(1, 3)], [freeze(0, 3)]) == 1
    assert time_iou([freeze(0, 1)], [freeze(1, 2)]) == 0
    assert time_iou([freeze(1, 1)], [freeze(1, 1)]) == 1
    assert time_iou([freeze(1, 1)], [freeze(2, 2)]) == 0
    assert time_iou([freeze(1, 1), freeze(3, 3)], [freeze(1, 1)]) == 0.5
    assert time_iou([freeze()], [freeze()]) == 1
    assert time_iou(None, [freeze()]) == 0
    blur = Defect(name="blur", severity=1)
    assert time_iou([freeze(0, 1), blur], [freeze(0, 1), blur], clip_length=2) == 1
    assert time_iou([freeze(0, 1)], [freeze(0, 1), blur], clip_length=2) == 0.5


def test_iou_does_not_depend_on_the_unit():
    told, label = parse("Defects: freeze 2 0.4-1.2"), parse("Defects: freeze 3 0.6-1.4")
    seconds = time_iou(told.defects, label.defects, clip_length=2)
    tenths = time_iou(told.scaled(5).defects, label.scaled(5).defects, clip_length=10)
    assert seconds == pytest.approx(tenths) == pytest.approx(0.6)


def test_contradictions_and_faults_take_off():
    assert consistency_reward(ANSWER) == 1
    contradicting = TEXT.replace("blocking 4", "blur 4")
    assert consistency_reward(parse(contradicting)) == 0.5
    assert format_reward(parse(TEXT + "\nbye", expected_scores=SCORES)) == 0.75
    assert format_reward(parse("\n".join("abcdef"))) == 0
    assert defect_f1(None, ()) == 0
    assert length_reward(TEXT) == 1


def test_as_trl_calls_them():
    functions = trl_rewards()
    assert [function.__name__ for function in functions] == list(NAMES)
    explanation = TEXT.partition("Technical:")
    chats = [
        [{"role": "assistant", "content": explanation[1] + explanation[2]}],
        [{"role": "assistant", "content": [{"type": "text", "text": "no"}]}],
    ]
    columns = {
        "prompts": ["?"] * 2,
        "completion_ids": [[1], [2]],
        "answer": [TEXT] * 2,
        "clip_length": [2.0, 2.0],
        "given": [explanation[0]] * 2,
        "trainer_state": None,
        "video": ["a", "b"],
    }
    for function in functions:
        first, second = function(completions=chats, **columns)
        unknown = {"facts": None}
        assert first == unknown.get(function.__name__, 1)
        assert second == {"length": 1, **unknown}.get(function.__name__, 0)
    # the last line of a text that was cut doesn't count
    form = trl_rewards(["format"])[0]
    assert form(completions=chats, **columns, finished=[False, True]) == [0.5, 0]
    with pytest.raises(ValueError, match=r"rewards must be among format, .* got \['beauty'\]"):
        trl_rewards(["beauty"])
