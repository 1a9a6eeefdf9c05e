"""Which videos to assess: files, folders, patterns and manifests, joined with their prompts."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .manifest import (
    MANIFEST_SUFFIXES, Clip, check_exists, make_clip, read_manifest, read_prompt_list,
)
from ..errors import InputError, as_text
from .prompt_matching import NamedPrompts, match_prompts, prompt_of_name
from .readers import is_saved_dataset, url_of

VIDEO_SUFFIXES = frozenset(
    ".mp4 .m4v .mov .mkv .webm .avi .gif .mpg .mpeg .ts .m2ts .mts .wmv .flv .3gp .ogv .y4m".split()
)
BY_NAME = "names"  # in place of a file of prompts


@dataclass(frozen=True, kw_only=True)
class Collection:
    """What the inputs amount to: `clips`, one per row of the results, and `notes` for the user."""

    clips: list[Clip]
    notes: list[str]


def collect(
    inputs: Sequence[str | os.PathLike[str]],
    *,
    prompt: str | None = None,
    prompts: str | os.PathLike[str] | None = None,
) -> Collection:
    """Finds the videos behind the inputs and their prompts.

    An input that is missing stays in the list with its problem, so it fails as a row of its own.

    Args:
        inputs: files, folders (searched whole), patterns and manifests. None at all: the videos
            that `prompts` names.
        prompt: for every video that has no prompt of its own.
        prompts: one of three.
            A manifest with the prompts. A video that it names several times is assessed as often.
            A missing file that it names becomes a clip too, if a folder or a pattern is among the
            inputs.
            A table of prompts that names no videos, as `VBench_full_info.json`. A video has the
            prompt that its file is named after; see `prompt_matching.NamedPrompts`.
            `names`: a video has the prompt that its file is named after, whatever it is.

    Raises:
        InputError: when there is no video at all, or a manifest cannot be read.
    """
    notes: list[str] = []
    rows, of_name = _read_prompts(prompts)
    if of_name is not None and not inputs:
        raise InputError(f"{as_text(str(prompts))}: prompts without videos; name their folder too")
    clips: list[Clip] = []
    open_ended = False  # whether an input can hold more than it names
    sources = inputs if inputs or prompts is None else [prompts]
    for given in sources:
        source = Path(given)
        if _is_manifest(source):
            if not _is_same_file(source, prompts):
                clips += read_manifest(source)
            elif len(inputs) < 2:  # beside videos, the shell's * brought it in
                clips += rows
                rows = []
            continue
        found, is_open_ended = _find(source)
        open_ended |= is_open_ended
        if is_open_ended and not found:
            what = "folder" if os.path.isdir(source) else "pattern"
            notes.append(f"no video in the {what} {as_text(given)}")
        clips += found
    if of_name is not None:
        clips = [_with_prompt(clip, of_name(clip.path)) for clip in clips]
    if rows and inputs:
        clips, missing = match_prompts(clips, rows)
        clips += missing if open_ended else []
    if (rows or of_name is not None) and inputs and prompt is None:
        without = sum(clip.prompt is None and clip.problem is None for clip in clips)
        if without:
            source_name = as_text(str(prompts))
            notes.append(f"{source_name} gives no prompt for {without} of {len(clips)} videos")
    if prompt is not None:
        clips = [_with_prompt(clip, prompt) for clip in clips]
    if not clips:
        raise InputError("; ".join(notes) or f"no video in {', '.join(map(as_text, inputs))}")
    return Collection(clips=clips, notes=notes)


def _read_prompts(
    prompts: str | os.PathLike[str] | None
) -> tuple[list[Clip], Callable[[Path], str | None] | None]:
    """Gives the rows of a manifest; or else what tells the prompt by a file's name."""
    if prompts is None:
        return [], None
    if os.fspath(prompts) == BY_NAME and not is_saved_dataset(prompts):
        return [], prompt_of_name
    listed = read_prompt_list(prompts)
    if listed is not None:
        return [], NamedPrompts(listed).of
    return read_manifest(prompts, need_prompt=True), None


def _with_prompt(clip: Clip, prompt: str | None) -> Clip:
    """Gives the clip with a prompt, unless it has one."""
    return clip if clip.prompt else replace(clip, prompt=make_clip("", prompt).prompt)


# ---- files, folders, patterns -------------------------------------------------------------------


def _find(source: Path) -> tuple[list[Clip], bool]:
    """Gives the videos of one input, and whether it is a folder or a pattern."""
    if os.path.isdir(source):
        return sorted(_walk(source), key=lambda clip: clip.path.parts), True
    pattern = os.path.expanduser(source)
    if os.path.lexists(source) or not glob.has_magic(pattern) or url_of(source):
        return [check_exists(make_clip(source))], False
    clips: list[Clip] = []
    suffix = Path(pattern).suffix
    any_kind = suffix != "" and not glob.has_magic(suffix)  # *.bin asks for just that
    seen = set()
    for match in map(Path, sorted(glob.glob(pattern, recursive=True))):
        place = (os.path.realpath(match.parent), match.name)  # once, though links may form a cycle
        if place in seen:
            continue
        seen.add(place)
        if os.path.isdir(match) and "**" not in pattern:  # with ** its files match by themselves
            clips += _find(match)[0]
        elif not os.path.isdir(match) and (any_kind or match.suffix.lower() in VIDEO_SUFFIXES):
            clips.append(check_exists(make_clip(match)))
    return clips, True


def _walk(folder: Path) -> Iterator[Clip]:
    """Gives the videos in a folder and through links, each folder once; no hidden names."""
    seen: set[str] = set()
    pending = [folder]
    while pending:
        here = pending.pop()
        real = os.path.realpath(here)
        if real in seen:
            continue
        seen.add(real)
        try:
            names = sorted(os.listdir(here))
        except OSError as error:
            yield replace(make_clip(here), problem=f"folder cannot be read: {error.strerror}")
            continue
        for path in (here / name for name in names if not name.startswith(".")):
            if os.path.isdir(path):
                pending.append(path)
            elif path.suffix.lower() in VIDEO_SUFFIXES:
                yield check_exists(make_clip(path))


def _is_same_file(source: Path, prompts: str | os.PathLike[str] | None) -> bool:
    there = prompts is not None and os.path.exists(source) and os.path.exists(prompts)
    return there and source.samefile(prompts)


def _is_manifest(source: Path) -> bool:
    """Whether this names a manifest, be it there or not, and no folder or pattern of videos."""
    if source.suffix.lower() in MANIFEST_SUFFIXES:
        exists = os.path.exists(source)
        return os.path.isfile(source) or not (exists or glob.has_magic(str(source)))
    return is_saved_dataset(source)
