"""The table of how often rules on facts are right."""

import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "examples/train_lite"


@pytest.fixture(scope="module")
def evidence():
    sys.path.insert(0, str(FOLDER))
    try:
        import evidence
    finally:
        sys.path.remove(str(FOLDER))
    return evidence


def test_what_is_never_named_is_neither_right_nor_wrong(evidence):
    table = {
        "wrong_count": {"made": 4, "found": 3, "wrong": 1},
        "vanishing_object": {"made": 4, "found": 0, "wrong": 0},
        "freeze": {"made": 0, "found": 0, "wrong": 2},
    }
    assert [row[1:] for row in evidence.rows_of(table)] == [
        ["4", "3", "1", "0.75"],
        ["4", "0", "0", "-"],
        ["0", "0", "2", "0.00"],
    ]
