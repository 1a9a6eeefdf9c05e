"""What the processes of a cluster do in tests; light, as each begins with an import of this."""

import os
import signal
import time
from pathlib import Path

from aigveval.errors import ModelError


class Echo:
    """Gives each clip's name back, and dies with the clip `dies.mp4`; its GPU with `gpu.mp4`.

    Args:
        flag: a file that is made by the first death, after which none follows; None for no end.
    """

    def __init__(self, flag=None):
        self.flag = flag

    def __call__(self, clips):
        for clip in clips:
            name = clip.path.name
            if name in ("dies.mp4", "gpu.mp4") and not (self.flag and Path(self.flag).exists()):
                if self.flag:
                    Path(self.flag).touch()
                time.sleep(0.2)  # what was sent before is on its way
                if name == "gpu.mp4":
                    yield name, RuntimeError("CUDA error: an illegal memory access")
                    continue
                os.kill(os.getpid(), signal.SIGKILL)
            yield name, None


def no_model():
    raise ModelError("no weights here")


def with_a_bug():
    def work(clips):
        yield ["a", None]
        raise RuntimeError("a bug\nwith two lines")

    return work


def load(model, *, device=None, dtype="auto", **options):
    """An assessor that finds its scores as texts in the files, and dies with one that says so.

    Args:
        model: a file that is made by the first death, after which none follows.
    """
    from aigveval.assessment import SCORE_FIELDS, Score
    from aigveval.inference.assessor import Assessor
    from encoders.video import VideoError

    class Engine:
        explains = supports_contributions = False

        def prepare(self, path):
            text = path.read_text()
            time.sleep(0.02)  # so that clips come one after the other
            if text == "unreadable":
                raise VideoError(str(path), "not a video")
            if text == "dies":
                if not Path(model).exists():
                    Path(model).touch()
                    os.kill(os.getpid(), signal.SIGKILL)
                return 3.0
            if text == "bug":
                raise RuntimeError("a bug\nwith two lines")
            return float(text)

        def score(self, prepared, prompts, **asked):
            return [{name: Score(value, 0.5) for name in SCORE_FIELDS} for value in prepared]

    return Assessor(Engine(), name="texts", **options)
