"""Which videos to assess: files, folders, patterns and manifests, joined with their prompts.

Videos that were found on their own get their prompts from a manifest, from a list, or from their
names: a file may be named after its prompt, `{prompt}-{n}.mp4` where there are several of it, as
VBench's are.
"""

from __future__ import annotations

import glob
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from ..errors import InputError, as_text
from .manifest import (
    Clip,
    check_exists,
    locate,
    make_clip,
    read_manifest,
    read_prompt_list,
    spelling,
)
from .readers import MANIFEST_SUFFIXES, is_saved_dataset, open_text, url_of

VIDEO_SUFFIXES = frozenset(
    ".mp4 .m4v .mov .qt .mkv .webm .avi .divx .gif .apng .mpg .mpeg .m1v .m2v .vob .ts .m2ts .mts "
    ".wmv .asf .flv .f4v .3gp .3g2 .ogv .rm .rmvb .mxf .dv .mjpeg .264 .h264 .265 .h265 .hevc "
    ".ivf .obu .y4m".split()
)
_NUMBERED_PICTURE = re.compile(r"\d\.(png|jpe?g|webp|bmp|tiff?)$", re.IGNORECASE)
_NO_LIST = "a text, and no line of it is the path of a file that is there; tables are .csv"
BY_NAME, BY_FOLDER = "names", "folders"  # in place of a file of prompts


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

    The numbered pictures of a folder, or of a pattern such as `frames/*.png`, are one video.

    An input that is missing stays in the list with its problem, so it fails as a row of its own.

    Args:
        inputs: Files, folders (searched whole), patterns, manifests, and text files (`.txt`) with
            a path in each line. None at all: the videos that `prompts` names.
        prompt: Prompt of every video that has none of its own.
        prompts: One of four.
            A manifest with the prompts. A video that it names several times is assessed as often.
            A missing file that it names becomes a clip too, if a folder or a pattern is among the
            inputs.
            A table of prompts that names no videos, as `VBench_full_info.json`. A video has the
            prompt that its file is named after; see `NamedPrompts`.
            `names`: a video has the prompt that its file is named after, whatever it is.
            `folders`: that its folder is named after.

    Raises:
        InputError: When there is no video at all, or a manifest cannot be read.
    """
    notes: list[str] = []
    rows, of_name = _read_prompts(prompts)
    if of_name is not None and not inputs:
        raise InputError(f"{as_text(str(prompts))}: prompts without videos; name their folder too")
    clips: list[Clip] = []
    open_ended = False  # whether an input can hold more than it names
    sources = inputs if inputs or prompts is None else [prompts]
    for given in sources:
        if not os.fspath(given):  # such as "$UNSET" of a shell; as a path it would be this folder
            raise InputError("an input is empty: name videos, folders or patterns")
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
    prompts: str | os.PathLike[str] | None,
) -> tuple[list[Clip], Callable[[Path], str | None] | None]:
    """Gives the rows of a manifest; or else a function from a file's name to its prompt."""
    if prompts is None:
        return [], None
    if os.fspath(prompts) == BY_NAME and not is_saved_dataset(prompts):
        return [], prompt_of_name
    if os.fspath(prompts) == BY_FOLDER and not is_saved_dataset(prompts):
        return [], lambda path: prompt_of_name(path.absolute().parent)
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
    if source.suffix.lower() in (".txt", ".tsv") and os.path.isfile(source):
        return _listed(source), False
    if os.path.lexists(source) or not glob.has_magic(pattern) or url_of(source):
        return [check_exists(make_clip(source))], False
    clips: list[Clip] = []
    suffix = Path(pattern).suffix
    any_kind = suffix != "" and not glob.has_magic(suffix)  # *.bin asks for just that
    seen, taken = set(), set[Path]()
    matches = sorted(glob.glob(pattern, recursive=True))
    sequences = _sequences(matches, Path(pattern).name) if any_kind else {}
    for match in map(Path, matches):
        if clip := sequences.pop(match.parent, None):
            clips.append(clip)
            taken.add(match.parent)
        if match.parent in taken:
            continue
        place = (os.path.realpath(match.parent), match.name)  # once, though links may form a cycle
        if place in seen:
            continue
        seen.add(place)
        if os.path.isdir(match) and "**" not in pattern:  # with ** its files match by themselves
            clips += _find(match)[0]
        elif not os.path.isdir(match) and (any_kind or is_video(match)):
            clips.append(check_exists(make_clip(match)))
    return clips, True


def _listed(source: Path) -> list[Clip]:
    """Gives the videos whose paths are the lines of a text; itself where it is something else."""
    itself = make_clip(source)
    try:
        with open_text(source) as file:
            lines = [line.strip() for line in file]
    except (OSError, UnicodeError):  # a video of this name, maybe
        return [itself]
    paths = [line for line in lines if line and line[0] != "#" and "\0" not in line]
    clips = [check_exists(make_clip(locate(path, source.parent))) for path in paths]
    if any(clip.problem is None or url_of(clip.path) for clip in clips):
        return clips
    return [replace(itself, problem=_NO_LIST)]  # such as a README that the shell's * brought in


def is_video(path: Path) -> bool:
    """Whether a file is a video by its name, or is an animated WebP."""
    suffix = path.suffix.lower()
    if suffix != ".webp":
        return suffix in VIDEO_SUFFIXES
    from encoders.container import is_animated_webp  # brings PyAV along

    return is_animated_webp(os.fspath(path))


