"""Explanations: what rows say, and what is never said."""

import json
import math
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from aigveval.assessment import SCORE_FIELDS, Assessment
from aigveval.cli.app import app
from aigveval.errors import ModelError
from aigveval.inference import assessor as assess
from aigveval.inference import explain, observe
from aigveval.inference.assessor import Assessor
from aigveval.inference.explain import read_answer
from aigveval.inference.facts import facts_of
from aigveval.model.config import AIGVEvalConfig
from aigveval.model.generation import Written
from aigveval.model.modeling import AIGVEvalModel
from aigveval.model.processing import AIGVEvalProcessor
from aigveval.reports.results import read_results
from encoders import detection
from encoders.video import VideoError
from prompts import Defect
from prompts.consistency import claims
from prompts.facts import Fact, named, render_facts
from prompts.rubric import LEVELS
from prompts.sentences import sentences

from ..engines import TextEngine, tiny_assessor
from ..tiny_llm import make_model, make_tokenizer
from .makers import fake_load
from tests.media import write_video

GOOD = (
    "Technical: heavy blocks break up the picture.\n"
    "Motion: the camera shakes slightly.\n"
    "Semantic: the clip follows the prompt well.\n"
    "Defects: blocking 4; shake 1 2.0-5.0\n"
    "Scores: {}"
)
SLOTS = {"technical": 1.9, "motion": 4.1, "semantic": 4.4, "overall": 3.2}
HEAD = (
    "Technical quality: poor\nMotion quality: good\nText-video alignment: good\n"
    "Overall quality: fair\n"
)
NUMBERS = "1.8 4.0 4.3 3.2"


def read(text, *, scores=SLOTS, finished=True, duration=4.0, times="tenths"):
    written = Written(text=text, finished=finished, num_tokens=9)
    return read_answer(written, scores=scores, duration_seconds=duration, times=times)


@pytest.fixture(scope="module", autouse=True)
def each_picture_is_looked_at_once():
    """Tests of this file explain the same clips; what a picture shows is tested elsewhere."""
    look, known = detection._things, {}

    def things(network, frame):
        picture = frame.numpy().tobytes()
        if picture not in known:
            known[picture] = look(network, frame)
        return list(known[picture])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detection, "_things", things)
        yield


class TestReadAnswer:
    def test_times_are_in_seconds(self):
        answer = read(HEAD + GOOD.format(NUMBERS))
        assert answer.problems == ()
        assert list(answer.reasoning) == ["technical", "motion", "semantic"]
        assert answer.defects == (
            Defect(name="blocking", severity=4),
            Defect(name="shake", severity=1, start_seconds=0.8, end_seconds=2.0),
        )
        seconds = read(HEAD + GOOD.format(NUMBERS), duration=5.0, times="seconds").defects
        assert (seconds[1].start_seconds, seconds[1].end_seconds) == (2.0, 5.0)

    @pytest.mark.parametrize(
        ("text", "kinds"),
        [
            (HEAD + GOOD.format("2.5 4.0 4.3 3.2"), ["score_contradicts_slot"]),
            (HEAD + GOOD.format("2.4 4.6 4.3 3.2"), []),
            (HEAD + GOOD.format("6.8 4.0 4.3 3.2"), ["score_out_of_range"]),
            (HEAD + GOOD.format("1.8 4.0 4.3"), ["malformed_score"]),
            (
                HEAD + GOOD.replace("shake 1", "wobble 1").format(NUMBERS),
                ["unknown_defect", "text_contradicts_defects"],
            ),
            (
                HEAD + GOOD.replace("2.0-5.0", "2.0-15.0").format(NUMBERS),
                ["time_beyond_clip", "text_contradicts_defects"],
            ),
            (HEAD, ["missing_line"] * 5),
            (HEAD + "la " * 3000, ["too_long", "unfinished"] + ["missing_line"] * 5),
        ],
    )
    def test_what_is_wrong(self, text, kinds):
        assert [problem.kind for problem in read(text).problems] == kinds

    def test_what_is_wrong_is_not_in_the_answer(self):
        answer = read(HEAD + GOOD.replace("shake 1", "wobble 1").format(NUMBERS))
        assert [defect.name for defect in answer.defects] == ["blocking"]
        cut = read(HEAD + GOOD.format(NUMBERS), finished=False)
        assert [problem.kind for problem in cut.problems] == ["unfinished", "missing_line"]

    def test_text_that_goes_round_in_circles_is_left_out(self):
        text = GOOD.replace("the camera shakes slightly", "so good " * 30).format(NUMBERS)
        answer = read(HEAD + text.replace("; shake 1 2.0-5.0", ""))
        assert "repeats_itself" in [problem.kind for problem in answer.problems]
        assert set(answer.reasoning) == {"technical", "semantic"}

    def test_nothing_is_said_of_a_dimension_without_score(self):
        slots = {name: score for name, score in SLOTS.items() if name != "semantic"}
        text = HEAD.replace("Text-video alignment: good\n", "") + GOOD.replace(
            "blocking 4;", "blocking 4; wrong count 3;"
        ).format("1.8 4.0 4.3 3.2")
        answer = read(text, scores=slots)
        assert "semantic" not in answer.reasoning and "semantic" not in answer.scores
        assert [defect.name for defect in answer.defects] == ["blocking", "shake"]
        assert [p.detail for p in answer.problems if p.kind == "unexpected_line"] == [
            "semantic, which has no score"
        ]


