"""Uploads that go away, names that become no paths, and what a clip may be."""

import os
import subprocess
import sys

import pytest

from aigveval.app.files import Scratch, clips_in, inside, shown_name
from aigveval.app.limits import Limits, Refused

from tests.media import field_pictures, write_video

HOSTILE = ("../secret.mp4", "../../etc/passwd", "sub/../../secret.mp4", "/etc/passwd", "link.mp4")
HOSTILE += ("folder-link/secret.mp4", "~/x.mp4/../../../etc/passwd")


@pytest.fixture
def root(tmp_path):
    """A folder with a clip, and links that lead out of it."""
    folder = tmp_path / "root"
    (folder / "sub").mkdir(parents=True)
    for path in (folder / "a.mp4", folder / "sub" / "b.mp4", tmp_path / "secret.mp4"):
        path.write_text("3")
    (folder / "note.txt").write_text("no video")
    (folder / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    (folder / "folder-link").symlink_to(tmp_path)
    (folder / "inner.mp4").symlink_to(folder / "a.mp4")
    return folder


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_outside_of_the_root_is_found(root, name):
    with pytest.raises(Refused, match="^only what lies in the folder of --root can be read$"):
        inside(root, name)


@pytest.mark.parametrize(
    "name", ["http://example.com/a.mp4", "file:///etc/passwd", "sub", "", "*.mp4", "none.mp4"]
)
def test_what_is_no_file_of_the_root(root, name):
    with pytest.raises(Refused) as told:
        inside(root, name)
    assert told.value.status == 404 and str(root) not in str(told.value)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems take no such name")
def test_only_what_can_be_chosen_is_listed(root):
    (root / os.fsdecode(b"b\xff.mp4")).write_text("3")
    assert [inside(root, name).name for name in clips_in(root)] == ["a.mp4", "a.mp4", "b.mp4"]


@pytest.mark.parametrize("name", ["a\0.mp4", "x" * 5000])
def test_what_is_no_path(root, name):
    reason = "^not a path$"
    if sys.version_info >= (3, 14) and "\0" not in name:  # it may be longer than any file's
        reason = "^no such file in the folder of --root: x"
    with pytest.raises(Refused, match=reason):
        inside(root, name)


def test_files_of_the_root(root):
    assert inside(root, "sub/b.mp4") == root / "sub" / "b.mp4"
    assert inside(root, "sub/../a.mp4") == inside(root, "inner.mp4") == root / "a.mp4"
    assert inside(root, str(root / "a.mp4")) == root / "a.mp4"
    assert clips_in(root) == ["a.mp4", "inner.mp4", "sub/b.mp4"]
    with pytest.raises(Refused, match="started without --root"):
        inside(None, "a.mp4")
    assert clips_in(None) == []


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("clip.mp4", "clip.mp4"),
        ("../../etc/passwd", "passwd"),
        (r"C:\videos\clip.mp4", "clip.mp4"),
        ("<img src=x>.mp4", "<img src=x>.mp4"),
        ("a\r\nb\0\x1b[31m.mp4", "a  b  [31m.mp4"),
        ("..", "clip"),
        ("", "clip"),
        ("x" * 500 + ".mp4", "x" * 196 + ".mp4"),
        ("\ud800.mp4", "ud800.mp4"),
    ],
)
def test_a_name_from_outside_is_one_to_be_shown(name, shown):
    assert shown_name(name) == shown


def test_an_upload_is_gone_at_the_end_whatever_its_name(tmp_path):
    with Scratch(Limits(), tmp_path) as scratch:
        for name in ("../../out.mp4", "/tmp/x.mp4", "a.mp4", "a.sh", "b" * 300):
            with scratch.upload(name) as upload:
                upload.write(b"some")
                upload.finish()
                assert upload.path.parent == scratch.path
                assert upload.path.suffix in (".mp4", "")
        with pytest.raises(RuntimeError, match="hung up"), scratch.upload("c.mp4") as upload:
            upload.write(b"half")
            raise RuntimeError("hung up")
        assert scratch.used_bytes == 0
        assert [path.name for path in scratch.path.iterdir()] == ["lock"]
    assert list(tmp_path.iterdir()) == []


def test_limits_hold_while_an_upload_is_written(tmp_path):
    limits = Limits(size_bytes=1000, folder_bytes=1500)
    with Scratch(limits, tmp_path) as scratch, scratch.upload("a.mp4") as upload:
        upload.write(b"x" * 900)
        with pytest.raises(Refused, match="larger than 0.001 MB") as told:
            upload.write(b"x" * 101)
        assert told.value.status == 413
        with scratch.upload("b.mp4") as other:
            with pytest.raises(Refused, match="too much is being uploaded") as told:
                other.write(b"x" * 700)
            assert told.value.status == 503
            other.write(b"x" * 600)


def test_what_a_killed_process_left_is_removed_and_what_is_in_use_stays(tmp_path):
    code = (
        "import os, signal, sys; from aigveval.app.files import Scratch, Limits\n"
        f"scratch = Scratch(Limits(), {str(tmp_path)!r})\n"
        "(scratch.path / 'half.mp4').write_text('half')\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    (left,) = tmp_path.iterdir()
    (tmp_path / "aigveval-app-other").mkdir()  # without a lock: somebody else's
    os.symlink("/", tmp_path / "aigveval-app-link")
    with Scratch(Limits(), tmp_path) as first:
        assert not left.exists()
        with Scratch(Limits(), tmp_path):
            assert first.path.is_dir()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["aigveval-app-link", "aigveval-app-other"]


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"seconds": 0.5}, "longer than 0.5 seconds, the limit here"),
        ({"frames": 20}, "more than 20 frames, the limit here"),
        ({"pixels": 1000}, "frames of 64x48 pixels; the limit here is 1000"),
        ({"size_bytes": 100}, "the file is larger than 0.0001 MB, the limit here"),
    ],
)
def test_a_clip_that_is_more_than_allowed(tmp_path, limits, said):
    path = write_video(tmp_path / "clip.mp4", num_frames=25, fps=25, width=64, height=48)
    Limits().check_clip(path)
    with pytest.raises(Refused) as told:
        Limits(**limits).check_clip(path)
    assert (str(told.value), told.value.status) == (said, 413)


def test_two_fields_in_packets_of_their_own_are_one_frame(tmp_path):
    path = field_pictures(tmp_path / "clip.mp4", num_frames=24)
    Limits(frames=24).check_clip(path)
    with pytest.raises(Refused, match="^more than 23 frames"):
        Limits(frames=23).check_clip(path)


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{}'\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nm=video 1234 RTP/AVP 96\n",
        "<?xml version='1.0'?><MPD><BaseURL>{}</BaseURL></MPD>",
    ],
)
def test_a_list_of_other_files_is_refused(tmp_path, text):
    """FFmpeg would open what it names, wherever that is."""
    secret = write_video(tmp_path / "secret.mp4", num_frames=5)
    path = tmp_path / "upload.mp4"
    path.write_text(text.format(secret))
    with pytest.raises(Refused, match="^a list of other files, not a video$"):
        Limits().check_clip(path)


def test_what_is_no_video_is_left_to_the_engine(tmp_path):
    for name, data in (("a.mp4", b"no video"), ("b.mp4", os.urandom(5000))):
        (tmp_path / name).write_bytes(data)
        Limits().check_clip(tmp_path / name)


def test_limits_are_above_0():
    with pytest.raises(ValueError, match="^frames must be above 0, got 0$"):
        Limits(frames=0)