def _sequences(files: Sequence[str], name: str) -> dict[Path, Clip]:
    """Gives the folders in which a pattern's matches are the frames of one video, as its clip."""
    if not any(map(_NUMBERED_PICTURE.search, files)):
        return {}
    by_folder = defaultdict(list)
    for file in files:
        by_folder[Path(file).parent].append(file)
    from encoders.frame_sequence import in_order  # brings PyAV along

    return {
        folder: make_clip(folder / name) for folder, found in by_folder.items() if in_order(found)
    }


def _is_sequence(folder: Path, names: Sequence[str]) -> bool:
    """Whether a folder holds the numbered pictures of one video, and no video."""
    if not any(map(_NUMBERED_PICTURE.search, names)) or any(
        os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES for name in names
    ):
        return False
    from encoders.frame_sequence import frame_files

    return frame_files(os.fspath(folder), names) is not None


def _walk(folder: Path) -> Iterator[Clip]:
    """Gives the videos in a folder and through links, each folder once; no hidden names.

    A folder of numbered pictures is itself a video.
    """
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
        if _is_sequence(here, names):
            yield make_clip(here)
        for path in (here / name for name in names if not name.startswith(".")):
            if os.path.isdir(path):
                pending.append(path)
            elif is_video(path):
                yield check_exists(make_clip(path))


def _is_same_file(source: Path, prompts: str | os.PathLike[str] | None) -> bool:
    if prompts is None or not (os.path.exists(source) and os.path.exists(prompts)):
        return False
    return source.samefile(prompts)


def _is_manifest(source: Path) -> bool:
    """Whether this names a manifest, be it there or not, and no folder or pattern of videos."""
    if source.suffix.lower() in MANIFEST_SUFFIXES:
        exists = os.path.exists(source)
        return os.path.isfile(source) or not (exists or glob.has_magic(str(source)))
    return is_saved_dataset(source)


# ---- prompts of videos that were found on their own ----------------------------------------------


def prompt_of_name(path: str | os.PathLike[str]) -> str:
    """Gives the prompt that a file is named after: `a dog runs` of `videos/a dog runs-3.mp4`.

    Where a name has `_` and no space, `_` stands for one.
    """
    words = _unnumbered(PurePath(path).stem)
    return words if " " in words else words.replace("_", " ")


class NamedPrompts:
    """A list of prompts that files are named after."""

    def __init__(self, prompts: Iterable[str]) -> None:
        self._exact = {unicodedata.normalize("NFC", prompt): prompt for prompt in prompts}
        self._loose: dict[str, list[str]] = defaultdict(list)
        for prompt in prompts:
            self._loose[_words(prompt)].append(prompt)

    def of(self, path: str | os.PathLike[str]) -> str | None:
        """Gives the prompt that a file is named after; None where it is none of the list.

        Characters that are no letters or digits, which a file's name often can't have, and upper
        or lower case count only where prompts differ in nothing else.
        """
        stem = unicodedata.normalize("NFC", PurePath(path).stem)
        names = (stem, _unnumbered(stem))  # a prompt may itself end like `-3`
        for name in names:
            if name in self._exact:
                return self._exact[name]
        for name in names:
            if len(found := self._loose.get(_words(name), [])) == 1:
                return found[0]
        return None


def _unnumbered(stem: str) -> str:
    return re.sub(r"-\d+$", "", stem)


def _words(text: str) -> str:
    return " ".join(re.findall(r"[^\W_]+", unicodedata.normalize("NFC", text).casefold()))


def match_prompts(clips: Sequence[Clip], rows: Sequence[Clip]) -> tuple[list[Clip], list[Clip]]:
    """Gives each clip the prompts of its rows: by path, then by link target, then by name.

    Returns:
        The clips, as many times as rows name them, at least once; and the rows whose file is
        missing and that matched no clip.
    """
    by_path, by_target = defaultdict(list), defaultdict(list)
    for row in rows:
        by_path[os.path.abspath(row.path)].append(row)
        by_target[os.path.realpath(row.path)].append(row)
    matches: dict[str, list[Clip]] = {}
    for clip in clips:
        path = os.path.abspath(clip.path)
        matches[path] = by_path[path] or by_target[os.path.realpath(path)]
    used = {id(row) for found in matches.values() for row in found}
    strangers = {os.path.abspath(row.path) for row in rows if id(row) not in used}
    orphans = [path for path, found in matches.items() if not found]
    for path, stranger in pair_by_ends(orphans, strangers).items():
        matches[path] = by_path[stranger]
        used.update(id(row) for row in by_path[stranger])
    matched: list[Clip] = []
    for clip in clips:
        found = [] if clip.prompt else matches[os.path.abspath(clip.path)]
        matched += [replace(clip, prompt=row.prompt) for row in found] or [clip]
    return matched, [row for row in rows if row.problem and id(row) not in used]


def pair_by_ends(lefts: Iterable[str], rights: Iterable[str]) -> dict[str, str]:
    """Pairs paths by the longest end they share, where neither side leaves a choice."""
    sides = [{path: PurePath(spelling(path)).parts for path in paths} for paths in (lefts, rights)]
    pairs: dict[str, str] = {}
    for count in range(1, 1 + max((len(p) for side in sides for p in side.values()), default=0)):
        ends: list[dict[tuple[str, ...], list[str]]] = [defaultdict(list), defaultdict(list)]
        for side, by_end in zip(sides, ends):
            for path, parts in side.items():
                if len(parts) >= count:
                    by_end[parts[-count:]].append(path)
        for end, left in ends[0].items():
            if len(left) == len(right := ends[1].get(end, [])) == 1:
                pairs[left[0]] = right[0]
    return pairs
