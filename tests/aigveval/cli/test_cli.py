"""The command line, mostly in this process, with an engine that reads scores out of text files."""

import configparser
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

import aigveval
from aigveval import errors
from aigveval.cli.app import app
from aigveval.inference import assessor as assess
from aigveval.reports.results import only_writer, read_results

from ..engines import TextEngine, text_engine

ROOT = Path(__file__).parents[3]


@pytest.fixture
def engine(monkeypatch, tmp_path) -> TextEngine:
    """Puts three "videos" into the current folder and a text engine behind the command."""
    engine = text_engine(monkeypatch, tmp_path)
    monkeypatch.setattr(assess, "row_name", lambda model, **options: model)
    os.mkdir("v")
    for number, name in enumerate("abc", start=2):
        Path(f"v/{name}.mp4").write_text(str(number))
    Path("v/prompts.json").write_text('{"a.mp4": "A", "b.mp4": "B", "c.mp4": ""}')
    return engine


def run(*arguments: str, code: int = 0):
    result = CliRunner().invoke(app, ["score", *arguments])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def overall(path: str = "results.jsonl") -> dict[str, float | None]:
    return {row.video: row.overall and row.overall.score for row in read_results(path)}


ALL = {"v/a.mp4": 2.0, "v/b.mp4": 3.0, "v/c.mp4": 4.0}


class TestScore:
    def test_rows_table_and_means(self, engine):
        result = run("v", "--prompts", "v/prompts.json")
        rows = [json.loads(line) for line in Path("results.jsonl").read_text().splitlines()]
        assert [row["video"] for row in rows] == list(ALL)
        assert [row["prompt"] for row in rows] == ["A", "B", None]
        assert [row["semantic"] for row in rows] == [
            {"score": 2.0, "std": 0.5},
            {"score": 3.0, "std": 0.5},
            None,
        ]
        assert {(row["model"], row["version"], row["error"]) for row in rows} == {
            ("lite", aigveval.__version__, None)
        }
        lines = [line.split() for line in result.stdout.splitlines()]
        assert ["v/a.mp4", *["│", "2.00", "±0.50"] * 4] in lines
        assert ["v/c.mp4", *["│", "4.00", "±0.50"] * 3, "│", "-"] in lines
        means = ["mean", "of", "3,", "semantic", "of", "2"]
        assert [*means, *["│", "3.00"] * 3, "│", "2.50"] in lines
        assert "3 of 3 videos are in results.jsonl" in result.stdout
        assert result.stderr == "note: v/prompts.json gives no prompt for 1 of 3 videos\n"

    @pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
    def test_twice_in_a_row(self, engine, suffix):
        for expected in ("", f"note: out/r{suffix}: earlier results replaced\n"):
            assert run("v", "--out", f"out/r{suffix}").stderr == expected
            assert overall(f"out/r{suffix}") == ALL
            assert os.listdir("out") == [f"r{suffix}"]

    def test_results_of_other_videos_are_kept_aside(self, engine):
        run("v")
        result = run("v/a.mp4")
        assert result.stderr == (
            "note: results.jsonl: earlier results kept as results.old-1.jsonl\n"
        )
        assert overall() == {"v/a.mp4": 2.0} and overall("results.old-1.jsonl") == ALL

    def test_failures(self, engine):
        Path("v/b.mp4").write_text("unreadable")
        result = run("v", "v/gone.mp4", code=1)
        assert overall() == ALL | {"v/b.mp4": None, "v/gone.mp4": None}
        assert result.stderr.splitlines() == [
            "failed: v/b.mp4: not a video",
            "failed: v/gone.mp4: no such file",
        ]
        footer = f"{len(ALL) + 1} of {len(ALL) + 1} videos are in results.jsonl, 2 of them without"
        assert f"{footer} scores" in result.stdout

    def test_no_model_is_loaded_where_nothing_can_be_scored(self, engine, monkeypatch):
        monkeypatch.setattr(assess, "load", None)
        assert run("gone.mp4", code=1).stderr == "failed: gone.mp4: no such file\n"
        assert overall() == {"gone.mp4": None}

    def test_a_name_of_two_lines_is_told_in_one(self, engine):
        assert run("go\nne.mp4", code=1).stderr == "failed: go ne.mp4: no such file\n"
        assert overall() == {"go\nne.mp4": None}

    def test_a_url_is_told_to_be_none(self, engine):
        url = "https://example.com/a.mp4?x=1"
        result = run("v/a.mp4", url, code=1)
        assert result.stderr == (
            f"failed: {url}: a URL, and files are needed: download it and give its path\n"
        )
        assert overall() == {"v/a.mp4": 2.0, url: None}
        assert run("v", "--prompts", "s3://bucket/p.csv", code=2).stderr == (
            "error: s3://bucket/p.csv: a URL, and files are needed: download it and give its path\n"
        )

    def test_prompts_of_names(self, engine):
        for name in ("v/a.mp4", "v/b.mp4", "v/c.mp4"):
            os.rename(name, name.replace(".mp4", " dog-0.mp4"))
        run("v", "--prompts", "names")
        assert engine.prompts == ["a dog", "b dog", "c dog"]
        Path("full.json").write_text('[{"prompt_en": "b dog", "dimension": ["color"]}]')
        run("v", "--prompts", "full.json")
        assert engine.prompts[3:] == [None, "b dog", None]

    def test_help_tells_of_prompts(self):
        text = " ".join(run("--help").stdout.replace("│", " ").split())
        for told in (
            "FILE|names|folders",
            "VBench_full_info.json",
            "video_path, file_path",
            "prompt_en",
        ):
            assert told in text

    def test_quiet(self, engine):
        Path("v/b.mp4").write_text("bug")
        result = run("v", "--quiet", "--prompts", "v/prompts.json", code=1)
        assert result.stdout == ""
        assert result.stderr == "failed: v/b.mp4: RuntimeError: a bug with two lines\n"

    def test_long_lists_are_cut_short(self, engine):
        for number in range(60):
            Path(f"v/x{number:02}.mp4").write_text("unreadable" if number > 4 else "3")
        result = run("v", "--batch-size", "5", code=1)
        assert len(read_results("results.jsonl")) == 63
        assert "... and 13 more" in result.stdout and "mean of 8" in result.stdout
        assert len(result.stderr.splitlines()) == 51
        assert result.stderr.endswith("... and 5 more failed\n")

    def test_names_are_not_markup(self, engine):
        Path("v/[bold]x.mp4").write_text("unreadable")
        result = run("v", code=1)
        assert "v/[bold]x.mp4" in result.stdout
        assert result.stderr == "failed: v/[bold]x.mp4: not a video\n"

    def test_prompt_for_all(self, engine):
        run("v/a.mp4", "v/b.mp4", "--prompt", "P")
        assert engine.prompts == ["P", "P"]

    def test_manifest_alone(self, engine):
        run("--prompts", "v/prompts.json")
        assert overall() == ALL and engine.prompts == ["A", "B", None]


