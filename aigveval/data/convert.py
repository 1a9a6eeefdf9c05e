"""Files of public data sets into manifests of our form, scores on 1-5."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prompts.rubric import SCORES, Score

from ..errors import InputError, ManifestError, as_text
from .adapters import Adapter, Options, find_adapter
from .manifest import parse_row, read_video, rebase
from .preference_pairs import PAIR_VIDEOS, parse_pair
from .readers import RowFault, folder_of, part_names
from .scales import MOS, Scale
from .writers import Columns, TableWriter, check_target


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What `convert` wrote.

    Attributes:
        scores: How many rows know each score.
        scale: The scale that the scores were on; None where there are none.
    """

    rows: int
    scores: dict[Score, int]
    scale: Scale | None
    pairs: bool


def convert(
    name: str,
    sources: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    videos: str | os.PathLike[str] | None = None,
    prompts: str | os.PathLike[str] | None = None,
    scale: Scale | None = None,
    score: Score | None = None,
    mean_overall: bool = False,
    progress: Callable[[], None] = lambda: None,
) -> Conversion:
    """Reads a data set with an adapter and writes it as one manifest.

    Rows are kept on disk meanwhile, so memory does not grow with them. With several sources, a row
    without a split gets the name of its source, without what all names begin with.

    Args:
        sources: Its files, folders or Hub ids.
        out: Manifest to write; its suffix chooses the format.
        videos: Folder of the videos, by default that of each source.
        prompts, score, mean_overall: As in `adapters.Options`.
        scale: The scale that the scores are on, by default that of the adapter.
        progress: Called after each row.

    Raises:
        InputError: When a name or file cannot be used; `ManifestError` names the row at fault.
    """
    adapter, out = find_adapter(name), Path(out)
    check_target(out, sources)
    if scale is not None and adapter.scale is None:
        raise InputError(f"{name} has no scores that a scale could be of")
    if adapter.scale is not None:
        adapter = replace(adapter, scale=scale or adapter.scale)
    columns, counts, rows = Columns(), dict.fromkeys(SCORES, 0), 0
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="backslashreplace") as spool:
        for source, split in zip(sources, part_names(sources), strict=True):
            options = Options(
                videos=Path(videos) if videos is not None else folder_of(source),
                prompts=Path(prompts) if prompts is not None else None,
                score=score,
                mean_overall=mean_overall,
            )
            for record in _records(adapter, Path(source), options, out.parent):
                record["split"] = record.get("split") or split
                columns.note(record)
                for known in SCORES:
                    counts[known] += record.get(known) is not None
                spool.write(json.dumps(record, ensure_ascii=False, default=str) + "\n")
                rows += 1
                progress()
        if not rows:
            raise ManifestError(f"{as_text(sources[0])}: holds no rows")
        kept = Columns({n: kind for n, kind in columns.items() if kind != "nothing"})
        spool.seek(0)
        with TableWriter(out, kept) as table:
            for line in spool:
                table.write(json.loads(line))
    return Conversion(rows=rows, scores=counts, scale=adapter.scale, pairs=adapter.pairs)


def _records(
    adapter: Adapter, source: Path, options: Options, folder: Path
) -> Iterator[dict[str, Any]]:
    try:
        for number, values in adapter.read(source, options):
            if not adapter.pairs:
                scale = adapter.scale or MOS
                row = parse_row(number, values, options.videos, scale=scale)
                yield row.to_record(folder)
                continue
            parse_pair(number, values, options.videos)
            videos = {name: read_video(number, values, name) for name in PAIR_VIDEOS}
            yield values | {n: rebase(v, options.videos, folder) for n, v in videos.items()}
    except RowFault as fault:
        raise ManifestError(f"{as_text(source)}: {fault}") from None
