"""Size, format and quality of coding are no quality of what is shown."""

from functools import lru_cache

import cv2
import numpy as np
import pytest

from encoders import FrameRequest, read_frames

from tests import media

pytestmark = pytest.mark.slow
CLIPS = ("modern/veo3_buoyancy_rock.mp4", "clips/dog_walking.mp4")
# As quick as their encoders can; the quality is given.
X264 = {"preset": "ultrafast"}
VP9 = {"deadline": "realtime", "cpu-used": "8"}
COPIES = {
    "half as large": (0.5, ".mp4", {"codec": "libx264", "options": {"crf": "12", **X264}}),
    "twice as large": (2.0, ".mp4", {"codec": "libx264", "options": {"crf": "12", **X264}}),
    "CRF 18": (1.0, ".mp4", {"codec": "libx264", "options": {"crf": "18", **X264}}),
    "WebM": (1.0, ".webm", {"codec": "libvpx-vp9", "options": {"crf": "20", "b": "0", **VP9}}),
}


@lru_cache(maxsize=2)
def original(path):
    request = FrameRequest(indices=lambda n, fps: np.arange(min(n, 32)), stream="slow")
    info, found = read_frames(path, {"all": request})
    return found["all"].pixels.permute(0, 2, 3, 1).numpy(), round(info.fps)


@pytest.fixture(scope="module")
def assessed(lite):
    """Writes frames, and scores what it has written."""

    def assessed(path, frames, fps, **options):
        height, width = frames[0].shape[:2]
        media.write_video(path, width=width, height=height, fps=fps, pictures=frames, **options)
        return lite.score(path)

    return assessed


@pytest.fixture(scope="module")
def original_assessed(assessed, tmp_path_factory):
    """Scores a clip as it is, once."""

    @lru_cache(maxsize=None)
    def original_assessed(path):
        frames, fps = original(path)
        own = tmp_path_factory.mktemp("own") / "own.mp4"
        return assessed(own, list(frames), fps, options={"crf": "8", **X264})

    return original_assessed


@pytest.mark.parametrize("copy", COPIES)
@pytest.mark.parametrize("name", CLIPS)
def test_copies_of_real_clips_have_its_technical_score(
    copy, name, data_dir, tmp_path, assessed, original_assessed
):
    frames, fps = original(data_dir / name)
    scale, suffix, options = COPIES[copy]
    size = [round(side * scale / 2) * 2 for side in frames.shape[2:0:-1]]
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    pictures = [cv2.resize(frame, size, interpolation=method) for frame in frames]
    clean = original_assessed(data_dir / name)
    copied = assessed(tmp_path / f"copy{suffix}", pictures, fps, **options)
    assert copied.technical.score == pytest.approx(clean.technical.score, abs=0.3)


@pytest.mark.parametrize("bars", [(1 / 8, 0), (0, 1 / 6)], ids=["letterbox", "pillarbox"])
@pytest.mark.parametrize("name", CLIPS)
def test_so_has_one_with_black_bars(bars, name, data_dir, tmp_path, assessed, original_assessed):
    frames, fps = original(data_dir / name)
    above, beside = (round(s * part / 2) * 2 for s, part in zip(frames.shape[1:3], bars))
    pictures = np.pad(frames, ((0, 0), (above, above), (beside, beside), (0, 0)))
    clean = original_assessed(data_dir / name)
    barred = assessed(tmp_path / "bars.mp4", list(pictures), fps)
    assert barred.warnings == ("black bars: left out",) and clean.warnings == ()
    for dimension in ("technical", "motion", "overall"):
        difference = getattr(barred, dimension).score - getattr(clean, dimension).score
        assert abs(difference) <= 0.3, (dimension, difference)


def test_a_blurred_copy_has_another_one(data_dir, tmp_path, assessed, original_assessed):
    frames, fps = original(data_dir / CLIPS[0])
    blurred = [cv2.GaussianBlur(frame, (0, 0), 6) for frame in frames]
    clean = original_assessed(data_dir / CLIPS[0])
    damaged = assessed(tmp_path / "blurred.mp4", blurred, fps)
    assert damaged.technical.score < clean.technical.score - 0.5
