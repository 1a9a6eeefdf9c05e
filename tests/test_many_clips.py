"""The benchmark of many clips: what it makes of what it saw, however little that is."""

import pytest

from tests.scripts import script


@pytest.fixture(scope="module")
def many_clips():
    return script("benchmarks/many_clips")


def test_memory_and_rows_a_second(many_clips):
    seen = [(float(n), 4 * n, 800.0 + n) for n in range(26)]  # the last one when all was done
    assert many_clips.figures_of(seen, 100) == [
        "MB after     20 rows      805",
        "MB after     96 rows      824",
        "rows/s, first tenth      4.00",
        "rows/s, last  tenth      4.00",
    ]


def test_a_run_that_was_over_at_once_has_none(many_clips):
    dashes = ["rows/s, first tenth         -", "rows/s, last  tenth         -"]
    assert many_clips.figures_of([], 100) == dashes
    once = many_clips.figures_of([(1.0, 50, 700.0), (3.0, 100, 0.0)], 100)
    assert once == ["MB after     50 rows      700"] * 2 + dashes