# ---- the engine ----


class ScriptedWriter:
    """Writes what `script` says for a row, its head and a try; notes which rows were tried."""

    script = None
    tried: list

    def __init__(self, model, tokenizer, *, batch, cache, heads):
        assert cache.get_seq_length() == batch["input_ids"].shape[1]
        self.heads = heads

    def write(self, rows, *, max_new_tokens, seed=None):
        type(self).tried.append((list(rows), seed))
        return [
            Written(
                text=self.heads[row] + self.script(row, self.heads[row], seed),
                finished=True,
                num_tokens=9,
            )
            for row in rows
        ]


@pytest.fixture
def writer(monkeypatch):
    ScriptedWriter.tried = []
    monkeypatch.setattr(explain, "AnswerWriter", ScriptedWriter)
    monkeypatch.setattr(ScriptedWriter, "script", staticmethod(agreeing))
    return ScriptedWriter


def agreeing(row, head, seed):
    """An answer that says of each level what is true of it, and no numbers."""
    tone = {
        "bad": "unusable",
        "poor": "weak",
        "fair": "passable",
        "good": "solid",
        "excellent": "flawless",
    }
    names = {
        "Technical quality": "Technical",
        "Motion quality": "Motion",
        "Text-video alignment": "Semantic",
    }
    levels = dict(line.split(": ") for line in head.splitlines())
    lines = [f"{names[name]}: {tone[levels[name]]}." for name in names if name in levels]
    numbers = [
        f"{LEVELS.index(levels[name]) + 1:.1f}" if name in levels else "-"
        for name in (*names, "Overall quality")
    ]
    return "\n".join([*lines, "Defects: none", f"Scores: {' '.join(numbers)}"])


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    return [write_video(folder / f"{n}.mp4", num_frames=12, seed=n) for n in range(3)]


@pytest.fixture
def assessor():
    return tiny_assessor(explains=True, explain=True)


def test_rows_of_an_explaining_assessor(assessor, videos, writer):
    items = [(videos[0], "a dog"), (videos[1], None), (videos[2], "two boats")]
    plain = list(Assessor(assessor.engine, name="tiny").score_many(items))
    rows = list(assessor.score_many(items))
    assert writer.tried == [([0, 1, 2], None)]  # nothing was wrong
    for row, before in zip(rows, plain, strict=True):
        for name in SCORE_FIELDS:
            assert getattr(row, name) == getattr(before, name)
        assert before.extras == [] and row.extras == ["explanation", "contributions", "evidence"]
        assert row.problems == () and row.defects == ()
        known = {"technical", "motion"} | ({"semantic"} if row.prompt else set())
        assert set(row.explanation) == known
        moved = row.contributions
        total = moved.baseline + moved.sum + moved.residue
        assert total == pytest.approx(row.overall.score, abs=2e-5)
        assert moved.sum == pytest.approx(moved.technical + moved.motion + moved.semantic, abs=1e-5)
    one = assessor.score(videos[0], "a dog")
    assert one.explanation == rows[0].explanation
    assert vars(one.contributions) == pytest.approx(vars(rows[0].contributions), abs=1e-4)


