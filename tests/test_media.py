"""The makers of the tests' own media files leave the process as it was."""

import os

import pytest

from . import media


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="no such scheduling here")
def test_an_encoder_leaves_the_scheduling_as_it_was(tmp_path):
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    media.av1(tmp_path / "a.mp4")
    assert (os.sched_getscheduler(0), os.sched_getparam(0)) == before