class TestResume:
    def test_scores_what_is_missing_and_keeps_the_order(self, engine):
        Path("v/a.mp4").write_text("unreadable")
        run("v/a.mp4", "v/c.mp4", code=1)
        Path("v/a.mp4").write_text("2")
        engine.batches.clear()
        result = run("v", "--resume")
        assert result.stderr == "1 of 3 videos are already in results.jsonl\n"
        assert engine.batches == [[2.0, 3.0]]
        assert overall() == ALL and list(overall()) == list(ALL)

    def test_nothing_is_left_to_do(self, engine, monkeypatch):
        run("v")
        before = Path("results.jsonl").read_bytes()
        monkeypatch.setattr(assess, "load", None)
        assert "mean of 3" in run("v", "--resume").stdout
        assert Path("results.jsonl").read_bytes() == before

    def test_another_prompt_or_model_is_other_work(self, engine):
        run("v/a.mp4")
        run("v/a.mp4", "--resume", "--prompt", "P")
        run("v/a.mp4", "--resume", "--model", "large")
        keys = [(row.prompt, row.model) for row in read_results("results.jsonl")]
        assert keys == [(None, "lite"), ("P", "lite"), (None, "large")]

    def test_a_model_that_was_written_since_is_told_of(self, engine):
        weights = Path("m/model.safetensors")
        weights.parent.mkdir()
        weights.touch()
        os.utime(weights, (0, 1e9))
        run("v/a.mp4", "--model", "m")
        kept = "1 of 2 videos are already in results.jsonl\n"
        assert run("v/a.mp4", "v/b.mp4", "--model", "m", "--resume").stderr == kept
        os.utime(weights, (0, 1e11))
        assert run("v", "--model", "m", "--resume").stderr == (
            "note: results.jsonl: has rows from before the model m was last written; they are kept\n"
            "2 of 3 videos are already in results.jsonl\n"
        )

    def test_repeated_rows(self, engine):
        run("v/a.mp4", "v/a.mp4")
        run("v/a.mp4", "v/b.mp4", "v/a.mp4", "--resume")
        assert [row.video for row in read_results("results.jsonl")] == [
            "v/a.mp4",
            "v/b.mp4",
            "v/a.mp4",
        ]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_interrupt_keeps_what_is_done(engine, monkeypatch, suffix):
    out = f"results{suffix}"
    arguments = ["score", "v", "--batch-size", "1", "--out", out]
    monkeypatch.setattr(sys, "argv", ["aigveval", *arguments, "a b"])
    real = TextEngine.score

    def score(self, prepared, prompts, **asked):
        if len(self.batches) == 2:
            raise KeyboardInterrupt
        return real(self, prepared, prompts)

    monkeypatch.setattr(TextEngine, "score", score)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 130
    command = f"aigveval score v --batch-size 1 --out {out} 'a b' --resume"
    assert result.stderr == f"interrupted: 2 of 3 videos are in {out}; go on with: {command}\n"
    assert list(overall(out)) == ["v/a.mp4", "v/b.mp4"]
    monkeypatch.setattr(TextEngine, "score", real)
    run("v", "--resume", "--out", out)
    assert overall(out) == ALL


