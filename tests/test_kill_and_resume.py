"""Nothing is lost when a batch is killed; `python -m tests.kill_and_resume` tries 50 moments."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_ten_moments():
    done = subprocess.run(
        [sys.executable, "-m", "tests.kill_and_resume", "10"],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # no thread of OpenMP is lost in a fork
    )
    assert done.returncode == 0, done.stderr
    assert re.match(r"10 moments, with \[(\d+, ){9}\d+\] of 12 rows; all rows as of", done.stdout)
