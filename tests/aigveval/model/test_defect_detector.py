"""Signs: what is fitted is found, told before the answer, saved, and no graver than the score."""

import math

import pytest
import torch

from aigveval.model.config import AIGVEvalConfig
from aigveval.model.generation import answer_heads
from aigveval.model.modeling import AIGVEvalModel
from aigveval.model.defect_detector import SignFinder, certainty
from aigveval.train import detector_fit as fitting
from prompts import parse, without_signs

from ..tiny_llm import make_batch, make_llm, make_model

NAMES = ["blur", "shake", "prompt_mismatch"]
ENTRIES = [{"dim": 6, "num_tokens": 8, "time_steps": 8}, {"dim": 5, "num_tokens": 3,
                                                          "time_steps": 1}]
SOURCES = 24


def make_tokens(*, defect=None, source=0, start=0, end=8):
    """Tokens of one clip: noise of its source, and a feature for each defect."""
    generator = torch.Generator().manual_seed(source)
    timed, whole = (0.3 * torch.randn(1, *shape, generator=generator) for shape in ((8, 6), (3, 5)))
    if defect == "shake":
        timed[0, start:end, 2] += 3
    if defect == "blur":
        whole[0, :, 1] += 3
    if defect == "prompt_mismatch":
        timed[0, :, 4] += 3
    return [timed, whole]


def make_rows(finder):
    """A clean clip, and one of each defect, of many sources."""
    clips, steps, severity, shares, groups = [], [], [], [], []
    for source in range(SOURCES):
        for defect in (None, *NAMES):
            start, end = (source % 4, source % 4 + 3) if defect == "shake" else (0, 8)
            tokens = make_tokens(defect=defect, source=source, start=start, end=end)
            degrees, share = torch.zeros(3), torch.zeros(8, 3)
            if defect:
                degrees[NAMES.index(defect)] = 4
                share[start:end, NAMES.index(defect)] = 1
            clips.append(finder.averaged(tokens))
            steps.append(finder.stepwise(tokens).half())
            severity.append(degrees)
            shares.append(share)
            groups.append(source)
    return fitting.Rows(
        clips=torch.cat(clips), steps=torch.cat(steps), severity=torch.stack(severity),
        shares=torch.stack(shares), weight=torch.ones(len(groups)), groups=torch.tensor(groups),
    )


@pytest.fixture(scope="module")
def finder():
    made = SignFinder(ENTRIES, NAMES).requires_grad_(False)
    fitting.fit(made, make_rows(made))
    return made


def found(finder, scored=(True,) * 4, **clip):
    return finder.signs(make_tokens(source=99, **clip), torch.tensor([scored]))[0]


@pytest.mark.parametrize("defect", NAMES)
def test_a_defect_of_a_new_source_is_found_and_nothing_else(finder, defect):
    signs = [sign for sign in found(finder, defect=defect) if sign.certainty >= 5]
    assert [sign.defect.name for sign in signs] == [defect]
    assert signs[0].defect.severity == 4


def test_a_clean_clip_has_no_sign_to_speak_of(finder):
    assert all(sign.certainty < 5 for sign in found(finder))


def test_the_stretch_of_the_clip_that_has_it(finder):
    shake = found(finder, defect="shake", start=2, end=5)[0].defect
    assert (shake.start_seconds, shake.end_seconds) == (2.5, pytest.approx(6.2, abs=0.1))
    blur = found(finder, defect="blur")[0].defect
    assert blur.start_seconds is None  # it never lasted a part of a clip


def test_a_dimension_without_a_score_has_no_sign(finder):
    clip = {"defect": "prompt_mismatch"}
    assert [sign.defect.name for sign in found(finder, **clip)] == ["prompt_mismatch"]
    assert "prompt_mismatch" not in {
        sign.defect.name for sign in found(finder, (True, True, False, True), **clip)
    }


@pytest.mark.parametrize(("of_prompt", "named"), [(3.0, "blur"), (5.0, "prompt_mismatch")])
def test_of_a_damaged_picture_the_prompts_defect_counts_if_it_is_surer(of_prompt, named):
    made = SignFinder(ENTRIES, NAMES).requires_grad_(False)
    made.whether.bias.copy_(torch.tensor([4.0, -40.0, of_prompt, 0.0, 0.0]))
    blind = torch.tensor([[False] * 3, [True, False, False], [True] * 3])
    both, of_picture_blind, neither = (made.certainties(torch.zeros(3, 11), blind) >= 0.5).tolist()
    assert both == [True, False, named == "prompt_mismatch"]
    assert of_picture_blind == [False, False, True]
    assert neither == [False] * 3


