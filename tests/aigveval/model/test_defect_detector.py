"""Detector: what is fitted is found, given before the answer, saved, no graver than the score."""

import math

import pytest
import torch
from rich.console import Console

from aigveval.model.config import AIGVEvalConfig
from aigveval.model.defect_detector import DefectDetector, certainty
from aigveval.model.generation import answer_heads
from aigveval.model.modeling import AIGVEvalModel
from aigveval.train import detector_fit as fitting
from aigveval.train.rows import TrainingRow
from prompts import parse, without_detections

from ..tiny_llm import make_batch, make_llm, make_model

NAMES = ["blur", "shake", "prompt_mismatch"]
ENTRIES = [
    {"dim": 6, "num_tokens": 8, "time_steps": 8},
    {"dim": 5, "num_tokens": 3, "time_steps": 1},
]
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


def make_rows(detector):
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
            clips.append(detector.averaged(tokens))
            steps.append(detector.stepwise(tokens).half())
            severity.append(degrees)
            shares.append(share)
            groups.append(source)
    return fitting.Rows(
        clips=torch.cat(clips),
        steps=torch.cat(steps),
        severity=torch.stack(severity),
        shares=torch.stack(shares),
        weight=torch.ones(len(groups)),
        groups=torch.tensor(groups),
    )


@pytest.fixture(scope="module")
def detector():
    made = DefectDetector(ENTRIES, NAMES).requires_grad_(False)
    fitting.fit(made, make_rows(made))
    return made


def found(detector, scored=(True,) * 4, **clip):
    return detector.detect(make_tokens(source=99, **clip), torch.tensor([scored]))[0]


@pytest.mark.parametrize("defect", NAMES)
def test_a_defect_of_a_new_source_is_found_and_nothing_else(detector, defect):
    sure = [one for one in found(detector, defect=defect) if one.certainty >= 5]
    assert [one.defect.name for one in sure] == [defect]
    assert sure[0].defect.severity == 4


def test_a_clean_clip_has_no_certain_detection(detector):
    assert all(sign.certainty < 5 for sign in found(detector))


def test_the_stretch_of_the_clip_that_has_it(detector):
    shake = found(detector, defect="shake", start=2, end=5)[0].defect
    assert (shake.start_seconds, shake.end_seconds) == (2.5, pytest.approx(6.2, abs=0.1))
    blur = found(detector, defect="blur")[0].defect
    assert blur.start_seconds is None  # it never lasted a part of a clip


def test_a_dimension_without_a_score_has_no_detection(detector):
    clip = {"defect": "prompt_mismatch"}
    assert [sign.defect.name for sign in found(detector, **clip)] == ["prompt_mismatch"]
    assert "prompt_mismatch" not in {
        sign.defect.name for sign in found(detector, (True, True, False, True), **clip)
    }


@pytest.mark.parametrize(("of_prompt", "named"), [(3.0, "blur"), (5.0, "prompt_mismatch")])
def test_of_a_damaged_picture_the_prompts_defect_counts_if_it_is_surer(of_prompt, named):
    made = DefectDetector(ENTRIES, NAMES).requires_grad_(False)
    made.presence.bias.copy_(torch.tensor([4.0, -40.0, of_prompt, 0.0, 0.0]))
    excluded = torch.tensor([[False] * 3, [True, False, False], [True] * 3])
    found = made.certainties(torch.zeros(3, 11), excluded) >= 0.5
    both, without_picture, neither = found.tolist()
    assert both == [True, False, named == "prompt_mismatch"]
    assert without_picture == [False, False, True]
    assert neither == [False] * 3


def test_features_that_are_no_numbers_have_no_detections(detector):
    tokens = [torch.full((1, 8, 6), math.nan), torch.full((1, 3, 5), math.nan)]
    assert detector.detect(tokens, torch.ones(1, 4, dtype=torch.bool)) == [[]]


def test_certainty_is_against_none_and_against_the_likeliest():
    logits = torch.tensor([[2.0, 2.0, 0.0, 0.0]])
    sure = certainty(logits, torch.zeros(1, 3, dtype=torch.bool))[0]
    first = math.exp(2) / (math.exp(2) + 1)
    assert sure.tolist() == pytest.approx([first, first, 0.5 * math.exp(-2)])
    excluded = torch.tensor([[True, False, False]])
    assert certainty(logits, excluded)[0, 0] == 0


class Judged:
    """A data set of clips with answers, which are shown with their own prompt and another."""

    groups = (0, 0, 1, -1)

    def __init__(self, model, answers, weights):
        self.shapes = model.config.feature_shapes
        self.rows = [
            TrainingRow(
                video=f"{n}.mp4", prompt="a cat", scores=(math.nan,) * 4, weight=w, answers=(text,)
            )
            for n, (text, w) in enumerate(zip(answers, weights))
        ]

    def tokens(self, row, prompt):
        return [torch.zeros(shape) for shape in self.shapes]

    def wrong_prompt(self, row, random):
        return "a dog"


