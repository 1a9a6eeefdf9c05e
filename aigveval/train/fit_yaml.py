"""`FitConfig` out of a YAML file, changed by what the command line says, and back into one."""

from __future__ import annotations

import dataclasses
import os
import re
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml

from ..data.readers import HUB_ID, MANIFEST_SUFFIXES, url_of
from ..presets import list_presets, read_preset

from .config import FROM_BASE, FitConfig, FitError, check_known, default_of


class _Loader(yaml.SafeLoader):
    """Takes ``1:5`` for text, as YAML 1.2 does, and not for sixty-five in base 60."""


_Loader.yaml_implicit_resolvers = {
    first: [("tag:yaml.org,2002:str", re.compile(r"[^:]+:")), *rules]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}

_KINDS = {
    "str": "text", "int": "a whole number", "float": "a number", "bool": "true or false",
    "list": "a list", "dict": "a mapping",
}


def read_fit_config(
    path: str | Path, *, changes: Sequence[str] = (), base: str | None = None
) -> FitConfig:
    """Read a YAML file.

    Paths are relative to its folder; ``~`` and ``$VARIABLES`` are expanded. A manifest that isn't
    a file there can also be the id of a data set on the Hub, a model the name of one elsewhere. It
    may take over the options of a preset, see `aigveval.presets`, by ``preset: NAME``; what it says
    itself counts more.

    Args:
        path: The file.
        changes: ``NAME=VALUE``, the value as in YAML, in place of what the file says; ``lora.r=16``
            changes one field of a mapping. Paths in them are relative to the file's folder too.
        base: In place of the option of that name, and of all options that come with it.

    Raises:
        FitError: The file can't be read, a key is unknown (the nearest right one is offered), or
            a value has a wrong type or range.
    """
    path = Path(path)
    values = load(path)
    try:
        for text in changes:
            change(values, text)
        if base is not None:
            values = {k: v for k, v in values.items() if k not in FROM_BASE} | {"base": base}
        return make_config(values, folder=path.resolve().parent)
    except FitError as error:
        raise FitError(f"{path}: {error}") from None


def write_fit_config(config: FitConfig) -> str:
    """A config as YAML, every option with its value."""
    return yaml.safe_dump(dataclasses.asdict(config), sort_keys=False, allow_unicode=True)


def load(path: Path) -> dict[str, Any]:
    """The options in a file, unchecked."""
    try:
        values = _parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise FitError(f"{path}: {getattr(error, 'strerror', None) or 'not UTF-8 text'}") from error
    except yaml.YAMLError as error:
        raise FitError(f"{path}: not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(values, dict):
        raise FitError(f"{path}: expected options, one 'name: value' a line")
    return values


def _parse(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)  # a SafeLoader


def change(values: dict[str, Any], wanted: str) -> None:
    """Change options by ``NAME=VALUE``; see `read_fit_config`."""
    target, equals, text = wanted.partition("=")
    name, *fields = target.strip().split(".")
    if not equals or not name:
        raise FitError(f"expected NAME=VALUE, got {wanted!r}")
    check_known("option", name, [*FitConfig.__dataclass_fields__, "preset"])
    try:
        value = _parse(text)
    except yaml.YAMLError:
        raise FitError(f"{wanted!r}: the value is not YAML") from None
    if not fields:
        values[name] = value
        return
    mapping = values.setdefault(name, default_of(name))
    for field in fields[:-1]:
        mapping = mapping.setdefault(field, {}) if isinstance(mapping, dict) else None
    if not isinstance(mapping, dict):
        raise FitError(f"{wanted!r}: {name} is no mapping that has fields")
    mapping[fields[-1]] = value


def _with_preset(values: dict[str, Any]) -> dict[str, Any]:
    name = values["preset"]
    if name not in list_presets():
        raise FitError(f"no preset {name!r}; there are {', '.join(list_presets())}")
    options = read_preset(name)
    if values.get("base"):
        options = {key: value for key, value in options.items() if key not in FROM_BASE}
    return {**options, **{key: values[key] for key in values if key != "preset"}}


def make_config(values: dict[str, Any], *, folder: Path) -> FitConfig:
    """Options as they stand in a file of a folder, checked; see `read_fit_config`."""
    if "preset" in values:
        values = _with_preset(values)
    hints = typing.get_type_hints(FitConfig)
    for name in values:
        check_known("option", name, hints)
    for name in hints:
        if name not in values and default_of(name) is dataclasses.MISSING:
            raise FitError(f"option {name!r} is missing")
    given = {name: _convert(name, value, hints[name]) for name, value in values.items()}
    for name in ("train", "valid"):
        given[name] = [_source(entry, folder) for entry in given.get(name, [])]
    given["completions"] = [_path(entry, folder) for entry in given.get("completions", [])]
    for name in ("output_dir", "cache_dir"):  # the same run, wherever it's started from
        given[name] = _path(given[name], folder)
    for name in ("base", "llm", "vlm"):
        local = _path(given[name], folder) if given.get(name) else None
        if local and Path(local).exists():
            given[name] = local
    return FitConfig(**given)


def _path(text: str, folder: Path) -> str:
    return str(folder / os.path.expanduser(os.path.expandvars(text)))


def _source(text: str, folder: Path) -> str:
    """A manifest's path, or the id of a data set where there is no such file.

    An address stays as it is, so that what reads it can say that files are needed.
    """
    if url_of(text):
        return text
    path = _path(text, folder)
    is_id = HUB_ID.fullmatch(text) and Path(text).suffix.lower() not in MANIFEST_SUFFIXES
    return text if is_id and text[0] != "." and not Path(path).exists() else path


def _convert(name: str, value: Any, hint: Any) -> Any:
    if typing.get_origin(hint) is types.UnionType:
        if value is None:
            return None
        hint = typing.get_args(hint)[0]
    if typing.get_origin(hint) is Literal:
        if value not in typing.get_args(hint):
            raise FitError(f"{name} must be one of {typing.get_args(hint)}, got {value!r}")
        return value
    kind = typing.get_origin(hint) or hint
    if kind is float and isinstance(value, int | str) and not isinstance(value, bool):
        try:
            return float(value)  # YAML takes 5e-4 for text
        except ValueError:
            pass
    if kind is list and hint == list[str] and isinstance(value, str):
        return [value]
    entries = typing.get_args(hint)[0] if kind is list else Any
    wrong = kind is list and isinstance(value, list) and entries is str and not all(
        isinstance(entry, str) for entry in value
    )
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)) or wrong:
        raise FitError(f"{name} must be {_KINDS[kind.__name__]}, got {value!r}")
    return value
