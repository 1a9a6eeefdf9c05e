"""What the model is asked, what it may answer, and how an answer is read. Standard library only.

`rubric` holds the words (scores, levels, defects), `template` the question, `answer` the answer.
"""

from .answer import Answer, Defect, Problem, parse, render
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
    "build_messages",
    "clean",
    "level_distribution",
    "parse",
    "render",
]