def test_damage_that_hardly_shows_and_wrong_prompts_count_less(telling, monkeypatch):
    given = []
    monkeypatch.setattr(fitting, "fit", lambda detector, rows: given.append(rows))
    texts = ["Defects: none", "Defects: blur 1", "Defects: blur 2", "Scores: - - - 3.0"]
    judged = Judged(telling[0], texts, (1.0, 1.0, 0.5, 1.0))
    fitting.fit_detector(telling[0].model, judged, Console(quiet=True))
    (rows,) = given
    # the undamaged clip, the same with another prompt, the two of blur; one has no labels
    assert rows.weight.tolist() == pytest.approx([1.0, 0.1, 0.0, 0.5])
    assert rows.severity.tolist() == [[0, 0], [0, 5], [1, 0], [2, 0]]
    assert rows.groups.tolist() == [0, 0, 0, 1]


def test_fitting_leaves_slight_damage_out(detector):
    rows = make_rows(detector)
    kept = fitting.Rows(**{**vars(rows), "weight": torch.where(rows.severity[:, 0] > 0, 0.0, 1.0)})
    other = DefectDetector(ENTRIES, NAMES).requires_grad_(False)
    fitting.fit(other, kept)
    assert found(detector, defect="blur")[0].certainty >= 5
    assert all(
        sign.defect.name != "blur" or sign.certainty < 5 for sign in found(other, defect="blur")
    )


@pytest.fixture
def telling():
    """A model whose head sees a blur in anything."""
    model, processor = make_model(detector=["blur", "prompt_mismatch"])
    with torch.no_grad():
        model.model.detector.presence.bias.copy_(torch.tensor([5.0, 4.0, 0.0, 0.0]))
        model.model.detector.severity.bias.fill_(2.0)
        model.model.detector.timing.bias.fill_(1.0)
    return model, processor


def test_the_head_of_an_answer_has_the_detections(telling):
    model, processor = telling
    batch = make_batch(processor, model.config, ["a cat", None])
    scores = [{"technical": 1.2, "semantic": 3.4}, {"technical": 4.1}]
    first, second = answer_heads(model, batch, scores)
    assert first.endswith(
        "Technical quality: bad\nText-video alignment: fair\n"
        "Signs: 1.2 - 3.4 -; Technical 9 blur 5; Semantic none\n"
    )
    assert second.endswith("Technical quality: good\nSigns: 4.1 - - -; Technical 9 blur 2\n")


def test_a_detection_is_no_graver_than_its_score_allows(telling):
    model, processor = telling
    model.model.detector.presence.bias[0].data.fill_(-5)
    batch = make_batch(processor, model.config, ["a cat"])
    line = model.detection_lines(batch, [{"technical": 4.6, "semantic": 3.4}])
    assert line == ["Signs: 4.6 - 3.4 -; Technical none; Semantic 9 prompt mismatch 3\n"]


def test_detections_are_no_part_of_the_answer(telling):
    answer = "Technical quality: bad\nTechnical: it is soft.\nDefects: blur 5\nScores: 1.2 - - -"
    given = answer.replace("bad\n", "bad\nSigns: 1.2 - - -; 9 blur 5; 2 noise 1\n")
    assert without_detections(given) == answer
    assert parse(given) == parse(answer)
    assert not parse(given, expected_scores=["technical"]).problems
    again = given.replace("Defects", "Signs: none\nDefects")
    assert [problem.kind for problem in parse(again).problems] == ["repeated_line"]


def test_scores_dont_depend_on_the_head(telling):
    model, processor = telling
    batch = make_batch(processor, model.config, ["a cat"])
    plain, _ = make_model()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if ".detector." not in k})
    assert torch.equal(plain.score(**batch).scores, model.score(**batch).scores)


def test_saved_and_loaded_it_tells_the_same(telling, tmp_path):
    model, processor = telling
    model.save_pretrained(tmp_path)
    loaded = AIGVEvalModel.from_pretrained(tmp_path, llm=make_llm())
    batch = make_batch(processor, model.config, ["a cat"])
    assert loaded.config.detector == ["blur", "prompt_mismatch"]
    scores = [{"technical": 2.0}]
    assert loaded.detection_lines(batch, scores) == model.detection_lines(batch, scores)
    assert model.detection_lines(batch, scores) != [""]


@pytest.mark.parametrize("names", [["smell"], ["blur", "blur"]])
def test_unknown_names_are_refused(names):
    with pytest.raises(ValueError, match="detector must name different defects of blur, noise"):
        AIGVEvalConfig(llm="tiny", detector=names)