def test_level_words_are_the_nearest(assessor, videos, writer):
    heads = []
    writer.script = staticmethod(lambda *given: heads.append(given[1]) or agreeing(*given))
    row = assessor.score(videos[0], "a dog")
    labels = {
        "Technical quality": "technical",
        "Motion quality": "motion",
        "Text-video alignment": "semantic",
        "Overall quality": "overall",
    }
    assert heads[0].endswith("\n") and len(heads) == 1
    for line in heads[0].splitlines():
        label, word = line.split(": ")
        score = getattr(row, labels.pop(label)).score
        assert abs(LEVELS.index(word) + 1 - score) <= 0.5
    assert not labels


def test_a_bad_answer_is_written_again(assessor, videos, writer):
    """Row 1 gets it right on the second try, row 2 never; row 0 is left alone."""

    def script(row, head, seed):
        if row == 0 or (row == 1 and seed):
            return agreeing(row, head, seed)
        return "Nice clip!" if seed != 1 else agreeing(row, head, seed).replace("none", "wobble 9")

    writer.script = staticmethod(script)
    rows = list(assessor.score_many([(video, "a dog") for video in videos]))
    assert writer.tried == [([0, 1, 2], None), ([1, 2], 1), ([2], 2)]
    assert rows[0].problems == rows[1].problems == () and rows[1].defects == ()
    # the best of the three, without what is wrong with it
    assert rows[2].problems == ("unknown_defect: wobble 9",)
    assert rows[2].defects is None and len(rows[2].explanation) == 3


def test_what_a_random_model_writes_is_not_shown(assessor, videos):
    """No script: the tiny LLM writes noise, and nothing of it gets into a row but its problems."""
    assessor.engine.explainer.max_new_tokens = 20
    row = assessor.score(videos[0], "a dog")
    assert row.explanation == {} and row.defects is None and row.problems
    assert "unfinished" in " ".join(row.problems)
    assert assessor.score(videos[0], "a dog").problems == row.problems


def of_facts(facts, *, wrong=False):
    """Sentences as an LLM could make them of facts; with `wrong` the first number of two is off."""
    (sharp,), (speed,) = named(facts, "sharpness"), named(facts, "speed")
    (duration,) = named(facts, "duration")
    return (
        f"Technical: sharper than {sharp.percentile + 3 * wrong:.0f} % of clips. So it looks.\n"
        f"Motion: faster than {speed.percentile + 3 * wrong:.0f} % of clips. So it goes on.\n"
        f"Semantic: no dog can be judged. It lasts {duration.value:.1f} s."
    )


@pytest.fixture
def reading():
    """An assessor whose LLM is given the facts, and the heads of the answers that it wrote."""
    return tiny_assessor(explains=True, explain=True, reads_facts=True)


def test_an_llm_writes_sentences_of_facts(reading, videos, writer, monkeypatch):
    """Side by side with the templates on the same facts; what contradicts them is dropped."""
    monkeypatch.setattr(observe, "_COMPARED_SIDE_PX", 0)
    monkeypatch.setattr(observe, "detect", lambda pixels: [[] for _ in pixels])
    facts = facts_of(observe.observe(videos[0]), "a robot")
    script = {}

    def write(row, head, seed):
        scores = agreeing(row, head.rpartition("Facts:")[0], seed).splitlines()[-1]
        return f"{script['text']}\nDefects: none\n{scores}"

    heads = []
    writer.script = staticmethod(lambda *given: heads.append(given[1]) or write(*given))
    script["text"] = of_facts(facts).replace("no dog can", "the robot can't")
    row = reading.score(videos[0], "a robot")
    assert heads[0].endswith(f"\n{render_facts(facts)}\n") and "robot asked" in heads[0]
    assert row.problems == () and row.evidence == tuple(facts) and len(writer.tried) == 1
    assert row.explanation["technical"].startswith(of_facts(facts)[11:].split("\n")[0])
    assert row.explanation["semantic"].startswith("the robot can't be judged. It lasts")
    # the scoring pass never sees the facts
    plain = tiny_assessor(explains=True).score(videos[0], "a robot")
    assert [getattr(row, n) for n in SCORE_FIELDS] == [getattr(plain, n) for n in SCORE_FIELDS]
    # the templates' sentences on the same facts claim nothing else that is false
    written = sentences(facts, [], dimensions=list(row.explanation))
    for name, text in written.items():
        assert all(claim.true for claim in claims(text, facts)) and text != row.explanation[name]

    script["text"] = of_facts(facts, wrong=True)  # at every try
    writer.tried.clear()
    row = reading.score(videos[0], "a robot")
    assert len(writer.tried) == explain.ATTEMPTS
    assert [problem.partition(":")[0] for problem in row.problems] == ["text_contradicts_facts"] * 3
    assert "no dog can be judged." in row.problems[2]
    assert row.explanation["technical"].startswith("So it looks.")
    assert row.explanation["motion"].startswith("So it goes on.")
    assert row.explanation["semantic"].startswith("It lasts")
    assert Assessment.from_dict(json.loads(json.dumps(row.to_dict()))) == row

    # where nothing is left of a dimension there is the templates' sentence
    script["text"] = of_facts(facts, wrong=True).replace(" So it looks.", "")
    row = reading.score(videos[0], "a robot")
    assert row.explanation["technical"].startswith(written["technical"])


