"""Which videos the inputs stand for, and which prompts belong to them."""

import json
import os
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from aigveval.data.inputs import collect, pair_by_ends
from aigveval.data.manifest import iter_manifest, make_clip, read_manifest
from aigveval.data.readers import read_rows
from aigveval.errors import InputError

from tests.media import animation

COLUMNS = (
    "has columns by name, expected a list of {video, prompt}, as of pandas' "
    "to_json(orient='records')"
)
VIDEO = "'video' (or path, video_path, file_path, file, filename, video_name, video_file)"
PROMPT = "'prompt' (or caption, text, prompt_en, text_prompt)"


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def touch(*names: str) -> None:
    for name in names:
        os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
        open(name, "w").close()


def write(name: str, text: str, **options) -> str:
    os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
    with open(name, "w", encoding=options.pop("encoding", "utf-8"), newline="") as file:
        file.write(text)
    return name


def videos(*inputs, **options) -> list[str]:
    return [clip.video for clip in collect(inputs, **options).clips]


def pairs(*inputs, **options) -> list[tuple[str, str | None]]:
    return [(clip.video, clip.prompt) for clip in collect(inputs, **options).clips]


def error_of(*inputs, **options) -> str:
    with pytest.raises(InputError) as caught:
        collect(inputs, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestFiles:
    def test_files_in_the_order_given_and_twice_if_named_twice(self):
        touch("b.mp4", "a.mp4")
        assert videos("b.mp4", "a.mp4", "b.mp4") == ["b.mp4", "a.mp4", "b.mp4"]

    @pytest.mark.parametrize("names", ["out_00001_ out_00002_", "out1 out2"])
    @pytest.mark.parametrize("given", ["v", "v/*.webp", "v/*"])
    def test_animated_webps_are_a_video_each_and_others_none(self, names, given):
        os.makedirs("v")
        files = [f"v/{name}.webp" for name in names.split()]
        for file in files:
            animation(Path(file), num_frames=3)
        if given != "v/*.webp":  # asks for just these
            Image.new("RGB", (8, 8)).save("v/thumb.webp")
            touch("v/empty.webp")
        assert videos(given) == files

    def test_any_file_that_is_named_is_taken(self):
        touch("picture.png")
        assert videos("picture.png") == ["picture.png"]

    def test_missing_file_stays_as_a_row(self):
        (clip,) = collect(["gone.mp4"]).clips
        assert (clip.video, clip.problem) == ("gone.mp4", "no such file")

    def test_broken_link_stays_as_a_row(self):
        os.symlink("gone.mp4", "link.mp4")
        (clip,) = collect(["link.mp4"]).clips
        assert clip.problem == "broken link to gone.mp4"

    def test_name_that_is_not_utf8(self):
        name = os.fsdecode(b"caf\xe9.mp4")
        open(name, "w").close()
        (clip,) = collect(["."]).clips
        assert clip.problem is None and os.fspath(clip.path) == name
        assert clip.video == "caf\\udce9.mp4"

    def test_nothing(self):
        assert error_of() == "no video in "


class TestFolders:
    def test_searched_whole_and_sorted(self):
        touch("v/b.mp4", "v/a.MOV", "v/sub/deep/c.webm", "v/notes.txt", "v/.hidden.mp4")
        assert videos("v") == ["v/a.MOV", "v/b.mp4", "v/sub/deep/c.webm"]

    @pytest.mark.parametrize("kind", ["3g2", "dv", "rm", "h264", "265", "hevc", "obu", "ivf"])
    def test_streams_without_a_container_and_rarer_kinds(self, kind):
        touch(f"v/a.{kind}", "v/b.mp4")
        assert videos("v") == [f"v/a.{kind}", "v/b.mp4"]

    def test_named_like_a_video(self):
        touch("clip.mp4/a.mp4")
        assert videos("clip.mp4") == ["clip.mp4/a.mp4"]
        assert videos(".") == ["clip.mp4/a.mp4"]

    def test_links_are_followed_and_cycles_end(self):
        touch("real/a.mp4")
        os.makedirs("v")
        os.symlink("../real/a.mp4", "v/one.mp4")
        os.symlink("../real", "v/folder")
        os.symlink("..", "real/up")
        os.symlink(".", "v/self")
        os.symlink("gone.mp4", "v/broken.mp4")
        clips = collect(["v"]).clips
        assert [clip.video for clip in clips] == [
            "v/broken.mp4",
            "v/folder/a.mp4",
            "v/one.mp4",
        ]
        assert [bool(clip.problem) for clip in clips] == [True, False, False]

    def test_without_videos(self):
        os.makedirs("empty")
        assert error_of("empty") == "no video in the folder empty"
        touch("a.mp4")
        found = collect(["empty", "a.mp4"])
        assert [clip.video for clip in found.clips] == ["a.mp4"]
        assert found.notes == ["no video in the folder empty"]

    def test_that_cannot_be_read_stays_as_a_row(self, monkeypatch):
        touch("v/a.mp4", "v/locked/b.mp4")
        real = os.listdir

        def listdir(path):
            if os.path.basename(path) == "locked":
                raise PermissionError(13, "Permission denied", os.fspath(path))
            return real(path)

        monkeypatch.setattr(os, "listdir", listdir)
        clips = collect(["v"]).clips
        assert [(clip.video, clip.problem) for clip in clips] == [
            ("v/a.mp4", None),
            ("v/locked", "folder cannot be read: Permission denied"),
        ]


class TestPatterns:
    def test_are_expanded(self):
        touch("v/b.mp4", "v/a.mp4", "v/c.txt", "v/sub/d.mp4")
        assert videos("v/*.mp4") == ["v/a.mp4", "v/b.mp4"]
        assert videos("v/*") == ["v/a.mp4", "v/b.mp4", "v/sub/d.mp4"]
        assert videos("v/**/*.mp4") == ["v/a.mp4", "v/b.mp4", "v/sub/d.mp4"]

    def test_that_name_a_suffix_get_it(self):
        touch("a.bin", "b.mp4")
        assert videos("*.bin") == ["a.bin"]

    def test_file_whose_name_looks_like_a_pattern(self):
        touch("a[1].mp4", "a1.mp4")
        assert videos("a[1].mp4") == ["a[1].mp4"]

    def test_without_a_match(self):
        assert error_of("*.avi") == "no video in the pattern *.avi"

    def test_with_links_in_a_circle(self):
        touch("v/a.mp4")
        os.symlink(".", "v/self")
        assert videos("v/**/*.mp4") == ["v/a.mp4"]


FORMATS = {
    "vbench.json": '{"a.mp4": "a dog", "sub/中文.mp4": "一只狗", "c.mp4": null}',
    "nested.json": '{"a.mp4": {"prompt": "a dog", "seed": 1}, "sub/中文.mp4": {"caption": "一只狗"},'
    ' "c.mp4": {"video": "x.mp4", "prompt": null}}',
    "paths.csv": "file_name,Caption\na.mp4,a dog\nsub/中文.mp4,一只狗\nc.mp4,\n",
    "list.json": '[{"video": "a.mp4", "prompt": "a dog", "x": 1},'
    ' {"video": "sub/中文.mp4", "prompt": "一只狗"}, {"video": "c.mp4", "prompt": ""}]',
    "rows.jsonl": '{"video": "a.mp4", "prompt": "a dog"}\n\n'
    '{"video": "sub/中文.mp4", "prompt": "一只狗", "mos": 3}\n{"video": "c.mp4", "prompt": " "}',
    "rows.csv": "mos,video,prompt\n3,a.mp4,a dog\n4,sub/中文.mp4,一只狗\n\n2,c.mp4,\n",
    "excel.csv": "SEP=|\nmos|Video|PROMPT\n3,5|a.mp4|a dog\n4,0|sub/中文.mp4|一只狗\n2|c.mp4|\n",
    "semicolons.csv": "mos;Video;PROMPT\n3,5;a.mp4;a dog\n4,0;sub/中文.mp4;一只狗\n2;c.mp4;\n",
}


@pytest.mark.parametrize("name", FORMATS)
class TestFormats:
    EXPECTED = [("m/a.mp4", "a dog"), ("m/sub/中文.mp4", "一只狗"), ("m/c.mp4", None)]

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
    @pytest.mark.parametrize("newline", ["\n", "\r\n"])
    def test_read(self, name, encoding, newline):
        text = FORMATS[name].replace("\n", newline)
        path = write(f"m/{name}", text, encoding=encoding)
        rows = [(clip.video, clip.prompt) for clip in read_manifest(path, need_prompt=True)]
        assert rows == self.EXPECTED

    def test_as_input_and_as_the_only_prompts(self, name):
        touch("m/a.mp4", "m/c.mp4", "m/sub/中文.mp4", "m/unlisted.mp4")
        path = write(f"m/{name}", FORMATS[name])
        assert pairs(path) == pairs(prompts=path) == pairs(path, prompts=path) == self.EXPECTED

    def test_as_prompts_of_a_folder(self, name):
        touch("m/a.mp4", "m/sub/中文.mp4", "m/unlisted.mp4")
        path = write(f"m/{name}", FORMATS[name])
        found = collect(["m"], prompts=path)
        assert [(clip.video, clip.prompt, clip.problem) for clip in found.clips] == [
            ("m/a.mp4", "a dog", None),
            ("m/sub/中文.mp4", "一只狗", None),
            ("m/unlisted.mp4", None, None),
            ("m/c.mp4", None, "no such file"),  # named by the manifest, absent: not lost
        ]
        assert found.notes == [f"{path} gives no prompt for 1 of 4 videos"]


class TestMatching:
    def test_file_inputs_leave_other_rows_alone(self):
        touch("m/a.mp4", "m/b.mp4")
        path = write("m/p.csv", "video,prompt\na.mp4,A\nb.mp4,B\ngone.mp4,G\n")
        assert pairs("m/b.mp4", prompts=path) == [("m/b.mp4", "B")]

    def test_every_row_of_a_video_counts(self):
        touch("m/a.mp4", "m/b.mp4")
        path = write("m/p.csv", "video,prompt\na.mp4,one\nb.mp4,B\na.mp4,two\na.mp4,two\n")
        expected = [("m/a.mp4", "one"), ("m/a.mp4", "two"), ("m/a.mp4", "two"), ("m/b.mp4", "B")]
        assert pairs("m", prompts=path) == expected
        path = write("m/p.json", '{"a.mp4": "one", "b.mp4": "B", "a.mp4": "two"}')
        assert pairs(path) == [("m/a.mp4", "one"), ("m/b.mp4", "B"), ("m/a.mp4", "two")]

    def test_links_have_their_own_prompts(self):
        touch("x.mp4")
        os.makedirs("m")
        for name in ("a", "b"):
            os.symlink("../x.mp4", f"m/{name}.mp4")
        path = write("m/p.json", '{"a.mp4": "A", "b.mp4": "B"}')
        assert pairs("m", prompts=path) == [("m/a.mp4", "A"), ("m/b.mp4", "B")]

    def test_by_the_target_of_a_link(self):
        touch("m/a.mp4")
        os.symlink("m/a.mp4", "link.mp4")
        path = write("m/p.json", '{"a.mp4": "A"}')
        assert pairs("link.mp4", prompts=path) == [("link.mp4", "A")]

    def test_by_the_end_of_the_path(self):
        touch("v/one/0.mp4", "v/two/0.mp4", "v/two/1.mp4")
        path = write("m/p.json", '{"one/0.mp4": "A", "two/0.mp4": "B", "1.mp4": "C"}')
        assert pairs("v", prompts=path) == [
            ("v/one/0.mp4", "A"),
            ("v/two/0.mp4", "B"),
            ("v/two/1.mp4", "C"),
        ]

    def test_by_the_end_of_a_path_of_windows(self):
        touch("v/one/0.mp4", "v/two/0.mp4", "v/two/1.mp4")
        rows = [r"C:\clips\one\0.mp4,A", r"C:\clips\two\0.mp4,B", r"\\disk\1.mp4,C"]
        path = write("m/p.csv", "\n".join(["video,prompt", *rows]))
        assert pairs("v", prompts=path) == [
            ("v/one/0.mp4", "A"),
            ("v/two/0.mp4", "B"),
            ("v/two/1.mp4", "C"),
        ]

    def test_a_choice_of_names_is_no_match(self):
        touch("v/one/0.mp4", "v/two/0.mp4")
        path = write("m/p.json", '{"0.mp4": "A"}')
        rows = [(clip.video, clip.prompt) for clip in collect(["v"], prompts=path).clips]
        assert rows == [("v/one/0.mp4", None), ("v/two/0.mp4", None), ("m/0.mp4", "A")]

    def test_many_files_of_one_name_take_no_time(self):
        names = [f"{n}/video.mp4" for n in range(3000)]  # two by two it would take hours
        found = pair_by_ends([f"/a/{n}" for n in names], [f"/b/{n}" for n in names])
        assert found == {f"/a/{n}": f"/b/{n}" for n in names}

    def test_accents_as_macos_writes_them(self):
        touch(unicodedata.normalize("NFD", "v/café.mp4"))
        path = write("p.json", json.dumps({unicodedata.normalize("NFC", "café.mp4"): "A"}))
        assert [prompt for _, prompt in pairs("v", prompts=path)] == ["A"]

    @pytest.mark.parametrize("here, there", [("NFC", "NFD"), ("NFD", "NFC")])
    def test_accents_of_another_system(self, here, there):
        touch(unicodedata.normalize(here, "m/süß/café.mp4"))
        row = unicodedata.normalize(there, "video,prompt\nsüß/café.mp4,A\n")
        [clip] = collect([write("m/p.csv", row)]).clips
        assert clip.problem is None and clip.path.exists()

    def test_backslashes_of_windows(self):
        touch("m/sub/a.mp4")
        assert pairs(write("m/p.csv", "video,prompt\nsub\\a.mp4,A\n")) == [("m/sub/a.mp4", "A")]

    def test_a_table_padded_with_spaces(self):
        touch("m/a.mp4", "m/sub/b.mp4", "m/ c.mp4")
        path = write("m/p.csv", "prompt,video\nA ,a.mp4 \nB, sub\\b.mp4\nC, c.mp4\nD, d.mp4\n")
        assert pairs(path)[:3] == [("m/a.mp4", "A "), ("m/sub/b.mp4", "B"), ("m/ c.mp4", "C")]
        assert collect([path]).clips[3].problem == "no such file"

    def test_absolute_paths(self, tmp_path):
        touch("v/a.mp4")
        path = write("m/p.json", json.dumps({str(tmp_path / "v" / "a.mp4"): "A"}))
        assert pairs("v", prompts=path) == [("v/a.mp4", "A")]

    def test_manifest_that_the_shell_listed_among_the_videos(self):
        touch("v/a.mp4")
        path = write("v/p.json", '{"a.mp4": "A"}')
        assert pairs("v/a.mp4", "v/p.json", prompts=path) == [("v/a.mp4", "A")]


VBENCH = [
    {"prompt_en": "a dog, running", "dimension": ["motion_smoothness"]},
    {
        "prompt_en": "in style of Ukiyo-e",
        "dimension": ["appearance_style"],
        "auxiliary_info": {"appearance_style": {"appearance_style": "Ukiyo"}},
    },
    {"prompt_en": "a dog, running", "dimension": ["dynamic_degree"]},
    {"prompt_en": "mission Apollo-11", "dimension": ["scene"]},
    {"prompt_en": "the sign says STOP", "dimension": ["color"]},
    {"prompt_en": "the sign says stop", "dimension": ["color"]},
]


class TestNamesOfFiles:
    @pytest.fixture
    def listed(self) -> str:
        return write("VBench_full_info.json", json.dumps(VBENCH))

    def test_of_a_list_of_prompts(self, listed):
        touch(
            "v/color/the sign says stop-1.mp4",
            "v/a dog, running-0.mp4",
            "v/other.mp4",
            "v/a dog, running-12.mp4",
            "v/mission Apollo-11.mp4",
            "v/mission Apollo-11-0.mp4",
            "v/A_dog_running-3.mp4",
            "v/in style of Ukiyo-e-0.mp4",
            "v/The sign says Stop-0.mp4",
        )
        found = collect(["v"], prompts=listed)
        assert [(clip.video.removeprefix("v/"), clip.prompt) for clip in found.clips] == [
            ("A_dog_running-3.mp4", "a dog, running"),
            ("The sign says Stop-0.mp4", None),  # of two prompts nobody knows which
            ("a dog, running-0.mp4", "a dog, running"),
            ("a dog, running-12.mp4", "a dog, running"),
            ("color/the sign says stop-1.mp4", "the sign says stop"),
            ("in style of Ukiyo-e-0.mp4", "in style of Ukiyo-e"),
            ("mission Apollo-11-0.mp4", "mission Apollo-11"),
            ("mission Apollo-11.mp4", "mission Apollo-11"),
            ("other.mp4", None),
        ]
        assert found.notes == ["VBench_full_info.json gives no prompt for 2 of 9 videos"]

    @pytest.mark.parametrize(
        "name, text",
        [
            ("p.csv", "Caption,seed\na dog,1\n"),
            ("p.jsonl", '{"text": "a dog"}\n'),
            ("p.json", '[{"prompt": "a dog"}, {"prompt": null}]'),
        ],
    )
    def test_of_a_list_in_every_format(self, name, text):
        touch("v/a dog-0.mp4")
        assert pairs("v", prompts=write(name, text)) == [("v/a dog-0.mp4", "a dog")]

    def test_many_files_of_one_name_take_no_time(self):
        names = [f"{n}/video.mp4" for n in range(3000)]  # two by two it would take hours
        found = pair_by_ends([f"/a/{n}" for n in names], [f"/b/{n}" for n in names])
        assert found == {f"/a/{n}": f"/b/{n}" for n in names}

    def test_accents_as_macos_writes_them(self):
        touch(unicodedata.normalize("NFD", "v/un café-0.mp4"))
        path = write("p.csv", unicodedata.normalize("NFC", "prompt\nun café\n"))
        assert [prompt for _, prompt in pairs("v", prompts=path)] == ["un café"]

    def test_list_that_the_shell_listed_among_the_videos(self, listed):
        touch("a dog, running-0.mp4")
        assert pairs("a dog, running-0.mp4", listed, prompts=listed) == [
            ("a dog, running-0.mp4", "a dog, running")
        ]

    def test_a_prompt_of_its_own_stays(self, listed):
        touch("a dog, running-0.mp4")
        path = write("m.csv", 'video,prompt\n"a dog, running-0.mp4",mine\n')
        assert [prompt for _, prompt in pairs(path, prompts=listed)] == ["mine"]
        assert [prompt for _, prompt in pairs(path, prompts="names")] == ["mine"]

    def test_list_without_videos(self, listed):
        message = "VBench_full_info.json: prompts without videos; name their folder too"
        assert error_of(prompts=listed) == message
        assert error_of(listed) == (f"{listed}: row 1 has no {VIDEO}, it has prompt_en, dimension")
        touch("a.mp4")
        path = write("p.json", '[{"prompt_en": "a"}, {"prompt_zh": "b"}]')
        assert error_of("a.mp4", prompts=path) == (
            f"{path}: row 2 has no {PROMPT}, it has prompt_zh"
        )
        path = write("q.json", '[{"prompt_en": "a"}, {"prompt_en": 3}]')
        assert error_of("a.mp4", prompts=path) == (
            f"{path}: row 2: prompt must be text or null, got 3"
        )

    def test_of_names_alone(self, tmp_path):
        touch(
            "v/a dog, running-0.mp4",
            "v/top-10 cats-3.webm",
            "v/a_red_car-1.mp4",
            "v/-4.mp4",
            "v/two words a_b.mp4",
        )
        found = collect(["v"], prompts=tmp_path.relative_to(tmp_path) / "names")
        assert [(clip.video.removeprefix("v/"), clip.prompt) for clip in found.clips] == [
            ("-4.mp4", None),
            ("a dog, running-0.mp4", "a dog, running"),
            ("a_red_car-1.mp4", "a red car"),
            ("top-10 cats-3.webm", "top-10 cats"),
            ("two words a_b.mp4", "two words a_b"),
        ]
        assert found.notes == ["names gives no prompt for 1 of 5 videos"]
        assert pairs("v/-4.mp4", prompts="names", prompt="P") == [("v/-4.mp4", "P")]

    def test_of_names_without_videos(self):
        assert error_of(prompts="names") == "names: prompts without videos; name their folder too"


NO_FILE = "a URL, and files are needed: download it and give its path"
URLS = [
    "https://example.com/a.mp4",
    "http://example.com/a.mp4?download=1&x=[2]",
    "s3://bucket/a.mp4",
    "gs://bucket/a.mp4",
    "hf://datasets/me/clips/a.mp4",
    "HTTPS://example.com/a.mp4",
]


class TestURLs:
    @pytest.mark.parametrize("url", URLS)
    def test_input(self, url):
        for given in (url, Path(url)):
            (clip,) = collect([given]).clips
            assert (clip.video, clip.problem) == (url, NO_FILE)

    def test_file_of_such_a_name_is_one(self):
        touch("https:/example.com/a.mp4")
        (clip,) = collect(["https://example.com/a.mp4"]).clips
        assert clip.problem is None

    @pytest.mark.parametrize("path", ["C:/a.mp4", "C:\\a.mp4", "v/https:/a.mp4", "a:b.mp4"])
    def test_paths_are_none(self, path):
        (clip,) = collect([path]).clips
        assert (clip.video, clip.problem) == (path, "no such file")

    def test_in_a_manifest(self):
        path = write("m/p.csv", "video,prompt,overall\nhttps://example.com/a.mp4,A,3\n")
        (clip,) = collect([path]).clips
        assert (clip.video, clip.problem) == ("https://example.com/a.mp4", NO_FILE)
        (row,) = iter_manifest(path)
        assert row.path == "https://example.com/a.mp4"

    @pytest.mark.parametrize("url", ["https://example.com/p.csv", "hf://datasets/me/clips"])
    def test_manifest(self, url):
        touch("a.mp4")
        for given in (url, Path(url)):
            assert error_of("a.mp4", prompts=given) == f"{url}: {NO_FILE}"
        with pytest.raises(InputError) as error:
            list(iter_manifest(url))
        assert str(error.value) == f"{url}: {NO_FILE}"
        if url.endswith(".csv"):
            assert error_of(url) == f"{url}: {NO_FILE}"


class TestPrompt:
    def test_for_all_without_one(self):
        touch("a.mp4", "b.mp4")
        assert pairs("a.mp4", "b.mp4", prompt="P") == [("a.mp4", "P"), ("b.mp4", "P")]
        path = write("p.json", '{"a.mp4": "A", "b.mp4": ""}')
        found = collect(["a.mp4", "b.mp4"], prompt="P", prompts=path)
        assert [clip.prompt for clip in found.clips] == ["A", "P"] and not found.notes

    @pytest.mark.parametrize("prompt", ["", "  \n", "\x00", None])
    def test_empty_is_none(self, prompt):
        assert make_clip("a.mp4", prompt).prompt is None

    def test_is_kept_as_it_is(self):
        text = "<|feature|> 一只狗 " + "x" * 10_000
        assert make_clip("a.mp4", text).prompt == text

    def test_lone_surrogates_become_text(self):
        assert make_clip("a.mp4", "caf\udce9").prompt == "caf\\udce9"


BROKEN = {
    "gone.csv": (None, "No such file or directory"),
    "gone.json": (None, "No such file or directory"),
    "empty.json": ("", "not JSON: line 1: Expecting value"),
    "empty.csv": ("", f"row 1, the header, names no column {VIDEO}, it has nothing"),
    "empty.jsonl": ("\n", "holds no rows"),
    "header only.csv": ("video,prompt\n", "holds no rows"),
    "columns.csv": (
        "name,words\na,b\n",
        f"row 1, the header, names no column {VIDEO}, it has name, words",
    ),
    "no prompt.csv": (
        "video,mos\na.mp4,3\n",
        f"row 1, the header, names no column {PROMPT}, it has video, mos",
    ),
    "no prompt.jsonl": (
        '{"video": "a", "prompt": "b"}\n{"path": "c", "mos": 3}',
        f"row 2 has no {PROMPT}, it has path, mos",
    ),
    "choice.csv": (
        "path,file,prompt\na,b,c\n",
        "row 1, the header, has several columns that could "
        "be 'video': path, file; call one of them video",
    ),
    "comma.csv": (
        "video,prompt\na.mp4,ok\nb.mp4,a dog, running\n",
        "row 3 has 3 values for 2 columns; text with commas needs double quotes around it",
    ),
    "semicolon.csv": (
        "video;prompt\nb.mp4;a dog; running\n",
        "row 2 has 3 values for 2 columns; text with semicolons needs double quotes around it",
    ),
    "cut.json": ('{\n"a.mp4": "x",\n"b', "not JSON: line 3: Unterminated string starting at"),
    "number.json": ('{"a.mp4": "x", "b.mp4": 3}', "row 2: prompt must be text or null, got 3"),
    "two lines.json": ('[{"a": 1}\n{"a": 2}]', "not JSON: line 2: Expecting ',' delimiter"),
    "more.json": (
        '[{"video": "a"}]\n[2]',
        "not JSON: line 2: Extra data; one object a line is .jsonl",
    ),
    "key.json": (
        '{"a": 1, b: 2}',
        "not JSON: line 1: Expecting property name enclosed in double quotes",
    ),
    "nested.json": ('{"a.mp4": {"prompt": 3}}', "row 1: prompt must be text or null, got 3"),
    "columns.json": ('{"video": ["a"], "prompt": ["b"]}', COLUMNS),
    "frame.json": ('{"path": {"0": "a"}, "text": {"0": "b"}}', COLUMNS),
    "text.json": ('"a.mp4"', "expected an object {path: prompt} or a list of {video, prompt}"),
    "list.json": ('[{"video": "a", "prompt": "b"}, 7]', "row 2 is not an object: 7"),
    "keys.json": ('[{"clip": "a.mp4"}]', f"row 1 has no {VIDEO}, it has clip"),
    "line.jsonl": (
        '{"video": "a", "prompt": "b"}\n{"vid',
        "row 2 is not JSON: Unterminated string starting at",
    ),
    "array.jsonl": ("[1]\n", "row 1 is not an object: [1]"),
    "path.jsonl": ('{"video": "", "prompt": "b"}', "row 1: video must be a path, got ''"),
    "zero.jsonl": (
        '{"video": "a\\u0000", "prompt": "b"}',
        "row 1: video must be a path, got 'a\\x00'",
    ),
    "deep.json": ("[" * 100_000, "its JSON is nested too deep"),
    "prompts.txt": ("a.mp4|a dog", "a manifest is one of .json, .jsonl, .csv, .parquet"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_manifest_is_one_line(name):
    touch("a.mp4")
    text, reason = BROKEN[name]
    if text is not None:
        write(name, text)
    message = error_of("a.mp4", prompts=name)
    assert message == f"{name}: {reason}"
    if not name.endswith(".txt") and not name.startswith("no prompt"):
        assert error_of(name) == message


def test_manifest_in_another_encoding_names_the_line():
    with open("p.csv", "wb") as file:
        file.write("video,prompt\na.mp4,dog\nb.mp4,café\n".encode("latin-1"))
    assert error_of("p.csv") == "p.csv: line 3 is not UTF-8 text"


def test_rows_are_numbered_as_editors_do():
    write("p.csv", "video,prompt\n\na.mp4,A\n")
    assert list(read_rows("p.csv")) == [(3, {"video": "a.mp4", "prompt": "A"})]


@pytest.mark.parametrize("text", ["video\tprompt\nx/a.mp4\ta dog\n", '{"video": "x/a.mp4"}\n'])
def test_utf_16_as_excel_writes_it(text):
    touch("x/a.mp4")
    name = "m.jsonl" if text[0] == "{" else "m.csv"
    assert pairs(write(name, text.replace("\n", "\r\n"), encoding="utf-16")) == [
        ("x/a.mp4", None if text[0] == "{" else "a dog")
    ]


class TestLists:
    TEXT = "# clips\r\na.mp4\r\n\r\n  b c.mp4 \r\ngone.mp4\r\n"

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
    def test_a_path_in_each_line_relative_to_the_list(self, encoding):
        touch("x/a.mp4", "x/b c.mp4")
        clips = collect([write("x/list.TXT", self.TEXT, encoding=encoding)], prompt="a dog").clips
        assert [(clip.video, clip.prompt, clip.problem) for clip in clips] == [
            ("x/a.mp4", "a dog", None),
            ("x/b c.mp4", "a dog", None),
            ("x/gone.mp4", "a dog", "no such file"),
        ]

    @pytest.mark.parametrize("text", ["", "gone.mp4", "a\tb\n", "v\0i\0d"])
    def test_other_text_is_one_row(self, text):
        (clip,) = collect([write("readme.txt", text)]).clips
        assert (clip.video, clip.problem) == (
            "readme.txt",
            "a text, and no line of it is the path of a file that is there; tables are .csv",
        )

    def test_addresses_are_listed(self):
        assert videos(write("list.txt", "https://x.org/a.mp4\n")) == ["https://x.org/a.mp4"]

    def test_a_video_may_have_the_suffix(self):
        Path("clip.txt").write_bytes(b"\0\0\0\x18ftypmp42\xff\xfe")
        assert [(c.video, c.problem) for c in collect(["clip.txt"]).clips] == [("clip.txt", None)]


def test_own_results_are_a_manifest():
    touch("v/a.mp4")
    os.makedirs("out")
    write("out/results.jsonl", '{"video": "v/a.mp4", "prompt": "A", "overall": null}\n')
    assert pairs("out/results.jsonl") == [("v/a.mp4", "A")]
