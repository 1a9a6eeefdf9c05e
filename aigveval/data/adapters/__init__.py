"""Public data sets, each read from its own files into the rows of a manifest, by name.

An adapter is a module of this folder, called as the data set is (`t2vqa_db` of `t2vqa-db`), and
ends with its `ADAPTER`. It is imported when it is asked for. Modules with a leading underscore are
not adapters.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from prompts.rubric import Score

from ...errors import InputError
from ..readers import Row
from ..scales import Scale


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a user can say about a data set.

    Attributes:
        videos: Folder of the videos; paths in the rows are relative to it.
        prompts: File with the prompts, for data sets whose scores come without.
        score: What the only score of a data set stands for; by default the adapter decides.
        mean_overall: Whether the mean of its dimensions counts as the overall score of a data set
            that has none.
    """

    videos: Path
    prompts: Path | None = None
    score: Score | None = None
    mean_overall: bool = False


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """A data set that can be read.

    Attributes:
        reads: What its file is, for the help.
        read: Yields numbered rows with the columns of `data.manifest` (or of
            `data.preference_pairs`), scores on the scale of the data set. What the rows hold is
            checked by the caller.
        scale: The scale that its scores are on; None when it has none.
    """

    title: str
    reads: str
    read: Callable[[Path, Options], Iterator[Row]]
    scale: Scale | None = None
    pairs: bool = False


def list_adapters() -> list[str]:
    """Names of the data sets that can be read, without importing their modules."""
    modules = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name.replace("_", "-") for name in modules if not name.startswith("_"))


def find_adapter(name: str) -> Adapter:
    """Gives the adapter of a name.

    Raises:
        InputError: There is none; the message offers the nearest.
    """
    names = list_adapters()
    if name in names:
        adapter = importlib.import_module(f".{name.replace('-', '_')}", __name__).ADAPTER
        assert isinstance(adapter, Adapter)
        return adapter
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]}? There are" if near else "there are"
    raise InputError(f"no adapter {name!r}; {hint} {', '.join(names)}")
