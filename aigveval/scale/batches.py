"""What `Scorer` and `Encoder` share: clips out of columns, files behind addresses, and faults."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from encoders.video import VideoError

from ..batching import FEWEST
from ..data.columns import expected, in_our_names, is_missing, listed
from ..data.manifest import Clip, check_exists, make_clip
from ..data.readers import url_of
from ..errors import InputError, cause_of, is_about_the_video, one_line, our_fault

_LONGEST_NAME = 60  # characters, of four bytes at most; file systems take 255 bytes


@contextmanager
def fetched(clip: Clip) -> Iterator[Clip]:
    """Gives a clip whose file is on this machine: behind an address, a copy that is gone after.

    Args:
        clip: its path may be an address that fsspec reads, such as `s3://bucket/a.mp4`.

    Raises:
        VideoError: when the file cannot be had.
    """
    url = url_of(clip.video)
    if url is None or clip.problem:
        yield clip
        return
    import fsspec
    from fsspec.implementations.local import LocalFileSystem

    folder = tempfile.mkdtemp(prefix="aigveval-")
    try:
        try:
            system, path = fsspec.core.url_to_fs(url)
            if isinstance(system, LocalFileSystem):
                local = Path(path)
            else:  # its name stays, as some formats go by their suffix
                signed = "http" in system.protocol  # and goes on with more than a name may have
                name = PurePosixPath(re.split("[?#]", path)[0] if signed else path).name or "video"
                local = Path(folder, name[-_LONGEST_NAME:])
                system.get_file(path, os.fspath(local))
        except FileNotFoundError:
            raise VideoError(url, "no such file") from None
        except Exception as error:  # of any library behind fsspec
            raise VideoError(url, f"cannot be fetched: {cause_of(error, limit=200)}") from error
        yield replace(clip, path=local, problem=None)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def for_other_machines(clip: Clip, *, fps: float | None = None) -> Clip:
    """Gives a clip as a process elsewhere takes it: with a whole path, or an address.

    Args:
        clip: a file, numbered pictures, or an address.
        fps: of a clip that has none of its own.
    """
    clip = replace(clip, fps=clip.fps or fps)
    if url_of(clip.video):
        return replace(clip, problem=None)  # which was that it is no file
    return replace(clip, path=Path(os.path.abspath(clip.path)))


def clips_of(batch: Mapping[str, Any]) -> list[Clip]:
    """The clips of a batch of columns: `video`, and maybe `prompt` and `fps`, or other names of
    these; see `data.columns`. What is no path becomes a clip with a problem.

    Raises:
        InputError: when there is no such column.
    """
    try:
        named = in_our_names(batch)
    except ValueError as error:
        raise InputError(f"a batch has {error}") from None
    except TypeError:  # rows, or a table that isn't columns by name
        raise InputError(f"a batch must be a dict of columns, got {type(batch).__name__}") from None
    if "video" not in named:
        raise InputError(
            f"a batch has no column 'video'{expected('video')}, it has {listed(batch)}"
        )
    videos = _cells(named, "video")
    prompts, rates = (
        _cells(named, name) if name in named else [None] * len(videos) for name in ("prompt", "fps")
    )
    for name, cells in (("prompt", prompts), ("fps", rates)):
        if len(cells) != len(videos):
            raise InputError(f"a batch has {len(videos)} videos, and {len(cells)} of {name!r}")
    return [_clip(*row) for row in zip(videos, prompts, rates)]


def _cells(batch: Mapping[str, Any], name: str) -> list[Any]:
    if isinstance(batch[name], str):  # of which one would get the letters
        found = one_line(repr(batch[name]), limit=60)
        raise InputError(f"column {name!r} of a batch must have a value for each row, got {found}")
    return list(batch[name])


def _clip(video: Any, prompt: Any, fps: Any) -> Clip:
    if not isinstance(video, (str, os.PathLike)) or not os.fspath(video):
        what = f"no path of a video: {one_line(repr(video), limit=60)}"
        return replace(make_clip(""), problem=what)
    if not (is_missing(prompt) or isinstance(prompt, str)):
        what = f"prompt must be text, got {one_line(repr(prompt), limit=60)}"
        return replace(make_clip(video), problem=what)
    clip = make_clip(video, None if is_missing(prompt) else prompt)
    if not (is_missing(fps) or fps == ""):
        try:
            clip = replace(clip, fps=float(fps))
        except (TypeError, ValueError):
            what = f"fps must be a number, got {one_line(repr(fps), limit=60)}"
            return replace(clip, problem=what)
    return clip if url_of(clip.video) else check_exists(clip)


def beside(batch: Mapping[str, Any], columns: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The batch with columns more, whose names begin with a prefix.

    Raises:
        InputError: when the batch has one of them already.
    """
    named = {prefix + name: values for name, values in columns.items()}
    if taken := sorted(set(named) & set(batch)):
        raise InputError(f"a batch has a column {taken[0]!r} already; give another `prefix`")
    return {**batch, **named}


class Faults:
    """Ends the work of a process that never had a success: then the videos are not to blame.

    Args:
        deed: what was to be done to the videos, for the message.
    """

    def __init__(self, deed: str) -> None:
        self._deed = deed
        self._worked = False
        self._count = 0

    def note(self, errors: Sequence[Exception | None]) -> None:
        """Takes what became of some videos: None where that is well.

        Raises:
            AssessmentError: when four videos failed by another error than `VideoError`, and none
                got through.
        """
        self._worked |= None in errors
        found = [one for one in errors if one is not None and not is_about_the_video(one)]
        self._count += len(found)
        if found and not self._worked and self._count >= FEWEST:
            what = f"none of {self._count} videos could be {self._deed}"
            raise our_fault(found[0], what) from found[0]
