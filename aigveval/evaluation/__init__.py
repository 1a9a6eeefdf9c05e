"""Agreement of predicted scores with human ratings: from files to figures, tables and reports."""

from .evaluate import Evaluation, evaluate

__all__ = ["Evaluation", "evaluate"]