USAGE = [
    (
        ["v", "--out", "results.txt"],
        "results.txt: has the suffix .txt; results are written as .jsonl, .csv, .parquet",
    ),
    (
        ["v", "--out", "v/prompts.jsonl/r.csv"],
        "v/prompts.jsonl/r.csv: cannot be written, as v/prompts.jsonl is not a folder",
    ),
    (["v", "--prompts", "gone.csv"], "gone.csv: No such file or directory"),
    (["v", "--prompts", "v/a.mp4"], "v/a.mp4: a manifest is one of .json, .jsonl, .csv, .parquet"),
    (["empty"], "no video in the folder empty"),
    (["*.avi"], "no video in the pattern *.avi"),
    (["--model", "x"], "nothing to score: name videos, folders or patterns"),
    (["v", ""], "an input is empty: name videos, folders or patterns"),
    (["v", "--prompts", "gone"], "gone: No such file or directory"),
    (
        ["v", "--out", "mine.csv"],
        "mine.csv: not a file of results: its columns are video, prompt; "
        "choose another file for the results",
    ),
]


def test_a_second_command_does_not_write_the_same_results(engine):
    with only_writer("x/../results.jsonl"):
        result = run("v/a.mp4", code=2)
        assert result.stderr == "error: results.jsonl: another command is writing it\n"
        assert not Path("results.jsonl").exists()
        run("v/a.mp4", "--out", "other.jsonl")
    run("v/a.mp4")


@pytest.mark.parametrize(("arguments", "message"), USAGE)
def test_usage_is_one_line(engine, arguments, message):
    os.mkdir("empty")
    Path("v/prompts.jsonl").touch()
    Path("mine.csv").write_text("video,prompt\n")
    result = run(*arguments, code=2)
    assert (result.stdout, result.stderr.replace(f"{Path.cwd()}/", "")) == (
        "",
        f"error: {message}\n",
    )
    assert not os.path.exists("results.jsonl")


@pytest.mark.parametrize("option", ["--batch-size=0", "--workers=0", "--speed=9"])
def test_wrong_options(engine, option):
    assert option.split("=")[0] in run("v", option, code=2).stderr


def test_unexpected_error_is_one_line(engine, monkeypatch):
    def load(model, **options):
        raise TypeError("first line\nsecond line")

    monkeypatch.setattr(assess, "load", load)
    assert run("v", code=1).stderr == (
        "error: unexpected TypeError: first line second line (AIGVEVAL_DEBUG=1 shows where); "
        "run `aigveval doctor`\n"
    )
    monkeypatch.setenv("AIGVEVAL_DEBUG", "1")
    result = CliRunner().invoke(app, ["score", "v"])
    assert isinstance(result.exception, TypeError)


def test_a_file_without_permission_is_the_user_s_to_mend(engine, monkeypatch):
    def load(model, **options):
        raise PermissionError(13, "Permission denied", "/locked/file")

    monkeypatch.setattr(assess, "load", load)
    assert run("v", code=2).stderr == "error: /locked/file: Permission denied\n"