def test_times_of_an_answer_in_tenths_are_compared_in_seconds():
    facts = [
        Fact(kind="shake", value=2.0, percentile=90),
        Fact(kind="duration", value=4.0),
    ]
    text = GOOD.replace("shakes slightly", "shakes at 0.8-2.0 s, more than in 90 % of clips")
    written = Written(text=HEAD + text.format(NUMBERS), finished=True, num_tokens=9)
    known = {"scores": SLOTS, "duration_seconds": 4.0, "times": "tenths"}
    assert read_answer(written, **known, facts=facts).problems == ()
    off = replace(written, text=written.text.replace("0.8-2.0 s", "2.0-5.0 s"))
    answer = read_answer(off, **known, facts=facts)
    assert [problem.kind for problem in answer.problems] == ["text_contradicts_facts"]
    assert set(answer.reasoning) == {"technical", "semantic"}
    assert read_answer(off, **known).problems == ()


def test_of_two_sentences_that_begin_alike_the_true_one_stays():
    facts = [Fact(kind="sharpness", value=9.0, percentile=20)]
    start = "Looked at as a whole and from its very start to its very end, in every corner of it, "
    true, false = (f"{start}it is sharper than {n} % of clips." for n in (20, 90))
    text = HEAD + GOOD.replace("heavy blocks break up the picture.", f"{false} {true}")
    written = Written(text=text.format(NUMBERS), finished=True, num_tokens=9)
    answer = read_answer(written, scores=SLOTS, duration_seconds=4.0, times="tenths", facts=facts)
    assert answer.reasoning["technical"] == true
    assert "text_contradicts_facts" in [problem.kind for problem in answer.problems]


def test_a_model_that_does_not_explain(videos):
    with pytest.raises(ModelError) as caught:
        tiny_assessor(explain=True)
    assert str(caught.value) == (
        "tiny: the model was not trained to explain its scores; contributions (--contributions) "
        "can be had of any model"
    )
    assessor = tiny_assessor(contributions=True)
    row = assessor.score(videos[0], "a dog")
    assert row.extras == ["contributions"] and row.problems is None
    with pytest.raises(ModelError, match="^x: the model was not trained to explain its scores; "):
        Assessor(TextEngine(), name="x", explain=True)


def test_loading_with_explanations(tmp_path, monkeypatch):
    model, _ = make_model(explains=True)
    make_tokenizer().save_pretrained(tmp_path / "llm")
    model.save_pretrained(tmp_path)
    config = AIGVEvalConfig.from_pretrained(tmp_path)
    assert config.explains
    engine = tiny_assessor(explains=True).engine
    monkeypatch.setattr(AIGVEvalModel, "from_pretrained", lambda source, **options: engine.model)
    monkeypatch.setattr(AIGVEvalProcessor, "from_pretrained", lambda source: engine.processor)
    found = assess.load(tmp_path, explain=True, device="cpu")
    assert found.explain and found.engine.explains and found.engine.model is engine.model
    assert not assess.load(tmp_path, contributions=True).explain
    plain = assess.load(tmp_path)
    assert not plain.explain and not plain.contributions and plain.engine.explains


