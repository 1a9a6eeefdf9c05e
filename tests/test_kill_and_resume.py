"""Nothing is lost when a batch is killed; `python -m tests.kill_and_resume` tries 50 moments."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.parametrize(
    ("moments", "engine"),
    [(10, "local"), pytest.param(2, "ray", marks=pytest.mark.slow)],
)
def test_some_moments(moments, engine):
    if engine == "ray":
        pytest.importorskip("ray")
    done = subprocess.run(
        [sys.executable, "-m", "tests.kill_and_resume", str(moments), "--engine", engine],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # no thread of OpenMP is lost in a fork
    )
    assert done.returncode == 0, done.stderr
    numbers = r"\d+" + r", \d+" * (moments - 1)
    said = rf"{moments} moments, with \[{numbers}\] of 12 rows; all rows as of an unstopped run\n"
    assert re.fullmatch(said, done.stdout)