def test_no_memory_to_look_for_words(engine, monkeypatch):
    def load(model, **options):
        raise TypeError("first")

    def none_left():
        raise MemoryError

    monkeypatch.setattr(assess, "load", load)
    monkeypatch.setattr(errors, "newer_versions", none_left)
    assert run("v", code=1).stderr == "error: out of memory\n"
    monkeypatch.setattr(assess, "load", lambda model, **options: none_left())
    assert run("v", code=1).stderr == "error: out of memory\n"


def test_a_folder_that_is_gone(engine, monkeypatch):
    def gone():
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(os, "getcwd", gone)
    assert run("/v", code=2).stderr == (
        "error: the current folder cannot be used: No such file or directory\n"
    )


def test_model_that_is_not_there(engine, monkeypatch, tmp_path):
    monkeypatch.undo()  # the real `load`, in the project's folder
    out = str(tmp_path / "r.jsonl")
    arguments = ["score", str(tmp_path / "v"), "--model", "nothing", "--out", out]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2 and not os.path.exists(out)
    assert result.stderr.splitlines()[-1].startswith("error: no model 'nothing'; give ")


class TestLadder:
    def test_options_arrive(self, engine, monkeypatch, tmp_path):
        from aigveval.distortion import ladder

        given = {}

        def make_ladder(sources, out, *, on_error, **options):
            given.update(options, sources=sources, out=out)
            on_error("v/b.mp4", "not a video")
            return tmp_path / "manifest.jsonl"

        monkeypatch.setattr(ladder, "make_ladder", make_ladder)
        types = ["--type", "blur", "--type", "freeze"]
        result = CliRunner().invoke(app, ["ladder", "v", "--out", "l", *types, "--seed", "3"])
        assert (result.exit_code, result.stderr) == (1, "failed: v/b.mp4: not a video\n")
        assert given["sources"] == ["v"] and given["out"] == Path("l") and given["seed"] == 3
        assert given["types"] == ["blur", "freeze"] and given["workers"] is None

    def test_unknown_type(self, engine):
        result = CliRunner().invoke(app, ["ladder", "v", "--out", "l", "--type", "x"])
        assert result.exit_code == 2
        assert result.stderr.startswith("error: no damage of type 'x'; there are blur, ")

    def test_no_usable_source(self, engine):
        result = CliRunner().invoke(app, ["ladder", "gone.mp4", "--out", "l", "--quiet"])
        assert result.exit_code == 2
        assert "Traceback" not in result.output and "gone.mp4: no such file" in result.stderr


class TestFit:
    def test_config_that_is_not_there(self, engine):
        result = CliRunner().invoke(app, ["fit", "gone.yaml"])
        assert result.exit_code == 2
        assert result.stderr.startswith("error: ") and "gone.yaml" in result.stderr
        assert result.stderr.count("\n") == 1


