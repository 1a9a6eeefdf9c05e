"""Names that were changed: saved models and configs of `aigveval fit` may still have the old ones.

They are read under their new names, and written so.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

# Options of the model's config and of `aigveval fit`.
OPTIONS = {"impressions": "score_hints", "signs": "detector"}
# Option (by its new name) -> old value -> new value.
VALUES = {"learn": {"reading": "distill"}}
# Parts of the keys of a model's weights.
WEIGHTS = {
    ".told.": ".score_head.", "model.signs.whether.": "model.detector.presence.",
    "model.signs.degree.": "model.detector.severity.",
    "model.signs.when.": "model.detector.timing.",
}

_log = logging.getLogger(__name__)


def new_options(options: Mapping[str, Any], *, warn: bool = False) -> dict[str, Any]:
    """Options under their new names; what is there under both keeps the new name's value.

    Args:
        options: Name to value.
        warn: Log a line for each old name or value, for a user who may change it.
    """
    found: dict[str, Any] = {}
    for old, value in options.items():
        name = OPTIONS.get(old, old)
        if name != old and name in options:
            continue
        new = VALUES.get(name, {}).get(value, value) if isinstance(value, str) else value
        if warn and (name != old or new is not value):
            now = name if name != old else f"{name}: {new}"
            _log.warning("%s is now called %s", old if name != old else f"{old}: {value}", now)
        found[name] = new
    return found


def rename_weights(weights: dict[str, Any]) -> None:
    """Put the weights of a state dict under their new keys."""
    for key in list(weights):
        name = key
        for old, new in WEIGHTS.items():
            name = name.replace(old, new)
        weights[name] = weights.pop(key)
