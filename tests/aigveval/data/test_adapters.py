"""Public data sets: their real annotation files whole, and samples in their forms."""

import json
import math
import unicodedata

import pytest

from aigveval.data.adapters import find_adapter, list_adapters
from aigveval.data.adapters._piped import Prompts
from aigveval.data.convert import convert
from aigveval.data.manifest import iter_manifest
from aigveval.data.preference_pairs import read_pairs
from aigveval.data.readers import read_rows
from aigveval.data.scales import Scale
from aigveval.errors import InputError, ManifestError
from prompts.rubric import SCORES

OVERALL = SCORES.index("overall")


def scores_of(row):
    return {name: round(s, 4) for name, s in zip(SCORES, row.scores) if not math.isnan(s)}


class TestRealFiles:
    """The whole public annotation files, counted independently of the adapters."""

    def test_ntire2025(self, data_dir, tmp_path):
        folder = data_dir / "annotations"
        names = ("train", "val", "test")
        files = [folder / f"ntire2025_{name}.txt" for name in names]
        done = convert("ntire2025", files, tmp_path / "m.jsonl", videos=tmp_path / "clips")
        assert (done.rows, done.scores["overall"]) == (34_029, 23_820)
        lines = [line.split("|") for f in files for line in f.read_text("utf-8").splitlines()]
        rows = list(iter_manifest(tmp_path / "m.jsonl"))
        assert [row.prompt for row in rows] == [line[1].strip() for line in lines]
        assert [row.video for row in rows] == [f"clips/{line[0]}" for line in lines]
        known = [row.scores[OVERALL] for row in rows if not math.isnan(row.scores[OVERALL])]
        assert known == [float(line[2]) for line in lines if len(line) == 3]
        assert len(set(known)) == 17 and (min(known), max(known)) == (1, 5)
        assert [sum(row.split == name for row in rows) for name in names] == [23820, 3402, 6807]

    def test_t2vqa_db(self, data_dir, tmp_path):
        source = data_dir / "annotations/t2vqa_db.txt"
        done = convert("t2vqa-db", [source], tmp_path / "m.csv")
        assert (done.rows, done.scale) == (10_000, Scale(0, 100))
        lines = [line.split("|") for line in source.read_text("utf-8").splitlines()]
        rows = list(iter_manifest(tmp_path / "m.csv"))
        for row, (name, prompt, mos) in zip(rows, lines, strict=True):
            assert row.prompt == prompt and row.video.endswith(f"/{name}")
            assert done.scale.from_mos(row.scores[OVERALL]) == pytest.approx(float(mos))
        # Every prompt has each variant once.
        assert len({row.prompt for row in rows}) == 1000
        assert len({(row.prompt, row.generator) for row in rows}) == 10_000
        assert {row.generator for row in rows} == {f"variant {n:02d}" for n in range(10)}

    def test_t2veval(self, data_dir, tmp_path):
        folder = data_dir / "annotations"
        convert("t2veval", [folder / "t2veval_prompts.txt"], tmp_path / "m.parquet")
        rows = list(iter_manifest(tmp_path / "m.parquet"))
        assert len(rows) == 1782 and len({row.generator for row in rows}) == 13
        assert len({row.prompt for row in rows}) == len({row.group for row in rows}) == 148
        # The other file, joined with its prompts, says the same.
        convert(
            "t2veval",
            [folder / "t2veval_mos.txt"],
            tmp_path / "mos.jsonl",
            prompts=folder / "t2veval_prompts.txt",
        )
        for row, other in zip(rows, iter_manifest(tmp_path / "mos.jsonl"), strict=True):
            assert (row.video, row.prompt, row.generator) == (
                other.video,
                other.prompt,
                other.generator,
            )
            assert row.scores[OVERALL] == pytest.approx(other.scores[OVERALL], abs=1e-9)

    def test_fetv_dev_in_our_own_form(self, data_dir, tmp_path):
        done = convert("manifest", [data_dir / "fetv_dev/manifest.csv"], tmp_path / "m.parquet")
        assert done.rows == 85 and set(done.scores.values()) == {85}
        given = iter_manifest(data_dir / "fetv_dev/manifest.csv")
        for row, before in zip(iter_manifest(tmp_path / "m.parquet"), given, strict=True):
            assert (row.scores, row.raters, row.prompt) == (
                before.scores,
                before.raters,
                before.prompt,
            )
            mean = sum(row.raters["motion"].values()) / 3
            assert row.scores[SCORES.index("motion")] == pytest.approx(mean, abs=5e-4)


