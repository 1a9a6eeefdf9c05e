"""Training manifests: clips with the scores that are known of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..data.manifest import iter_manifest
from ..errors import ManifestError
from ..data.scales import MOS, Scale

__all__ = ["ManifestError", "TrainingRow", "read_training_manifest"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingRow:
    """A clip with the scores that are known of it.

    Attributes:
        video: Path of the file.
        prompt: What it was generated from, or None.
        scores: By the order of ``prompts.rubric.SCORES``, on 1-5; NaN where unknown.
        group: Label of rows that belong together (a ladder source, a prompt), or None.
        generator: Name of the model that made the clip, or None.
        weight: Weight in the loss, above 0.
    """

    video: str
    prompt: str | None
    scores: tuple[float, ...]
    group: str | None = None
    generator: str | None = None
    weight: float = 1.0


def read_training_manifest(path: str | Path, *, scale: Scale = MOS) -> list[TrainingRow]:
    """Read a manifest whose rows have at least one score each.

    Args:
        path: File, folder or Hub id in the form that `aigveval.data.manifest` describes.
        scale: That its scores are on.

    Raises:
        ManifestError: the file can't be read, or a row is not as described; names the row.
    """
    return [
        TrainingRow(
            video=row.path, prompt=row.prompt, scores=row.scores, group=row.group,
            generator=row.generator, weight=row.weight,
        )
        for row in iter_manifest(path, scale=scale, need_score=True)
    ]
