"""What the model is asked, what it may answer, and how an answer is read. Standard library only.

`rubric` holds the words (scores, levels, defects), `template` the question, `answer` the answer,
`parsing` reads it, `consistency` finds where it contradicts itself. `phrasings` and `reasoning`
make the texts to learn from.
"""

from .answer import (
    Answer, Defect, Problem, Sign, render, render_defects, render_explanation, render_levels,
    render_numbers, render_signs, split_levels, without_signs,
)
from .consistency import check
from .parsing import parse
from .rubric import DEFECTS, DIMENSIONS, LEVEL_WEIGHTS, LEVELS, SCORES, level_distribution
from .template import ANSWER, SLOT, build_messages, clean

__all__ = [
    "ANSWER",
    "Answer",
    "DEFECTS",
    "DIMENSIONS",
    "Defect",
    "LEVELS",
    "LEVEL_WEIGHTS",
    "Problem",
    "SCORES",
    "SLOT",
    "Sign",
    "build_messages",
    "check",
    "clean",
    "level_distribution",
    "parse",
    "render",
    "render_defects",
    "render_explanation",
    "render_levels",
    "render_numbers",
    "render_signs",
    "split_levels",
    "without_signs",
]
