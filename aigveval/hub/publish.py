"""Checkpoints on the Hugging Face Hub: what is uploaded of one, with a generated model card.

Only what was trained goes there (`config.json`, `model.safetensors`, a few MB) and the card; of a
merged checkpoint also the frozen weights, in `llm` and `encoders`. Tokenizers, optimizer states and
whatever else lies beside them stay at home.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

from huggingface_hub import CommitInfo, CommitOperationAdd, HfApi

from ..errors import ModelError, UsageError, one_line
from ..files import writing
from ..model.checkpoint import WEIGHTS, open_checkpoint
from .model_card import make_card

FROZEN = ("llm", "encoders")
_REPO_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


class HubError(Exception):
    """The Hub doesn't take an upload; the message is one line."""


class CheckpointError(UsageError, ValueError):
    """A folder can't be published as it is; the message is one line."""


def push_model(
    model: Any,
    repo_id: str,
    *,
    tags: Sequence[str] | None = None,
    merge: bool = False,
    figures: Sequence[str | Path] = (),
    data: Sequence[str] = (),
    license: str | None = None,
    **commit: Any,
) -> CommitInfo:
    """Upload a model's trained weights, its config and a model card.

    Args:
        model: An `AIGVEvalModel`; this is its `push_to_hub`.
        repo_id: `OWNER/NAME`, or `NAME` in your own namespace; made if it isn't there.
        tags: More tags of the card.
        merge: Upload the frozen LLM and encoders too.
        figures, data, license: For the card, see `aigveval.hub.model_card.make_card`. What is
            known of the folder that the model was loaded from is in it anyway.
        **commit: Options of `upload`, such as `private` and `token`.

    Returns:
        What huggingface_hub says of the commit.

    Raises:
        HubError: The Hub can't be reached, or doesn't allow it.
        CheckpointError: The config names folders of this machine.
    """
    if "/" not in repo_id:  # the card says how to load it
        with _one_line_errors(repo_id):
            repo_id = f"{HfApi(token=commit.get('token')).whoami()['name']}/{repo_id}"
    origin = getattr(model, "name_or_path", "") or ""
    with tempfile.TemporaryDirectory() as temporary:
        saved, staged = Path(temporary, "saved"), Path(temporary, "staged")
        model.save_pretrained(saved, merge=merge)
        stage(
            saved,
            staged,
            repo_id=repo_id,
            origin=origin if os.path.isdir(origin) else None,
            figures=figures,
            data=data,
            license=license,
            tags=tags or (),
        )
        return upload(staged, repo_id, **commit)


def stage(model: str | Path, out: str | Path, **card: Any) -> list[Path]:
    """Put what is published of a checkpoint into a folder, with its card.

    Args:
        model: Folder that `save_pretrained` or `aigveval fit` wrote.
        out: Folder to write to; made if missing.
        **card: Options of `aigveval.hub.model_card.make_card`; `repo_id` has to be there.

    Returns:
        The files, relative to `out`.

    Raises:
        CheckpointError: It is no checkpoint, its config names folders of this machine, or `out`
            can't be written.
        aigveval.errors.InputError: A file of figures is none.
    """
    model, out = Path(model), Path(out)
    for name in ("config.json", WEIGHTS):
        if not (model / name).is_file():
            raise CheckpointError(f"{model}: no checkpoint, it has no {name}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{out}: is not an empty folder")
    config = _portable(model)
    made = make_card(model, **card)
    text = json.dumps(config, indent=2, ensure_ascii=False)
    with writing(out, kind=CheckpointError):
        out.mkdir(parents=True, exist_ok=True)
        (out / "config.json").write_text(text + "\n", encoding="utf-8")
        shutil.copyfile(model / WEIGHTS, out / WEIGHTS)
        for name in FROZEN:
            if (model / name).is_dir():
                shutil.copytree(model / name, out / name)
        made.save(out / "README.md")
    return sorted(path.relative_to(out) for path in out.rglob("*") if path.is_file())


def upload(
    folder: str | Path,
    repo_id: str,
    *,
    commit_message: str | None = None,
    commit_description: str | None = None,
    private: bool | None = None,
    token: bool | str | None = None,
    revision: str | None = None,
    create_pr: bool = False,
) -> CommitInfo:
    """Upload a folder as `stage` made it.

    Args:
        folder, repo_id: What, and where to; made if it isn't there.
        commit_message, commit_description: By default the message says what is uploaded.
        private: Whether a new repository is; by default as its owner has set.
        token: Instead of that of `hf auth login`.
        revision: Branch, made if it isn't there.
        create_pr: Open a pull request instead of committing.

    Raises:
        HubError: The Hub can't be reached, or doesn't allow it.
    """
    api, folder = HfApi(token=token), Path(folder)
    additions = [
        CommitOperationAdd(path_in_repo=path.relative_to(folder).as_posix(), path_or_fileobj=path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    with _one_line_errors(repo_id):
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if revision is not None and not revision.startswith("refs/pr"):
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        return api.create_commit(
            repo_id,
            operations=additions,
            revision=revision,
            create_pr=create_pr,
            commit_message=commit_message or "Upload model with aigveval",
            commit_description=commit_description,
        )


@contextmanager
def _one_line_errors(repo_id: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the Hub client and what it stands on have dozens of kinds
        reason = one_line(str(error).strip() or type(error).__name__, limit=300)
        raise HubError(f"{repo_id}: the Hugging Face Hub doesn't take it: {reason}") from error


def check_repo_id(repo_id: str) -> str:
    """The id, if it can be one.

    Raises:
        CheckpointError: It isn't `OWNER/NAME`.
    """
    if not _REPO_ID.fullmatch(repo_id):
        raise CheckpointError(f"a repository of the Hub is OWNER/NAME, got {repo_id!r}")
    return repo_id


def local_checkpoint(name: str | Path) -> Path:
    """The folder of a checkpoint, or of one that comes with the package, such as `lite`.

    Raises:
        aigveval.errors.ModelError: There is none of that name on this machine.
    """
    folder = Path(open_checkpoint(name).source)
    if not folder.is_dir():
        raise ModelError(f"{name}: no folder on this machine")
    return folder


def _portable(model: Path) -> dict[str, Any]:
    """The config as others get it; they can't load one that names a folder of this machine.

    Of the folder that a merged LLM came from, which loading needs no more, the last part stays.
    """
    config: dict[str, Any] = json.loads((model / "config.json").read_text(encoding="utf-8"))
    if "encoders" not in config:
        raise CheckpointError(
            f"{model}: a vision-language model; a card is made for models with encoders only. "
            "Its own push_to_hub uploads it without one"
        )
    named = {} if (model / "llm").is_dir() else {"the LLM": config.get("llm")}
    for entry in config["encoders"]:
        named |= {f"{key} of {entry['name']}": value for key, value in entry["options"].items()}
    for what, value in named.items():
        if isinstance(value, str) and _is_local(value):
            raise CheckpointError(
                f"{model}: {what} is {value} on this machine, which others don't have; name it by "
                "its Hub id in config.json"
                + (", or publish a merged model" if what == "the LLM" else "")
            )
    if isinstance(llm := config.get("llm"), str) and _is_local(llm):
        config["llm"] = PurePath(llm).name
    return config


def _is_local(value: str) -> bool:
    return PurePath(value).is_absolute() or ("/" in value and Path(value).exists())
