"""Agreement of predicted scores with human ratings, leaderboards, and NTIRE's submissions.

May import `data`, `prompts` and the leaves of the root; reports are made in `reports`.
"""

from .evaluate import Evaluation, evaluate

__all__ = ["Evaluation", "evaluate"]