def test_a_clip_without_numbers_fails_alone(assessor, videos, writer):
    engine = assessor.engine
    prepared = [engine.prepare(video) for video in videos]
    prepared[1].views["crisp"][:] = math.nan
    rows = engine.score(prepared, ["a", "b", "c"], explain=True)
    assert isinstance(rows[1], ValueError) and "score must be finite" in str(rows[1])
    expected = engine.score([prepared[0], prepared[2]], ["a", "c"], explain=True)
    for row, alone in zip([rows[0], rows[2]], expected):
        assert row["explanation"] == alone["explanation"]
        assert row["contributions"].baseline == pytest.approx(
            alone["contributions"].baseline, abs=2e-5
        )


def test_a_broken_video(assessor, tmp_path):
    path = tmp_path / "x.mp4"
    path.write_bytes(b"nothing")
    (row,) = assessor.score_many([path])
    assert row.error and row.extras == []
    with pytest.raises(VideoError):
        assessor.score(path)


# ---- the command ----


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    for number in range(2):
        write_video(tmp_path / f"{number}.mp4", num_frames=6, seed=number)
    return tmp_path


def run(*arguments, code=0):
    result = CliRunner().invoke(app, ["score", *arguments])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def test_score_explain(folder, monkeypatch, writer):
    monkeypatch.setattr(assess, "load", fake_load(explains=True))
    result = run("0.mp4", "1.mp4", "--prompt", "a dog", "--explain")
    rows = [json.loads(line) for line in open("results.jsonl", encoding="utf-8")]
    for row in rows:
        assert set(row["explanation"]) == {"technical", "motion", "semantic"}
        assert row["defects"] == [] and row["problems"] == []
        assert list(row["contributions"]) == [
            "technical",
            "motion",
            "semantic",
            "sum",
            "residue",
            "baseline",
        ]
    assert "2 of 2 explanations have no problem; problems: none" in result.stdout
    assert "defects: none" in result.stdout and "without evidence" in result.stdout
    writer.script = staticmethod(lambda *given: "Nice clip!")
    result = run("0.mp4", "--prompt", "a dog", "--explain")
    assert "0 of 1 explanations have no problem; problems: missing_line 5, " in result.stdout
    (row,) = read_results("results.jsonl")
    assert row.explanation == {} and row.defects is None and len(row.problems) == 6


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_resume_computes_what_was_not_explained(folder, monkeypatch, writer, suffix):
    loaded = []

    def load(model, **asked):
        loaded.append(fake_load(explains=True, name=model)(model, **asked))
        return loaded[-1]

    monkeypatch.setattr(assess, "load", load)
    out = ["--out", f"r{suffix}"]
    run("0.mp4", *out)
    run("0.mp4", "1.mp4", "--explain", "--resume", *out)
    assert [row.extras for row in read_results(f"r{suffix}")] == [
        ["explanation", "contributions", "evidence"]
    ] * 2
    count = len(loaded)
    run("0.mp4", "1.mp4", "--resume", *out)  # nothing to do, and nothing is lost
    run("0.mp4", "1.mp4", "--contributions", "--resume", *out)
    assert [row.extras for row in read_results(f"r{suffix}")] == [
        ["explanation", "contributions", "evidence"]
    ] * 2
    assert len(loaded) == count
    result = run("0.mp4", "1.mp4", *out)  # this run would not bring explanations back
    assert result.stderr == f"note: r{suffix}: earlier results kept as r.old-1{suffix}\n"
    assert [row.extras for row in read_results(f"r{suffix}")] == [[], []]


def test_model_without_explanations_is_refused_in_one_line(folder, monkeypatch):
    monkeypatch.setattr(assess, "load", fake_load())
    result = run("0.mp4", "--explain", code=2)
    assert result.stderr == (
        "error: tiny: the model was not trained to explain its scores; contributions "
        "(--contributions) can be had of any model\n"
    )
    result = run("0.mp4", "--contributions")
    assert "without evidence" in result.stdout and "explanations have" not in result.stdout
    assert read_results("results.jsonl")[0].extras == ["contributions"]


def test_files_that_cannot_be_read_need_no_model(folder, monkeypatch):
    monkeypatch.setattr(assess, "load", None)
    result = run("gone.mp4", "--explain", code=1)
    assert result.stderr == "failed: gone.mp4: no such file\n"
