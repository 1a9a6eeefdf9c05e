"""The table of how often rules on facts are right."""

import pytest

from tests.scripts import script


@pytest.fixture(scope="module")
def evidence():
    return script("train_lite/evidence")


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
