"""Files that are replaced at once."""

from aigveval.files import write_text


def test_a_name_as_long_as_can_be(tmp_path):
    path = tmp_path / ("\u89c6" * 83 + ".csv")  # 253 bytes of 255
    write_text(path, "x")
    assert path.read_text() == "x" and list(tmp_path.iterdir()) == [path]
