"""Training data out of labels: read back to the label, apart by split, read by other trainers."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aigveval.assessment import Assessment, Score
from aigveval.cli.app import app
from aigveval.data.attributions import read_labels
from aigveval.data.cot import VIDEO_TAG, make_row, read_cot, write_cot
from aigveval.data.measured import MeasuredFacts
from aigveval.errors import ManifestError
from aigveval.inference import observe
from aigveval.inference.facts import facts_of
from aigveval.reports.results import ResultsFile
from aigveval.train.rewards import rewards
from prompts import Answer, Defect, check_consistency, parse
from prompts.consistency import claims, mentioned
from prompts.defects import DEFECTS
from prompts.facts import Fact
from prompts.rubric import SCORES

from ...media import write_video

FREEZE = {"name": "freeze", "severity": 2, "start_seconds": 0.61, "end_seconds": 1.4}
RATED = {
    "video": "a.mp4",
    "prompt": "a dog runs",
    "technical": 2.33,
    "motion": 4.0,
    "semantic": 4.7,
    "overall": 3.68,
    "group": "dogs",
    "generator": "Sora",
    "weight": 2,
    "duration_seconds": 4,
    "defects": {"technical": [{"name": "blur", "severity": 4}], "motion": [FREEZE], "semantic": []},
}


def ladder_row(kind, dimension, severity, start=None, end=None, **change):
    row = {
        "video": f"x/{kind}_{severity}.mp4",
        "source": "x.mp4",
        "group": "x",
        "prompt": "a red car",
        "source_prompt": "a red car",
        "type": kind,
        "dimension": dimension,
        "severity": severity,
        "strength": 0.5,
        "unit": None,
        "start_seconds": start,
        "end_seconds": end,
        "seed": 1,
        "other": None,
        **{
            f"{name}_drop": 0.75 * severity if name == dimension else 0.0
            for name in ("technical", "motion", "semantic")
        },
    }
    return row | change


LADDER = [
    ladder_row("clean", None, 0),
    ladder_row("blur", "technical", 5, 0.0, 2.64),
    ladder_row("freeze", "motion", 3, 0.55, 1.61),
    ladder_row("scene_cut", "semantic", 3, 1.58, 2.64, motion_drop=None),
    ladder_row("prompt_mismatch", "semantic", 5, prompt="a cat sleeps", video="x/clean.mp4"),
    ladder_row("wrong_object", "semantic", 1, prompt="a red bus", video="x/clean.mp4"),
]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def ladder(tmp_path):
    return write(tmp_path / "manifest.jsonl", LADDER)


def test_labels_are_read_from_each_documented_form(tmp_path):
    lists = RATED | {"defects": [{"name": "blur", "severity": 4, "dimension": "technical"}, FREEZE]}
    text = RATED | {"defects": "blur 4; freeze 2 0.6-1.4"}
    rows = list(read_labels(write(tmp_path / "a.jsonl", [RATED, lists, text])))
    table = tmp_path / "a.csv"
    table.write_text(
        "video,prompt,technical,motion,semantic,overall,duration_seconds,defects\n"
        "a.mp4,a dog runs,2.33,4,4.7,3.68,4,blur 4; freeze 2 0.6-1.4\n"
        'a.mp4,a dog runs,2.33,4,4.7,3.68,,"[{""name"": ""blur"", ""severity"": 4}]"\n'
        "a.mp4,a dog runs,2.33,4,4.7,3.68,,none\n"
        "a.mp4,a dog runs,2.33,4,4.7,3.68,,\n"
    )
    rows += read_labels(table)
    blur = Defect(name="blur", severity=4)
    freeze = Defect(name="freeze", severity=2, start_seconds=0.6, end_seconds=1.4)
    assert [row.defects() for row in rows] == [(blur, freeze)] * 4 + [(blur,), (), None]
    assert [row.duration_seconds for row in rows] == [4] * 4 + [None] * 3
    expected = {"technical": 2.33, "motion": 4, "semantic": 4.7, "overall": 3.68}
    assert all(row.scores == expected and not row.nominal for row in rows)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"defects": "blur"}, r"defects: malformed defect: 'blur'"),
        ({"defects": "ugly 3"}, r"defects: unknown defect: 'ugly 3'"),
        ({"defects": 3}, r"defects must be a list, got 3"),
        ({"defects": "[1"}, r"defects is not JSON"),
        ({"defects": [{"name": "blur", "severity": 1}] * 51}, r"at most 50 defects, got 51"),
        ({"reasoning": "{"}, r"reasoning is not JSON"),
        ({"defects": [{"name": "blur"}]}, r"a defect has a name and a severity"),
        ({"defects": [{"name": "ugly", "severity": 1}]}, r"unknown defect 'ugly'; known: blur"),
        ({"defects": [{"name": "blur", "severity": 9}]}, r"severity must be an integer 1-5, got 9"),
        ({"defects": [{"name": "blur", "severity": "3"}]}, r"numbers of a defect must be numbers"),
        ({"defects": {"sound": []}}, r"defects must be of technical, .*got \['sound'\]"),
        (
            {"defects": {"technical": [FREEZE], "motion": [], "semantic": []}},
            r"freeze is a defect of motion, not of technical",
        ),
        ({"duration_seconds": 1.3}, r"freeze ends at 1.4 s, the clip at 1.3 s"),
        ({"duration_seconds": 10**400}, r"duration_seconds must be above 0, got 1000"),
        ({"defects": [FREEZE | {"end_seconds": 10**400}]}, r"int too large to convert to float"),
        ({"duration_seconds": "long"}, r"duration_seconds must be above 0, got 'long'"),
        ({"reasoning": {"sound": "loud"}}, r"reasoning must be texts for technical"),
        ({"prompt": None}, r"a semantic score needs a prompt"),
    ],
)
def test_a_wrong_row_is_told_in_one_line(tmp_path, change, message):
    path = write(tmp_path / "a.jsonl", [RATED, RATED | change])
    with pytest.raises(ManifestError, match=rf"a\.jsonl: row 2: {message}") as error:
        list(read_labels(path))
    assert "\n" not in str(error.value)


def test_columns_named_as_those_of_a_ladder_may_hold_anything(tmp_path):
    row = RATED | {"dimension": "technical", "end_seconds": "soon"}
    (labels,) = read_labels(write(tmp_path / "a.jsonl", [row]))
    assert labels.row.extra["end_seconds"] == "soon"


def test_a_dimension_nobody_looked_at_leaves_the_defects_unknown(tmp_path):
    partly = {"technical": [], "motion": []}
    rows = [
        RATED | {"defects": partly},
        RATED | {"defects": partly, "prompt": None, "semantic": None},
    ]
    first, second = read_labels(write(tmp_path / "a.jsonl", rows))
    assert first.defects() is None
    assert second.defects() == ()  # without a prompt there is nothing to look at


def test_a_ladder_tells_defects_times_and_nominal_scores(ladder):
    clean, blur, freeze, cut, mismatch, wrong = read_labels(ladder, clean_score=4.0)
    assert {row.duration_seconds for row in (clean, blur, freeze, cut, mismatch)} == {2.64}
    assert clean.defects() == ()
    assert clean.scores == dict.fromkeys(SCORES, 4.0)
    assert blur.defects() == (Defect(name="blur", severity=5),)  # the whole clip
    assert blur.scores == {"technical": 1, "motion": 4, "semantic": 4, "overall": 3}
    assert freeze.defects() == (
        Defect(name="freeze", severity=3, start_seconds=0.6, end_seconds=1.6),
    )
    assert freeze.scores["motion"] == pytest.approx(4 - 0.6 * 3)
    assert cut.defects()[0].end_seconds == 2.6
    assert cut.nominal == {"motion", "overall"}
    assert mismatch.defects() == (Defect(name="prompt_mismatch", severity=5),)
    assert mismatch.row.prompt == "a cat sleeps"
    assert wrong.scores["semantic"] == pytest.approx(3.4)


@pytest.mark.parametrize("times", ["seconds", "tenths"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_the_text_gives_back_the_labels(ladder, tmp_path, times, split):
    rated = write(tmp_path / "rated.jsonl", [RATED])
    labels = [*read_labels(ladder), *read_labels(rated)]
    report = write_cot(
        [ladder, rated],
        tmp_path / "out/cot.jsonl",
        split=split,
        times=times,
        variants=3,
        score_decimals=2,
    )
    rows = list(read_cot(tmp_path / "out/cot.jsonl"))
    assert report.rows == len(rows) == 3 * len(labels)
    assert not report.contradictions
    for row, label in zip(rows, [label for label in labels for _ in range(3)]):
        length = 10.0 if times == "tenths" else label.duration_seconds
        answer = parse(row.answer, expected_scores=SCORES, duration_seconds=length)
        assert not answer.problems
        assert answer.scores == {name: round(score, 2) for name, score in label.scores.items()}
        scale = length / label.duration_seconds
        assert answer.defects == label.defects(scale)
        assert check_consistency(answer, duration_seconds=length) == ()
        assert answer == row.labels()
        for name, text in answer.reasoning.items():
            assert mentioned(text, name) == {d.name for d in label.defects() if d.dimension == name}
        known = dict(zip(SCORES, row.scores))
        for name in SCORES:
            nominal = name in label.nominal
            assert (
                math.isnan(known[name])
                if nominal
                else (known[name] == pytest.approx(label.scores[name], abs=1e-4))
            )


def test_wrong_prompts_give_right_texts(ladder):
    rows = {label.row.extra["type"]: make_row(label) for label in read_labels(ladder)}
    for kind in ("scene_cut", "prompt_mismatch", "wrong_object"):
        answer = rows[kind].labels()
        assert [defect.name for defect in answer.defects] == [kind]
        assert mentioned(answer.reasoning["semantic"], "semantic") == {kind}
        assert answer.scores["semantic"] < answer.scores["technical"]
    assert rows["prompt_mismatch"].video_prompt == "a cat sleeps"
    assert "Defects: prompt mismatch 5\n" in rows["prompt_mismatch"].answer
    assert "Defects: none\n" in rows["clean"].answer


def test_no_sentence_is_in_both_splits(tmp_path):
    rows = [
        ladder_row(name, kind.dimension, severity)
        for name, kind in DEFECTS.items()
        for severity in range(1, 6)
    ]
    rows += [
        ladder_row("clean", None, 0, video=f"{n}.mp4", technical=n, motion=n, semantic=n, overall=n)
        for n in (1, 2, 3, 4, 5)
    ]
    path = write(tmp_path / "m.jsonl", rows)
    told = {}
    for split in ("train", "test"):
        write_cot([path], tmp_path / split, split=split, variants=8)
        lines = (tmp_path / split).read_text().splitlines()
        told[split] = {
            text for line in lines for text in parse(json.loads(line)["answer"]).reasoning.values()
        }
        assert len(told[split]) > 100
    assert not told["train"] & told["test"]


def test_what_is_unknown_is_left_out_or_spoken_of_as_such(tmp_path):
    unseen = {"video": "b.mp4", "prompt": "a dog", "overall": 2.0}
    unrated = {"video": "c.mp4", "prompt": "a dog", "defects": "none"}
    overall = RATED | {"technical": None, "motion": None, "semantic": None}
    path = write(tmp_path / "m.jsonl", [unseen, unrated, overall])
    report = write_cot([path], tmp_path / "cot.jsonl")
    assert (report.rows, report.without_defects, report.without_scores) == (1, 1, 1)
    (row,) = read_cot(tmp_path / "cot.jsonl")
    answer = row.labels()
    assert answer.scores == {"overall": 3.7}
    assert mentioned(answer.reasoning["technical"], "technical") == {"blur"}
    assert set(answer.reasoning) == {"technical", "motion", "semantic"}
    assert write_cot([path], tmp_path / "cot.jsonl", partial=True).rows == 2
    first = next(read_cot(tmp_path / "cot.jsonl"))
    assert first.labels() == Answer(scores={"overall": 2.0})
    with pytest.raises(ManifestError, match="no row has both scores and labels of defects"):
        write_cot([write(tmp_path / "n.jsonl", [unrated])], tmp_path / "cot.jsonl")


def test_words_of_a_rater_are_kept(tmp_path):
    words = {"motion": "The dog's legs slide over the grass.", "technical": " "}
    rows = [RATED | {"reasoning": words}, RATED | {"reasoning": json.dumps(words)}]
    for label in read_labels(write(tmp_path / "m.jsonl", rows)):
        answer = make_row(label).labels()
        assert answer.reasoning["motion"] == words["motion"]
        assert mentioned(answer.reasoning["technical"], "technical") == {"blur"}


def test_labels_that_disagree_are_counted(tmp_path):
    odd = RATED | {"technical": 5.0}  # with a blur of severity 4
    report = write_cot([write(tmp_path / "m.jsonl", [RATED, odd])], tmp_path / "cot.jsonl")
    assert report.contradictions == {"defect_contradicts_score": 1}
    assert report.defects == {"blur": 2, "freeze": 2}


def test_tenths_need_a_length(tmp_path):
    path = write(tmp_path / "m.jsonl", [RATED | {"duration_seconds": None}])
    with pytest.raises(ManifestError, match=r"m\.jsonl: row 1: tenths .* need dur.*a\.mp4"):
        write_cot([path], tmp_path / "cot.jsonl", times="tenths")
    assert write_cot([path], tmp_path / "cot.jsonl").rows == 1


def test_the_length_is_read_from_the_file_where_the_manifest_does_not_tell(tmp_path):
    write_video(tmp_path / "a.mp4", num_frames=20, fps=10)
    late = RATED | {"duration_seconds": None, "defects": [FREEZE | {"start_seconds": 0.64}]}
    write_cot([write(tmp_path / "m.jsonl", [late])], tmp_path / "cot.jsonl", times="tenths")
    (row,) = read_cot(tmp_path / "cot.jsonl")
    assert "freeze 2 3.2-7.0" in row.answer  # 0.64-1.4 s of 2 s, rounded once


def test_the_same_input_gives_the_same_bytes(ladder, tmp_path):
    for name in ("one", "two"):
        write_cot([ladder], tmp_path / name)
    write_cot([ladder], tmp_path / "other", seed=1)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert (tmp_path / "one").read_bytes() != (tmp_path / "other").read_bytes()


def test_the_chat_of_both_forms(ladder, tmp_path):
    write_cot([ladder], tmp_path / "m.jsonl.out")
    write_cot([ladder], tmp_path / "sub/p.jsonl", form="prompt")
    first = json.loads((tmp_path / "m.jsonl.out").read_text().splitlines()[4])
    second = json.loads((tmp_path / "sub/p.jsonl").read_text().splitlines()[4])
    assert [turn["role"] for turn in first["messages"]] == ["system", "user", "assistant"]
    assert first["messages"] == second["prompt"] + second["completion"]
    assert first["messages"][2]["content"] == first["answer"]
    assert first["messages"][1]["content"] == f"{VIDEO_TAG}\nPrompt: a cat sleeps"
    assert (first["videos"], second["videos"]) == (["x/clean.mp4"], ["../x/clean.mp4"])
    assert list(read_cot(tmp_path / "sub/p.jsonl"))[4].video_prompt == "a cat sleeps"
    with pytest.raises(ManifestError, match="row 1 is no row of training data: KeyError"):
        list(read_cot(ladder))


@pytest.mark.slow
def test_trl_reads_both_forms(ladder, tmp_path):
    trl = pytest.importorskip("trl.data_utils", reason="trl is not installed")
    datasets = pytest.importorskip("datasets")
    for form, columns in (("messages", {"messages"}), ("prompt", {"prompt", "completion"})):
        out = tmp_path / f"{form}.jsonl"
        write_cot([ladder], out, form=form)
        dataset = datasets.load_dataset(
            "json", data_files=str(out), split="train", cache_dir=str(tmp_path / "cache")
        )
        assert columns <= set(dataset.column_names)
        assert trl.is_conversational(dataset[0])
        text = trl.apply_chat_template(
            {name: dataset[1][name] for name in columns}, FakeTokenizer()
        )
        assert dataset[1]["answer"] in text.get("text", text.get("completion", ""))


# ---- facts ----

FACTS = [
    Fact(
        kind="asked_seen",
        name="dog",
        value=1,
        confidence=0.91,
        start_seconds=0.25,
        end_seconds=4.0,
        at_seconds=1.0,
        box=(0.1, 0.4, 0.3, 0.6),
    ),
    Fact(kind="freeze", value=0.79, start_seconds=0.61, end_seconds=1.4),
    Fact(kind="speed", value=0.1, percentile=60),
    Fact(kind="sharpness", value=9.0, percentile=12),
    Fact(kind="duration", value=4.0),
]
MEASURED = RATED | {"evidence": [fact.to_dict() for fact in FACTS]}


@pytest.mark.parametrize("times", ["seconds", "tenths"])
def test_sentences_are_made_of_facts(tmp_path, times):
    """In seconds, whatever the unit of the defects' times, and each claim is true."""
    rows = [MEASURED, RATED, MEASURED | {"evidence": json.dumps(MEASURED["evidence"])}]
    report = write_cot(
        [write(tmp_path / "m.jsonl", rows)], tmp_path / "cot.jsonl", times=times, variants=2
    )
    assert report.rows == 4 and not report.contradictions  # one wording of facts, two without
    first, without, _, last = read_cot(tmp_path / "cot.jsonl")
    assert first.evidence == last.evidence == tuple(FACTS) and without.evidence == ()
    lines = (tmp_path / "cot.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["evidence"] == MEASURED["evidence"]
    assert "evidence" not in json.loads(lines[1])
    answer = first.labels()
    assert "0.6-1.4 s" in answer.reasoning["motion"] and "60 %" in answer.reasoning["motion"]
    assert "less sharp than 88 %" in answer.reasoning["technical"].lower()
    assert "dog (91 % sure, on the left, 0.2-4.0 s)" in answer.reasoning["semantic"]
    span = {"seconds": "0.6-1.4", "tenths": "1.5-3.5"}[times]
    assert f"Defects: blur 4; freeze 2 {span}\n" in first.answer
    for text in answer.reasoning.values():
        found = claims(text, FACTS, defects=[Defect(**FREEZE)])
        assert found and all(claim.true for claim in found)
    reward = rewards(first.answer, first.answer, clip_length=first.clip_length, facts=FACTS)
    assert reward["facts"] == reward["consistency"] == reward["length"] == 1
    assert answer.defects == without.labels().defects and answer.scores == without.labels().scores


def test_rows_of_score_explain_can_be_fed_back(tmp_path):
    scores = {name: Score(3.2, 0.3) for name in SCORES}
    made_with = {"model": "lite", "version": "1", "seconds": 1.0}
    defects = (Defect(**FREEZE),)
    row = Assessment(
        video="a.mp4",
        prompt="a dog runs",
        **scores,
        **made_with,
        explanation={"motion": "Words of the model."},
        problems=(),
        defects=defects,
        evidence=tuple(FACTS),
        advice=(),
    )
    bad = Assessment(video="b.mp4", prompt="x", **made_with, error="no such file")
    for suffix in (".jsonl", ".csv", ".parquet"):
        path = tmp_path / f"results{suffix}"
        with ResultsFile(path) as results:
            for one in (row, bad):
                results.write(one)
            results.close(rows=[row, bad])
        report = write_cot([path], tmp_path / "cot.jsonl")
        assert (report.rows, report.without_defects) == (1, 1), suffix
        (found,) = read_cot(tmp_path / "cot.jsonl")
        assert found.evidence == tuple(FACTS) and found.labels().defects == defects
        assert found.scores == (3.2,) * 4 and found.clip_length == 4.0  # the length is a fact
        assert "Words of the model" not in found.answer


def test_without_a_prompt_nothing_is_said_of_it(tmp_path):
    row = MEASURED | {"prompt": None, "semantic": None}
    write_cot([write(tmp_path / "m.jsonl", [row])], tmp_path / "cot.jsonl")
    (found,) = read_cot(tmp_path / "cot.jsonl")
    assert found.evidence == tuple(FACTS[1:])
    assert set(found.labels().reasoning) == {"technical", "motion"}


@pytest.mark.parametrize(
    "evidence, message",
    [
        ("[1", "evidence is not JSON"),
        ({"kind": "cut"}, "evidence must be a list, got {'kind': 'cut'}"),
        (["cut"], "a fact must be an object, got 'cut'"),
        ([{"kind": "tear"}], "evidence: kind must be one of "),
        ([{"kind": "cut", "colour": 1}], "evidence: a fact of another form"),
    ],
)
def test_facts_of_another_form(tmp_path, evidence, message):
    path = write(tmp_path / "a.jsonl", [RATED | {"evidence": evidence}])
    with pytest.raises(ManifestError, match=rf"a\.jsonl: row 1: {re.escape(message)}"):
        list(read_labels(path))


def test_facts_are_measured_where_a_row_has_none(tmp_path):
    rows, asked = [MEASURED, dict(RATED)], []

    def measure(row):
        asked.append(row.path)
        return FACTS[2:]

    path = write(tmp_path / "m.jsonl", rows)
    write_cot([path], tmp_path / "cot.jsonl", measure=measure)
    first, second = read_cot(tmp_path / "cot.jsonl")
    assert asked == [str(tmp_path / "a.mp4")]
    assert (first.evidence, second.evidence) == (tuple(FACTS), tuple(FACTS[2:]))
    del rows[1]["duration_seconds"]  # which is a fact, too
    write_cot([write(tmp_path / "m.jsonl", rows)], tmp_path / "cot.jsonl", measure=measure)
    assert [row.clip_length for row in read_cot(tmp_path / "cot.jsonl")] == [4.0, 4.0]
    rows[1]["defects"] = "freeze 2 3.0-5.0"
    with pytest.raises(ManifestError, match="row 2: freeze ends at 5 s, the clip at 4 s"):
        write_cot([write(tmp_path / "m.jsonl", rows)], tmp_path / "cot.jsonl", measure=measure)


class FakeTokenizer:
    chat_template = "{% for m in messages %}..."

    def apply_chat_template(self, messages, tokenize=False, add_generation_prompt=False, **rest):
        text = "".join(f"<{m['role']}>{m['content']}</>" for m in messages)
        return text + ("<assistant>" if add_generation_prompt else "")


def invoke(*arguments, code=0):
    result = CliRunner().invoke(app, ["cot", *map(str, arguments)])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


class TestCommand:
    def test_it_writes_and_reports(self, ladder, tmp_path):
        rated = write(
            tmp_path / "rated.jsonl",
            [
                RATED | {"technical": 90, "motion": 50, "semantic": 70, "overall": 70},
                {"video": "b.mp4", "overall": 20},
            ],
        )
        result = invoke(rated, "--out", tmp_path / "a.jsonl", "--scale", "0:100")
        assert "1 texts of" in result.output
        assert "1 freeze" in result.output
        assert "1 rows without labels of defects left out" in result.output
        assert "1 texts whose labels disagree: defect contradicts score" in result.output
        assert invoke(ladder, "--out", tmp_path / "b.jsonl", "-q").output == ""

    def test_facts_are_those_of_score_explain(self, tmp_path, monkeypatch):
        monkeypatch.setattr(observe, "detect", lambda pixels: [[] for _ in pixels])
        write_video(tmp_path / "a.mp4", num_frames=40, fps=10)
        path = write(tmp_path / "m.jsonl", [RATED])
        invoke(path, "--out", tmp_path / "a.jsonl", "--facts")
        (row,) = read_cot(tmp_path / "a.jsonl")
        facts = facts_of(observe.observe(tmp_path / "a.mp4"), RATED["prompt"])
        assert row.evidence == tuple(facts) and "% of reference clips" in row.answer

    def test_a_run_that_was_stopped_measures_no_clip_twice(self, tmp_path, monkeypatch):
        """Not even those that it had when it was killed; and the file is the same."""
        stops, asked, look = [2], [], observe.observe

        def observed(path):
            asked.append(Path(path).name)
            if len(asked) in stops:
                raise KeyboardInterrupt
            return look(path)

        monkeypatch.setattr(observe, "detect", lambda pixels: [[] for _ in pixels])
        monkeypatch.setattr(observe, "observe", observed)
        names = ["a.mp4", "b.mp4", "c.mp4"]
        for name in names:
            write_video(tmp_path / name, num_frames=40, fps=10)
        path = write(tmp_path / "m.jsonl", [RATED | {"video": name} for name in names])
        out, partial = tmp_path / "cot/a.jsonl", tmp_path / "cot/a.jsonl.partial.jsonl"
        told = invoke(path, "--out", out, "--facts", code=130).output
        assert f"interrupted: facts of 1 clips are in {partial}; go on with: aigveval" in told
        assert not out.exists() and partial.exists()
        with partial.open("a") as file:
            file.write('\n["cut short')  # by a kill, while it was written
        stops.append(4)
        invoke(path, "--out", out, "--facts", code=130)
        assert asked == ["a.mp4", "b.mp4", "b.mp4", "c.mp4"]
        told = invoke(path, "--out", out, "--facts").output
        assert "facts of 2 clips are known from an earlier run" in told
        assert asked[4:] == ["c.mp4"] and not partial.exists()
        stops.clear()
        invoke(path, "--out", tmp_path / "cot/b.jsonl", "--facts")
        assert out.read_bytes() == (tmp_path / "cot/b.jsonl").read_bytes()

    def test_a_clip_that_has_changed_is_measured_again(self, tmp_path):
        write_video(tmp_path / "a.mp4", num_frames=10, fps=10)
        path = write(tmp_path / "m.jsonl", [RATED])
        (row,) = [labels.row for labels in read_labels(path)]
        kept = MeasuredFacts(tmp_path / "out.jsonl")
        kept.add(row, FACTS)
        assert MeasuredFacts(tmp_path / "out.jsonl").get(row) == tuple(FACTS)
        assert kept.get(replace(row, prompt="a cat")) is None
        write_video(tmp_path / "a.mp4", num_frames=20, fps=10)
        assert MeasuredFacts(tmp_path / "out.jsonl").get(row) is None

    def test_a_clip_that_cannot_be_measured_costs_no_other(self, tmp_path, monkeypatch):
        monkeypatch.setattr(observe, "detect", lambda pixels: [[] for _ in pixels])
        write_video(tmp_path / "a.mp4", num_frames=40, fps=10)
        (tmp_path / "b.mp4").write_text("none")
        path = write(tmp_path / "m.jsonl", [RATED | {"video": "b.mp4"}, RATED])
        told = invoke(path, "--out", tmp_path / "a.jsonl", "--facts", code=1).output
        assert f"failed: {tmp_path / 'b.mp4'}: " in told and "1 texts of" in told
        assert [row.video for row in read_cot(tmp_path / "a.jsonl")] == [str(tmp_path / "a.mp4")]
        path = write(tmp_path / "m.jsonl", [RATED | {"video": "b.mp4"}])
        told = invoke(path, "--out", tmp_path / "b.jsonl", "--facts", code=2).output
        assert "no clip could be read, such as " in told

    def test_wrong_labels_are_said_before_clips_are_measured(self, tmp_path, monkeypatch):
        monkeypatch.setattr(observe, "observe", lambda path: pytest.fail("measured"))
        rows = [RATED, RATED | {"defects": "ugly 3"}]
        told = invoke(
            write(tmp_path / "m.jsonl", rows), "--out", tmp_path / "a.jsonl", "--facts", code=2
        )
        assert "row 2: defects: unknown defect: 'ugly 3'" in told.output

    def test_wrong_input_is_one_line(self, ladder, tmp_path):
        result = invoke(tmp_path / "no.jsonl", "--out", tmp_path / "a", code=2)
        assert "no.jsonl: No such file" in result.output
        bad = write(tmp_path / "bad.jsonl", [RATED | {"defects": "ugly 3"}])
        result = invoke(bad, "--out", tmp_path / "a.jsonl", code=2)
        assert "row 1: defects: unknown defect: 'ugly 3'" in result.output
        off = write(tmp_path / "off.jsonl", [RATED | {"overall": 70}])
        result = invoke(off, "--out", tmp_path / "a.jsonl", code=2)
        assert "got 70; scores are taken to be on 1-5; --scale LOW:HIGH says" in result.output
        assert not (tmp_path / "a.jsonl").exists()
        assert invoke(ladder, code=2)  # no --out

    def test_the_labels_are_not_written_over(self, ladder):
        before = ladder.read_bytes()
        result = invoke(ladder, "--out", ladder, code=2)
        assert "would be written over itself; choose another place" in result.output
        assert ladder.read_bytes() == before


def test_ratings_without_defects(data_dir, tmp_path):
    report = write_cot([data_dir / "fetv_dev/manifest.csv"], tmp_path / "a.jsonl", partial=True)
    assert report.rows == 85
    assert not report.contradictions
    assert not report.defects