def test_features_that_are_no_numbers_have_no_signs(finder):
    tokens = [torch.full((1, 8, 6), math.nan), torch.full((1, 3, 5), math.nan)]
    assert finder.signs(tokens, torch.ones(1, 4, dtype=torch.bool)) == [[]]


def test_certainty_is_against_none_and_against_the_likeliest():
    logits = torch.tensor([[2.0, 2.0, 0.0, 0.0]])
    sure = certainty(logits, torch.zeros(1, 3, dtype=torch.bool))[0]
    first = math.exp(2) / (math.exp(2) + 1)
    assert sure.tolist() == pytest.approx([first, first, 0.5 * math.exp(-2)])
    blind = torch.tensor([[True, False, False]])
    assert certainty(logits, blind)[0, 0] == 0


def test_fitting_leaves_slight_damage_out(finder):
    rows = make_rows(finder)
    kept = fitting.Rows(**{
        **vars(rows), "weight": torch.where(rows.severity[:, 0] > 0, 0.0, 1.0)
    })
    other = SignFinder(ENTRIES, NAMES).requires_grad_(False)
    fitting.fit(other, kept)
    assert found(finder, defect="blur")[0].certainty >= 5
    assert all(sign.defect.name != "blur" or sign.certainty < 5
               for sign in found(other, defect="blur"))


@pytest.fixture
def telling():
    """A model whose head sees a blur in anything."""
    model, processor = make_model(signs=["blur", "prompt_mismatch"])
    with torch.no_grad():
        model.model.signs.whether.bias.copy_(torch.tensor([5.0, 4.0, 0.0, 0.0]))
        model.model.signs.degree.bias.fill_(2.0)
        model.model.signs.when.bias.fill_(1.0)
    return model, processor


def test_the_head_of_an_answer_tells_the_signs(telling):
    model, processor = telling
    batch = make_batch(processor, model.config, ["a cat", None])
    scores = [{"technical": 1.2, "semantic": 3.4}, {"technical": 4.1}]
    first, second = answer_heads(model, batch, scores)
    assert first.endswith(
        "Technical quality: bad\nText-video alignment: fair\n"
        "Signs: 1.2 - 3.4 -; Technical 9 blur 5; Semantic none\n"
    )
    assert second.endswith("Technical quality: good\nSigns: 4.1 - - -; Technical 9 blur 2\n")


def test_a_sign_is_no_graver_than_its_score_allows(telling):
    model, processor = telling
    model.model.signs.whether.bias[0].data.fill_(-5)
    batch = make_batch(processor, model.config, ["a cat"])
    line = model.sign_lines(batch, [{"technical": 4.6, "semantic": 3.4}])
    assert line == ["Signs: 4.6 - 3.4 -; Technical none; Semantic 9 prompt mismatch 3\n"]


def test_signs_are_no_part_of_the_answer(telling):
    answer = "Technical quality: bad\nTechnical: it is soft.\nDefects: blur 5\nScores: 1.2 - - -"
    given = answer.replace("bad\n", "bad\nSigns: 1.2 - - -; 9 blur 5; 2 noise 1\n")
    assert without_signs(given) == answer
    assert parse(given) == parse(answer)
    assert not parse(given, expected_scores=["technical"]).problems
    again = given.replace("Defects", "Signs: none\nDefects")
    assert [problem.kind for problem in parse(again).problems] == ["repeated_line"]


def test_scores_dont_depend_on_the_head(telling):
    model, processor = telling
    batch = make_batch(processor, model.config, ["a cat"])
    plain, _ = make_model()
    plain.load_state_dict(
        {k: v for k, v in model.state_dict().items() if ".signs." not in k}
    )
    assert torch.equal(plain.score(**batch).scores, model.score(**batch).scores)


def test_saved_and_loaded_it_tells_the_same(telling, tmp_path):
    model, processor = telling
    model.save_pretrained(tmp_path)
    loaded = AIGVEvalModel.from_pretrained(tmp_path, llm=make_llm())
    batch = make_batch(processor, model.config, ["a cat"])
    assert loaded.config.signs == ["blur", "prompt_mismatch"]
    scores = [{"technical": 2.0}]
    assert loaded.sign_lines(batch, scores) == model.sign_lines(batch, scores)
    assert model.sign_lines(batch, scores) != [""]


@pytest.mark.parametrize("names", [["smell"], ["blur", "blur"]])
def test_unknown_names_are_refused(names):
    with pytest.raises(ValueError, match="signs must be different defects of blur, noise"):
        AIGVEvalConfig(llm="tiny", signs=names)