class TestProcess:
    """The command as users run it."""

    def command(self, *arguments, **options):
        environment = os.environ | {"PYTHONPATH": str(ROOT), "AIGVEVAL_DEBUG": ""}
        command = [sys.executable, "-m", "aigveval", *arguments]
        return subprocess.Popen(
            command,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **options,
        )

    def test_help_is_quick_and_version_is_right(self):
        code = (
            "import sys, aigveval.cli.app; "
            "heavy = {'torch', 'transformers', 'pandas', 'pyarrow', 'av', 'cv2'}; "
            "print(heavy & set(sys.modules))"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE)
        assert (done.returncode, done.stdout) == (0, b"set()\n")
        out, err = self.command("--version").communicate(timeout=60)
        assert (out, err) == (f"aigveval {aigveval.__version__}\n", "")

    def test_help_teaches(self):
        out, _ = self.command("score", "--help").communicate(timeout=60)
        for words in ("1 bad, 2 poor, 3 fair, 4 good", "technical", "motion", "semantic"):
            assert words in out

    def test_error_is_one_line(self, tmp_path):
        process = self.command("score", "*.mp4", cwd=tmp_path)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) == (2, "", "error: no video in the pattern *.mp4\n")

    @pytest.mark.parametrize("start", ["module", "entry point"])
    def test_interrupt_while_importing_is_no_traceback(self, start):
        config = configparser.ConfigParser()
        config.read(ROOT / "setup.cfg")
        scripts = config["options.entry_points"]["console_scripts"]
        module, _, name = scripts.partition("=")[2].strip().partition(":")
        script = (
            "import sys\n"
            "class Interrupted:\n"
            "    def find_spec(name, *_):\n"
            "        if name == 'typer':\n"
            "            raise KeyboardInterrupt\n"
            "sys.meta_path.insert(0, Interrupted)\n"
        )
        if start == "module":
            script += "import runpy; runpy.run_module('aigveval', run_name='__main__')\n"
        else:
            script += f"from {module} import {name}; {name}()\n"
        done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True)
        assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"interrupted\n")

    @pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
    def test_interrupt_does_not_wait_for_decoders(self, tmp_path):
        script = (
            "import signal, sys, time\n"
            # a shell ignores it for what runs in its background, and children inherit that
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            "from aigveval.cli import app\n"
            "from aigveval.inference import assessor as assess\n"
            "class Slow:\n"
            "    explains = supports_contributions = False\n"
            "    def prepare(self, path):\n"
            "        if path.name == 'b.mp4':\n"
            "            print('waiting', file=sys.stderr, flush=True)\n"
            "            time.sleep(60)\n"
            "        return 3.0\n"
            "    def score(self, prepared, prompts, **asked):\n"
            "        from aigveval.assessment import Score\n"
            "        return [{'overall': Score(x, 0.5)} for x in prepared]\n"
            "assess.load = lambda model, *, device, dtype, **options: (\n"
            "    assess.Assessor(Slow(), name=model, **options))\n"
            "sys.argv = ['aigveval', 'score', 'a.mp4', 'b.mp4', '--batch-size', '1']\n"
            "app.main()\n"
        )
        for name in ("a.mp4", "b.mp4"):
            (tmp_path / name).touch()
        process = subprocess.Popen(
            [sys.executable, "-c", script],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            cwd=tmp_path,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stderr.readline() == "waiting\n"
        start, out = time.monotonic(), tmp_path / "results.jsonl"
        while not (out.exists() and out.stat().st_size) and time.monotonic() < start + 20:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        assert process.returncode == 130
        assert err.startswith("interrupted: 1 of 2 videos are in results.jsonl; go on with: ")
        assert [row.video for row in read_results(tmp_path / "results.jsonl")] == ["a.mp4"]

    def test_only_native_noise_is_silenced(self):
        script = (
            "import os, sys\n"
            "from aigveval.cli.console import native_stderr_silenced, say\n"
            "with native_stderr_silenced():\n"
            "    os.write(2, b'noise\\n'); say('inside'); sys.stderr.write('python\\n')\n"
            "os.write(2, b'after\\n')\n"
        )
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.stderr == "inside\npython\nafter\n"
        environment = os.environ | {"AIGVEVAL_DEBUG": "1"}
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
        assert done.stderr == "noise\ninside\npython\nafter\n"

    @pytest.mark.skipif(os.name == "nt", reason="needs a shell of POSIX")
    def test_no_file_takes_the_place_of_a_closed_stream(self, tmp_path):
        script = (
            "import os, sys\n"
            "from aigveval.cli.console import open_standard_streams, print_json\n"
            "open_standard_streams()\n"
            "file = open(sys.argv[1], 'w')\n"
            "print_json({}); print('python', file=sys.stderr)\n"
            "os.write(1, b'noise'); os.write(2, b'noise')\n"
            "import subprocess\n"
            "code = 'import os, sys; sys.exit(sys.stdout is None or os.dup(0) <= 2)'\n"
            "subprocess.run([sys.executable, '-c', code], check=True)\n"
            "file.write('rows'); sys.stdout.flush()\n"
        )
        command = [sys.executable, "-c", script, str(tmp_path / "out")]
        done = subprocess.run(["sh", "-c", '"$0" "$@" <&- >&- 2>&-', *command], cwd=ROOT)
        assert done.returncode == 0 and (tmp_path / "out").read_text() == "rows"

    def test_a_folder_of_settings_that_matplotlib_cannot_make_is_no_news(self, tmp_path):
        (tmp_path / "file").touch()
        script = (
            "from aigveval.cli.console import silence_libraries\n"
            "silence_libraries()\n"
            "import matplotlib; matplotlib.get_configdir()\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | {"MPLCONFIGDIR": str(tmp_path / "file" / "below")},
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (0, "")
