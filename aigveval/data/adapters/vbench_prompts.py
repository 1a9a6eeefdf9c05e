"""Videos made for VBench (arXiv 2311.17982), with their prompts and without scores.

One of three: its file of custom prompts, `{"relative/path.mp4": "prompt"}`; a folder of videos
named after their prompts, `PROMPT-N.mp4`, as its own videos are; or its `VBench_full_info.json`, a
list of `{"prompt_en", "dimension", ...}`, beside a folder of such videos (the option `videos`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from ...errors import ManifestError, as_text
from ..inputs import VIDEO_SUFFIXES, NamedPrompts, prompt_of_name
from ..manifest import read_prompt_list
from ..readers import Row, read_rows
from . import Adapter, Options


def read(source: Path, options: Options) -> Iterator[Row]:
    """Yields a row per video; of a list of prompts, with None where a name is none of them."""
    folder = options.videos
    prompt_of: Callable[[Path], str | None] = prompt_of_name
    if source.is_dir():
        folder = source
    elif (prompts := read_prompt_list(source)) is not None:
        prompt_of = NamedPrompts(prompts).of
    else:
        yield from read_rows(source)
        return
    videos = sorted(path for path in folder.rglob("*") if _is_video(path, folder))
    if not videos:
        raise ManifestError(f"{as_text(folder)}: holds no videos")
    for number, path in enumerate(videos, start=1):
        video = path.relative_to(folder).as_posix()
        yield number, {"video": video, "prompt": prompt_of(path)}


def _is_video(path: Path, folder: Path) -> bool:
    """Whether it is one of the data set; hidden ones are left by macOS and notebooks."""
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return path.suffix.lower() in VIDEO_SUFFIXES and not hidden and not path.is_dir()


ADAPTER = Adapter(
    title="VBench prompts",
    read=read,
    reads="json {path: prompt}, folder of videos named PROMPT-N.mp4, or VBench_full_info.json "
    "with that folder as --videos",
)
