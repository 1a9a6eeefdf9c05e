"""An engine for the page: real videos, scores and sentences that are made up."""

import threading

from aigveval.assessment import Contributions, Score
from aigveval.inference.engine import PreparedClip
from encoders.video import index_of
from prompts import Defect


class PageEngine:
    """Explains as a trained model does, at once or when it is let go."""

    requests: dict = {}
    sizes: dict = {}
    explains = supports_contributions = words = True

    def __init__(self):
        self.go = threading.Event()
        self.go.set()
        self.computed = 0

    def prepare(self, path):
        index = index_of(path)
        length = float(index.times[-1]) + index.last_seconds
        return PreparedClip(views={"length": length}, duration_seconds=length)

    def score(self, clips, prompts, *, explain=False, contributions=False, facts=None):
        assert self.go.wait(60)
        self.computed += len(clips)
        return [self._row(clip, prompt, explain) for clip, prompt in zip(clips, prompts)]

    def _row(self, clip, prompt, explain):
        better = 4.5 if "good" in (prompt or "") else 3.0
        length = clip.duration_seconds
        means = {"overall": better, "technical": 3.5, "motion": 5 - length / 2, "semantic": 4.0}
        row = {name: Score(mean, 0.5, mean - 0.5, 5.0) for name, mean in means.items()}
        row["familiarity"] = 2.5
        if explain:
            row["explanation"] = {"motion": "The picture holds still, <b>says</b> the test."}
            found = Defect(name="freeze", severity=3, start_seconds=1.0, end_seconds=2.0)
            row["defects"], row["problems"] = (found,), ()
            row["contributions"] = Contributions(
                baseline=4.0, residue=0.1, technical=0.2, motion=-1.3, semantic=0.0
            )
        return row
