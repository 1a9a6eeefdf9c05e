"""The line that says whether a trained model beats the one it started from."""

from types import SimpleNamespace

import numpy as np
import pytest

from aigveval.data.scales import MOS
from aigveval.errors import ManifestError
from aigveval.train.rows import read_parts
from aigveval.train.validation import gain_line

RATINGS = np.linspace(1, 5, 24)


def dataset(ratings=RATINGS, *, column=3):
    rows = []
    for number, rating in enumerate(ratings):
        scores = [np.nan] * 4
        scores[column] = rating
        rows.append(SimpleNamespace(scores=scores, group=f"g{number // 2}", prompt=None))
    return SimpleNamespace(rows=rows)


def scores(values, *, column=3):
    found = np.full((len(values), 4), np.nan, np.float32)
    found[:, column] = values
    return found


def test_better_worse_or_not_certain():
    good, bad = scores(RATINGS), scores(RATINGS[::-1])
    noise = np.random.default_rng(0).normal(size=24)
    assert gain_line(bad, good, dataset(), name="lite") == (
        "overall against lite on 24 validation clips: SROCC 1.00 instead of -1.00, difference "
        "+2.00 [+2.00, +2.00]: better"
    )
    assert gain_line(good, bad, dataset(), name="lite").endswith(": worse")
    near = gain_line(scores(noise), scores(noise + 0.01 * RATINGS), dataset(), name="base")
    assert near.startswith("overall against base on 24") and near.endswith("not certain to differ")
    swapped = scores(RATINGS[[1, 0, *range(2, 24)]])
    assert "difference +0.00 [" in gain_line(good, swapped, dataset(), name="lite")


def test_on_the_score_that_is_rated():
    found = gain_line(
        scores(RATINGS, column=1),
        scores(RATINGS, column=1),
        dataset(column=1),
        name="lite",
    )
    assert found.startswith("motion against lite on 24 validation clips")


@pytest.mark.parametrize("ratings", [RATINGS[:3], np.full(8, 3.0)])
def test_none_where_nothing_can_be_said(ratings):
    found = scores(np.arange(len(ratings)))
    assert gain_line(found, found, dataset(ratings), name="lite") is None


def test_a_clip_that_could_not_be_read_is_left_out():
    broken = scores(RATINGS)
    broken[0] = np.nan
    assert "on 23 validation clips" in gain_line(broken, broken, dataset(), name="lite")


def test_each_manifest_has_a_name_of_its_own(tmp_path):
    """Else one's metrics would stand in place of the other's."""
    paths = [tmp_path / "a" / "fold3.csv", tmp_path / "a" / "fold.csv", tmp_path / "b" / "fold.csv"]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_text("video,overall\nx.mp4,3\n")
    found = read_parts([str(path) for path in paths], scale=MOS)
    assert [part.name for part in found] == ["fold3", "fold", "fold4"]


def test_scores_off_the_scale_tell_of_the_option(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("video,overall\nx.mp4,80\n")
    with pytest.raises(ManifestError) as error:
        read_parts([str(path)], scale=MOS)
    assert str(error.value) == (
        f"{path}: row 2: overall must lie in 1-5, got 80; scores are taken to be on 1-5; "
        "`scale: LOW:HIGH` in the config says otherwise"
    )
    path.write_text("video,overall\nx.mp4,good\n")
    with pytest.raises(ManifestError, match="must be a number, got 'good'$"):
        read_parts([str(path)], scale=MOS)
