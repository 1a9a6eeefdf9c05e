"""What the model is asked, what it may answer, and how an answer is read. Standard library only.

`rubric` holds scores and levels, `defects` what can be wrong with a clip, `template` the question,
`answer` the answer; `parsing` reads it, `consistency` finds where it contradicts itself or facts.
`facts` holds what was measured of a clip, `sentences` puts it into words.
`phrasings` and `reasoning` make the texts to learn from.
"""

from .answer import (
    Answer,
    Defect,
    Detection,
    Problem,
    render,
    render_defects,
    render_detections,
    render_explanation,
    render_levels,
    render_numbers,
    split_levels,
    without_detections,
)
from .consistency import check_consistency
from .defects import DEFECTS
from .parsing import parse
from .rubric import DIMENSIONS, LEVEL_WEIGHTS, LEVELS, SCORES, level_distribution
from .template import ANSWER, SLOT, build_messages, clean

__all__ = [
    "ANSWER",
    "Answer",
    "DEFECTS",
    "DIMENSIONS",
    "Defect",
    "Detection",
    "LEVELS",
    "LEVEL_WEIGHTS",
    "Problem",
    "SCORES",
    "SLOT",
    "build_messages",
    "check_consistency",
    "clean",
    "level_distribution",
    "parse",
    "render",
    "render_defects",
    "render_detections",
    "render_explanation",
    "render_levels",
    "render_numbers",
    "split_levels",
    "without_detections",
]
