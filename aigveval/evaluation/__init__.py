"""Agreement of predicted scores with human ratings, leaderboards, and NTIRE's submissions.

May import `data`, `prompts` and the leaves of the root.
"""

from .evaluate import Evaluation, evaluate

__all__ = ["Evaluation", "evaluate"]
