"""Files that are replaced at once."""

import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from aigveval.errors import InputError, ModelError
from aigveval.files import replaced, write_text, writing


def test_a_name_as_long_as_can_be(tmp_path):
    path = tmp_path / ("\u89c6" * 83 + ".csv")  # 253 bytes of 255
    write_text(path, "x")
    assert path.read_text() == "x" and list(tmp_path.iterdir()) == [path]


def test_a_pipe_is_written_to(tmp_path):
    path, found = tmp_path / "pipe", []
    if not hasattr(os, "mkfifo"):
        pytest.skip("Windows has no such pipes")
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: found.append(path.read_text()), daemon=True)
    reader.start()
    write_text(path, "x")
    reader.join(5)
    assert found == ["x"] and path.is_fifo()


@pytest.mark.skipif(not os.path.exists("/dev/stdout"), reason="the system has no such file")
def test_the_shells_own_file_is_not_replaced(tmp_path):
    code = "from aigveval.files import write_text; print('a', flush=True)\n"
    code += "write_text('/dev/stdout', 'b\\n')"
    with open(tmp_path / "out", "a+") as file:
        for keeps_its_name in (True, False):
            if not keeps_its_name:
                os.unlink(file.name)
            subprocess.run([sys.executable, "-c", code], stdout=file, check=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="no memory to be had as files")
def test_files_in_shared_memory_are_files():
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        path = Path(folder, "deep", "a.csv")
        write_text(path, "x")
        with pytest.raises(KeyError), replaced(path) as temporary:
            temporary.write_text("y")
            raise KeyError
        assert path.read_text() == "x" and list(path.parent.iterdir()) == [path]


def test_what_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError) as caught:
        write_text(tmp_path / "file" / "a\udce9.csv", "x")
    assert str(caught.value) == rf"{tmp_path}/file/a\udce9.csv: cannot be written: File exists"
    with pytest.raises(ModelError, match="^m: cannot be written: full$"):
        with writing("m", kind=ModelError):
            raise OSError("full")
