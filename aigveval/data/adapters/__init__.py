"""Public data sets, each read from its own files into the rows of a manifest, by name.

An adapter is a function `read(source, options)` in a module of its own, which yields numbered rows
with the columns of `aigveval.data.manifest` (or `aigveval.data.preference_pairs`), scores on
the scale of the data set. It is imported when it is asked for. What the rows hold is checked by
the caller.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from prompts.rubric import Score

from ..scales import Scale
from ..readers import Row
from ...errors import InputError


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a user can say about a data set.

    Args:
        videos: folder of the videos; paths in the rows are relative to it.
        prompts: file with the prompts, for data sets whose scores come without.
        score: what the only score of a data set stands for; by default the adapter decides.
        mean_overall: whether the mean of its dimensions counts as the overall score of a data set
            that has none.
    """

    videos: Path
    prompts: Path | None = None
    score: Score | None = None
    mean_overall: bool = False


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """A data set that can be read.

    Args:
        title: of the data set.
        reads: what its file is, for the help.
        module: in this package, with the function `read`.
        scale: that its scores are on; None when it has none.
        pairs: whether it gives preference pairs.
    """

    title: str
    reads: str
    module: str
    scale: Scale | None = None
    pairs: bool = False

    def load(self) -> Callable[[Path, Options], Iterator[Row]]:
        """Imports the function `read`."""
        return importlib.import_module(f".{self.module}", __name__).read


ADAPTERS: dict[str, Adapter] = {
    "manifest": Adapter(
        title="any manifest, to change its format or scale", module="plain", scale=Scale(1, 5),
        reads="csv, json, jsonl, parquet, data set folder or Hub id",
    ),
    "ntire2025": Adapter(
        title="NTIRE 2025 XGC track 2, Q-Eval-Video", module="ntire2025", scale=Scale(1, 5),
        reads="json {video, prompt, gt_score} or text name|prompt|mos",
    ),
    "t2vqa-db": Adapter(
        title="T2VQA-DB", module="t2vqa_db", scale=Scale(0, 100), reads="text name|prompt|mos",
    ),
    "t2veval": Adapter(
        title="T2VEval-Bench", module="t2veval", scale=Scale(0, 5),
        reads="text name|prompt|mos, or name,mos with --prompts",
    ),
    "fetv": Adapter(
        title="FETV", module="fetv", scale=Scale(1, 5),
        reads="folder manual_eval_results, with --prompts fetv_data.json",
    ),
    "videofeedback": Adapter(
        title="VideoFeedback", module="videofeedback", scale=Scale(1, 4),
        reads="json, parquet, data set folder or Hub id",
    ),
    "aigvqa-db": Adapter(
        title="AIGVQA-DB", module="aigvqa_db", scale=Scale(0, 100),
        reads="jsonl of one question, with --prompts",
    ),
    "gaia": Adapter(
        title="GAIA", module="gaia", scale=Scale(0, 100), reads="MOS.csv, with --prompts",
    ),
    "q-save": Adapter(
        title="Q-Save and data like it", module="q_save", scale=Scale(1, 5),
        reads="json, jsonl, csv or parquet with mos and attributions",
    ),
    "taobaovd-gc": Adapter(
        title="TaobaoVD-GC, VQualA 2025 GenAI-Bench", module="taobaovd_gc", scale=Scale(1, 5),
        reads="csv video_name,Prompt,Traditional_MOS,Alignment_MOS,...",
    ),
    "vbench-prompts": Adapter(
        title="VBench prompts", module="vbench_prompts",
        reads="json {path: prompt}, folder of videos named PROMPT-N.mp4, or VBench_full_info.json "
        "with that folder as --videos",
    ),
    "vbench-preference": Adapter(
        title="VBench human preference", module="vbench_preference", pairs=True,
        reads="json of one dimension",
    ),
    "videogen-rewardbench": Adapter(
        title="VideoGen-RewardBench", module="videogen_rewardbench", pairs=True,
        reads="videogen-rewardbench.csv",
    ),
}


def find_adapter(name: str) -> Adapter:
    """Gives the adapter of a name.

    Raises:
        InputError: when there is none, offering the nearest.
    """
    if name in ADAPTERS:
        return ADAPTERS[name]
    near = difflib.get_close_matches(name, ADAPTERS, n=1)
    hint = f"did you mean {near[0]}? There are" if near else "there are"
    raise InputError(f"no adapter {name!r}; {hint} {', '.join(ADAPTERS)}")
