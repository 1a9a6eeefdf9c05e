"""The makers of the tests' own media files leave the process as it was."""

import os

import pytest

from . import media


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="no such scheduling here")
def test_an_encoder_leaves_the_process_no_real_time_one(tmp_path):
    media.av1(tmp_path / "a.mp4")
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