def write(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(content, str):
        lines = name.endswith(".jsonl")
        content = "\n".join(map(json.dumps, content)) if lines else json.dumps(content)
    path.write_text(content, encoding="utf-8")
    return path


def rows_of(name, source, tmp_path, **options):
    convert(name, [source], tmp_path / "out.jsonl", **options)
    return list(iter_manifest(tmp_path / "out.jsonl"))


def test_ntire_json(tmp_path):
    source = write(
        tmp_path,
        "train.json",
        [{"video": "1.mp4", "prompt": "a", "gt_score": 2.5}, {"video": "2.mp4", "prompt": "b"}],
    )
    first, second = rows_of("ntire2025", source, tmp_path)
    assert (first.video, scores_of(first), scores_of(second)) == ("1.mp4", {"overall": 2.5}, {})
    (first, _) = rows_of("ntire2025", source, tmp_path, score="semantic")
    assert scores_of(first) == {"semantic": 2.5}


@pytest.mark.parametrize(
    "line, video, prompt, score",
    [
        ("1.mp4|a dog|3.5", "1.mp4", "a dog", 3.5),
        ("1.mp4|a dog\r", "1.mp4", "a dog", None),
        ("1.mp4| a | b |2", "1.mp4", "a | b", 2),
        ("1.mp4|a|b", "1.mp4", "a|b", None),
        ("1.mp4|a dog|", "1.mp4", "a dog", None),
        ("1.mp4|a dog|3,5", "1.mp4", "a dog", 3.5),
        ("1.mp4|a dog|3.5|", "1.mp4", "a dog", 3.5),
        ("1.mp4||3.5", "1.mp4", None, 3.5),
        ("1.mp4|a||", "1.mp4", "a", None),
    ],
)
def test_lines_with_bars(tmp_path, line, video, prompt, score):
    (row,) = rows_of("ntire2025", write(tmp_path, "m.txt", "\ufeff" + line + "\n\n"), tmp_path)
    assert (row.video, row.prompt, scores_of(row).get("overall")) == (video, prompt, score)


@pytest.mark.parametrize("line", ["Pika+a-dog.mp4;3,5", "Pika+a-dog.mp4,3,5", "name,mos"])
def test_t2veval_with_another_separator_or_mark(tmp_path, line):
    source = write(tmp_path, "mos.txt", f"Pika+a-cat.MP4,3.5\n{line}\n")
    with pytest.raises(ManifestError) as error:
        convert("t2veval", [source], tmp_path / "m.csv")
    assert str(error.value) == f"{source}: row 2: expected name,mos or name|prompt|mos"


def fetv(tmp_path):
    for rater, shift in (("human0", 0), ("human1", 1), ("human2", 2)):
        for model in ("cogvideo", "damo-text2video", "ground-truth"):
            lines = [
                {
                    str(n): {
                        "video_id": f"v{n}",
                        "static_quality": 1 + n + shift,
                        "temporal_quality": 2,
                        "alignment": 3,
                        "fine-grained_alignment": {"color": 1},
                    }
                }
                for n in (0, 2)
            ]
            text = "\n".join(map(json.dumps, lines))
            write(tmp_path, f"results/{rater}/manual_eval_results_{model}.json", text)
    prompts = "\n".join(json.dumps({"video_id": f"v{n}", "prompt": f"p{n}"}) for n in range(3))
    write(tmp_path, "fetv_data.json", prompts)
    write(tmp_path, "videos/cogvideo/videos/0.gif", "")
    return tmp_path / "results"


def test_fetv(tmp_path):
    options = {"prompts": tmp_path / "fetv_data.json", "videos": tmp_path / "videos"}
    source = fetv(tmp_path)
    rows = rows_of("fetv", source, tmp_path, **options)
    assert [(row.video, row.prompt, row.generator) for row in rows] == [
        ("videos/cogvideo/videos/0.gif", "p0", "CogVideo"),
        ("videos/cogvideo/videos/2.mp4", "p2", "CogVideo"),
        ("videos/modelscope-t2v/videos/0.mp4", "p0", "ModelScopeT2V"),
        ("videos/modelscope-t2v/videos/2.mp4", "p2", "ModelScopeT2V"),
    ]
    assert scores_of(rows[0]) == {"technical": 2.0, "motion": 2.0, "semantic": 3.0}
    assert rows[0].raters["technical"] == {"human0": 1, "human1": 2, "human2": 3}
    (first, *_) = rows_of("fetv", source, tmp_path, mean_overall=True, **options)
    assert scores_of(first)["overall"] == round(7 / 3, 4)


def test_fetv_without_prompts_or_results(tmp_path):
    source = fetv(tmp_path)
    with pytest.raises(ManifestError, match="row 1: a semantic score needs a prompt"):
        rows_of("fetv", source, tmp_path)
    with pytest.raises(ManifestError, match=r"holds no human\*/manual_eval_results_MODEL.json"):
        rows_of("fetv", tmp_path / "videos", tmp_path)
    write(tmp_path, "results/human0/manual_eval_results_zeroscope.json", '{"0": 3}')
    with pytest.raises(ManifestError, match="zeroscope.json: row 1 is not "):
        rows_of("fetv", source, tmp_path)


VIDEOFEEDBACK = {
    "id": "f004229",
    "text prompt": "a dog",
    "video link": "https://x/f004229.mp4",
    "visual quality": 1,
    "temporal consistency": 4,
    "dynamic degree": 3,
    "text-to-video alignment": 2,
    "factual consistency": 3,
    "conversations": [],
}


@pytest.mark.parametrize("name", ["annotated.json", "annotated.jsonl"])
def test_videofeedback(tmp_path, name):
    source = write(tmp_path, name, [VIDEOFEEDBACK])
    (row,) = rows_of("videofeedback", source, tmp_path, mean_overall=True)
    assert (row.video, row.prompt) == ("f004229.mp4", "a dog")
    assert scores_of(row) == {
        "technical": 1.0,
        "motion": 5.0,
        "semantic": round(1 + 4 / 3, 4),
        "overall": round(1 + 4 * (13 / 5 - 1) / 3, 4),
    }
    assert row.extra == {"dynamic_degree": 3, "factual_consistency": 3}
    source = write(tmp_path, name, [VIDEOFEEDBACK | {"dynamic degree": None}])
    with pytest.raises(ManifestError, match="row 1 has no 'dynamic degree'"):
        rows_of("videofeedback", source, tmp_path)
    source = write(tmp_path, name, [VIDEOFEEDBACK | {"dynamic degree": "much"}])
    with pytest.raises(ManifestError, match="row 1: a dimension is no number"):
        rows_of("videofeedback", source, tmp_path, mean_overall=True)


def aigvqa(question, mos="59.5", video="/DATA/wjr/G1/Gen-2/100013.mp4"):
    return {
        "video": video,
        "id": f"100013.mp4->{mos}",
        "conversations": [
            {"from": "human", "value": f"How would you rate the {question} of this video? "},
            {"from": "gpt", "value": f"The {question} of the video is good."},
        ],
    }


def test_aigvqa_db(tmp_path):
    source = write(tmp_path, "m.jsonl", [aigvqa("static quality"), aigvqa("temporal smoothness")])
    first, second = rows_of("aigvqa-db", source, tmp_path)
    assert (first.video, first.generator) == ("Gen-2/100013.mp4", "Gen-2")
    assert scores_of(first) == {"technical": 3.38} and scores_of(second) == {"motion": 3.38}
    source = write(tmp_path, "m.jsonl", [aigvqa("text-video correspondence")])
    prompts = write(tmp_path, "prompts.json", {"100013.mp4": "a dog"})
    (row,) = rows_of("aigvqa-db", source, tmp_path, prompts=prompts)
    assert (row.prompt, scores_of(row)) == ("a dog", {"semantic": 3.38})
    source = write(tmp_path, "m.jsonl", [aigvqa("dynamic degree")])
    with pytest.raises(ManifestError, match="say with --score which score it is"):
        rows_of("aigvqa-db", source, tmp_path)
    (row,) = rows_of("aigvqa-db", source, tmp_path, score="motion")
    assert scores_of(row) == {"motion": 3.38}
    source = write(tmp_path, "m.jsonl", [aigvqa("static quality", mos="good")])
    with pytest.raises(ManifestError, match="row 1: technical must be a number, got 'good'"):
        rows_of("aigvqa-db", source, tmp_path)


def test_gaia(tmp_path):
    text = "filename,Subject,Completeness,Interaction\nPika_1.mp4,25,50,75\n"
    source = write(tmp_path, "MOS.csv", text)
    prompts = write(tmp_path, "prompts.txt", "Pika_1|a man dances")
    (row,) = rows_of("gaia", source, tmp_path, prompts=prompts, mean_overall=True)
    assert (row.prompt, row.extra) == ("a man dances", {"interaction": "75"})
    assert scores_of(row) == {"technical": 2.0, "motion": 3.0, "overall": 3.0}
    (row,) = rows_of("gaia", source, tmp_path)
    assert "overall" not in scores_of(row) and row.prompt is None


def test_a_name_of_several_prompts_has_none(tmp_path):
    text = "a/1.mp4|a dog\nb/1.mp4|a cat\na/2.mp4|a hen\nb/2.mp4|a hen\n1.mp4|a man\n"
    found = Prompts(write(tmp_path, "prompts.txt", text))
    asked = ("b/1.mp4", "1.mp4", "c/1.mp4", "c/2.mp4", "c/2.webm", "3.mp4")
    assert [*map(found.of, asked)] == ["a cat", "a man", None, "a hen", "a hen", None]


def test_a_prompt_is_found_however_accents_are_stored(tmp_path):
    name = "fée-é.mp4"
    found = Prompts(write(tmp_path, "prompts.txt", unicodedata.normalize("NFD", name) + "|a fairy"))
    assert found.of(unicodedata.normalize("NFC", name)) == "a fairy"


def test_q_save(tmp_path):
    rows = [
        {
            "video": "a.mp4",
            "prompt": "a dog",
            "mos": 3.4,
            "model": "Wan",
            "visual_quality": {"score": 4, "attribution": "sharp"},
            "dynamic_quality": ["legs slide", "jerky"],
            "text_video_alignment": "no dog is seen",
        },
        {"video": "b.mp4", "prompt": "a cat", "mos": 2, "dynamic_quality": 2.5},
    ]
    first, second = rows_of("q-save", write(tmp_path, "q.json", rows), tmp_path)
    assert scores_of(first) == {"technical": 4, "overall": 3.4} and first.generator == "Wan"
    assert first.extra["reasoning"] == {
        "technical": "sharp",
        "motion": "legs slide; jerky",
        "semantic": "no dog is seen",
    }
    assert scores_of(second) == {"motion": 2.5, "overall": 2}
    text = "video,prompt,mos,visual_quality\na.mp4,p,3,blurry faces\n"
    (row,) = rows_of("q-save", write(tmp_path, "q.csv", text), tmp_path)
    assert row.extra["reasoning"] == {"technical": "blurry faces"}
    bad = write(tmp_path, "bad.json", [rows[0] | {"visual_quality": True}])
    with pytest.raises(ManifestError, match="row 1: visual_quality must be a number, text or list"):
        rows_of("q-save", bad, tmp_path)


def test_vbench_prompts(tmp_path):
    source = write(tmp_path, "prompts.json", {"sub/a.mp4": "a dog", "b.mp4": "a cat"})
    rows = rows_of("vbench-prompts", source, tmp_path)
    assert [(row.video, row.prompt) for row in rows] == [("sub/a.mp4", "a dog"), ("b.mp4", "a cat")]
    others = "notes.txt", "__MACOSX/._a dog, running-0.mp4", ".cache/b.mp4", "c.mp4/d.txt"
    for name in ("a dog, running-0.mp4", "deep/top-10 cats-3.mp4", *others):
        write(tmp_path, f"videos/{name}", "")
    rows = rows_of("vbench-prompts", tmp_path / "videos", tmp_path)
    assert [(row.video, row.prompt) for row in rows] == [
        ("videos/a dog, running-0.mp4", "a dog, running"),
        ("videos/deep/top-10 cats-3.mp4", "top-10 cats"),
    ]
    source = write(
        tmp_path,
        "VBench_full_info.json",
        [
            {"prompt_en": "A dog, running", "dimension": ["scene"], "auxiliary_info": {}},
            {"prompt_en": "ten cats", "dimension": ["color"]},
        ],
    )
    rows = rows_of("vbench-prompts", source, tmp_path, videos=tmp_path / "videos")
    assert [(row.video, row.prompt) for row in rows] == [
        ("videos/a dog, running-0.mp4", "A dog, running"),
        ("videos/deep/top-10 cats-3.mp4", None),
    ]
    with pytest.raises(ManifestError) as error:
        (tmp_path / "none").mkdir()
        rows_of("vbench-prompts", source, tmp_path, videos=tmp_path / "none")
    assert str(error.value) == f"{tmp_path / 'none'}: holds no videos"


TAOBAO = "video_name,Prompt,Traditional_MOS,Alignment_MOS,Aesthetic_MOS,Temporal_MOS,Overall_MOS\n"


def test_taobaovd_gc(tmp_path):
    source = write(tmp_path, "train.csv", TAOBAO + '1.mp4,"a dog, running",3.2,4.1,3.8,3.5,3.65\n')
    (row,) = rows_of("taobaovd-gc", source, tmp_path, videos=tmp_path / "videos")
    assert (row.video, row.prompt) == ("videos/1.mp4", "a dog, running")
    assert scores_of(row) == {"technical": 3.2, "motion": 3.5, "semantic": 4.1, "overall": 3.65}
    assert row.extra == {"aesthetic": "3.8"}
    test = write(tmp_path, "test.csv", "video_name,Prompt\n2.mp4,a cat\n")
    done = convert("taobaovd-gc", [source, test], tmp_path / "both.jsonl")
    assert (done.rows, done.scores["overall"], done.scale) == (2, 1, Scale(1, 5))
    rows = list(iter_manifest(tmp_path / "both.jsonl"))
    assert [(row.split, scores_of(row)) for row in rows][1] == ("test", {})
    source = write(tmp_path, "percent.csv", TAOBAO + "1.mp4,a,50,,,75,100\n")
    (row,) = rows_of("taobaovd-gc", source, tmp_path, scale=Scale(0, 100))
    assert scores_of(row) == {"technical": 3.0, "motion": 4.0, "overall": 5.0}


@pytest.mark.parametrize(
    "text, reason",
    [
        (TAOBAO + "1.mp4,a,50,,,75,100\n", "row 2: technical must lie in 1-5, got 50"),
        ("name,Prompt\n1.mp4,a\n", "row 2 has no 'video_name', it has name, prompt"),
        (TAOBAO + "1.mp4,,3,3,3,3,3\n", "row 2: a semantic score needs a prompt"),
    ],
)
def test_taobaovd_gc_broken(tmp_path, text, reason):
    source = write(tmp_path, "train.csv", text)
    with pytest.raises(ManifestError) as error:
        rows_of("taobaovd-gc", source, tmp_path)
    assert str(error.value) == f"{source}: {reason}"


VBENCH = {
    "prompt_en": "an alley",
    "videos": {m: f"{m}/scene/alley-0.mp4" for m in ("b", "a", "c")},
    "human_anno": {"a": {"b": 1, "c": 0.5}, "b": {"a": 0}, "c": {"a": 0.5, "b": 0}},
}


def test_vbench_preference(tmp_path):
    convert("vbench-preference", [write(tmp_path, "scene.json", [VBENCH])], tmp_path / "out.csv")
    pairs = read_pairs(tmp_path / "out.csv")
    found = [(p.generator_a, p.generator_b, p.preferences[SCORES.index("semantic")]) for p in pairs]
    assert found == [("a", "b", "A"), ("a", "c", "same"), ("b", "c", "A")]
    assert pairs[0].video_a == str(tmp_path / "a/scene/alley-0.mp4")
    told = VBENCH | {"dimension": ["motion_smoothness"]}
    convert("vbench-preference", [write(tmp_path, "x.json", [told])], tmp_path / "out.csv")
    assert read_pairs(tmp_path / "out.csv")[0].preferences == (None, "A", None, None)
    source = write(tmp_path, "labels.json", [VBENCH])
    with pytest.raises(ManifestError, match="say with --score which score it is"):
        convert("vbench-preference", [source], tmp_path / "out.csv")
    convert("vbench-preference", [source], tmp_path / "out.csv", score="overall")
    wrong = VBENCH | {"human_anno": {"a": {"b": 1}, "b": {"a": 1}}}
    with pytest.raises(ManifestError, match="row 1: the labels of a and b must be 0, 0.5 or 1"):
        source = write(tmp_path, "color.json", [wrong])
        convert("vbench-preference", [source], tmp_path / "out.csv")
    source = write(tmp_path, "color.json", [VBENCH | {"human_anno": {"a": 1}}])
    with pytest.raises(ManifestError, match="row 1: the labels of a and b must be objects"):
        convert("vbench-preference", [source], tmp_path / "out.csv")


def test_videogen_rewardbench(tmp_path):
    header = "path_A,path_B,A_model,B_model,prompt,fps_A,fps_B,VQ,MQ,TA,Overall\n"
    source = write(
        tmp_path,
        "videogen-rewardbench.csv",
        header + "videos/1.mp4,videos/2.mp4,Kling,Luma,a dog,24,24,A,same,B,A\n",
    )
    convert("videogen-rewardbench", [source], tmp_path / "out.jsonl")
    (pair,) = read_pairs(tmp_path / "out.jsonl")
    assert pair.preferences == ("A", "same", "B", "A") and pair.prompt == "a dog"
    assert (pair.generator_a, pair.generator_b) == ("Kling", "Luma")
    assert pair.video_b == str(tmp_path / "videos/2.mp4")
    source = write(tmp_path, "x.csv", header.replace("Overall", "ALL") + "a,b,,,p,,,A,A,A,left\n")
    with pytest.raises(ManifestError, match="row 2: overall must be A, B, same or empty"):
        convert("videogen-rewardbench", [source], tmp_path / "out.jsonl")


class TestConvert:
    def test_scales(self, tmp_path):
        source = write(tmp_path, "m.csv", "video,overall,overall_rater1\na.mp4,50,75\n")
        (row,) = rows_of("manifest", source, tmp_path, scale=Scale(0, 100))
        assert scores_of(row) == {"overall": 3.0} and row.raters == {"overall": {"1": 4.0}}
        with pytest.raises(ManifestError, match="m.csv: row 2: overall must lie in 1-5, got 50"):
            rows_of("manifest", source, tmp_path)

    def test_a_manifest_takes_the_prompts_that_it_lacks_from_a_file(self, tmp_path):
        source = write(
            tmp_path, "m.csv", "video,prompt,overall\na/1.mp4,,3\n2.mp4,own,4\n3.mp4,,5\n"
        )
        prompts = write(tmp_path, "p.csv", "video;prompt\n1.mp4;a dog\n2.mp4;a cat\n")
        rows = rows_of("manifest", source, tmp_path, prompts=prompts)
        assert [row.prompt for row in rows] == ["a dog", "own", None]

    def test_a_wrong_row_leaves_no_file(self, tmp_path):
        source = write(tmp_path, "m.txt", "1.mp4|a|3\n2.mp4|b|6\n")
        with pytest.raises(ManifestError) as error:
            convert("ntire2025", [source], tmp_path / "out.jsonl")
        assert str(error.value) == f"{source}: row 2: overall must lie in 1-5, got 6"
        assert [path.name for path in tmp_path.iterdir()] == ["m.txt"]

    def test_columns_that_hold_nothing_are_left_out(self, tmp_path):
        convert("ntire2025", [write(tmp_path, "m.txt", "1.mp4|a|3\n")], tmp_path / "out.csv")
        assert list(read_rows(tmp_path / "out.csv")) == [
            (2, {"video": "1.mp4", "prompt": "a", "overall": "3.0"}),
        ]

    @pytest.mark.parametrize(
        "name, message",
        [
            ("ntire", "no adapter 'ntire'; did you mean ntire2025? There are aigvqa-db, "),
            ("xyz", "no adapter 'xyz'; there are aigvqa-db, fetv, gaia, manifest, ntire2025, "),
        ],
    )
    def test_unknown_adapter(self, tmp_path, name, message):
        with pytest.raises(InputError) as error:
            convert(name, [tmp_path], tmp_path / "out.csv")
        assert str(error.value).startswith(message)

    @pytest.mark.parametrize(
        "content, reason",
        [
            ("no bar\n", "row 1: expected name|prompt or name|prompt|mos"),
            ("", "holds no rows"),
            (None, "No such file or directory"),
        ],
    )
    def test_broken_text(self, tmp_path, content, reason):
        source = tmp_path / "m.txt"
        if content is not None:
            source.write_text(content)
        with pytest.raises(ManifestError) as error:
            convert("t2vqa-db", [source], tmp_path / "out.csv")
        assert str(error.value) == f"{source}: {reason}"

    def test_a_file_is_not_written_over_itself(self, tmp_path):
        source = write(tmp_path, "m.csv", "video\na.mp4\n")
        with pytest.raises(InputError, match="m.csv: would be written over itself"):
            convert("manifest", [source], tmp_path / "m.csv")
        assert source.read_text() == "video\na.mp4\n"

    def test_a_scale_of_pairs_is_refused(self, tmp_path):
        with pytest.raises(InputError, match="has no scores that a scale could be of"):
            convert("vbench-preference", ["x.json"], tmp_path / "o.csv", scale=Scale(0, 1))


def test_adapters_are_listed_by_their_modules():
    assert list_adapters() == sorted(list_adapters()) and len(list_adapters()) >= 13
    assert {"manifest", "t2vqa-db", "vbench-preference"} <= set(list_adapters())


@pytest.mark.parametrize("name", list_adapters())
def test_every_adapter_can_be_imported(name):
    adapter = find_adapter(name)
    assert callable(adapter.read) and adapter.title and adapter.reads
    assert not (adapter.pairs and adapter.scale)
