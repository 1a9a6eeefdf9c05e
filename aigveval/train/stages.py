"""The YAML file of a training: one stage, or a list of them that go on from each other.

    train: cot/train.jsonl
    output_dir: run
    cache_dir: cache
    base: lite
    stages:
    - {stage: sft, epochs: 3}
    - {stage: grpo, max_steps: 200, lora_learning_rate: 1e-5}
    - {stage: sft2, epochs: 1}

What stands beside `stages` holds for each of them, what stands in its entry for that one alone.
Stage n writes into `output_dir/n-STAGE`, here `run/1-sft`, `run/2-grpo` and `run/3-sft2`.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import re
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from rich.console import Console

from ..data.readers import HUB_ID, MANIFEST_SUFFIXES, url_of
from ..errors import one_line
from ..model.config import new_options
from ..presets import list_presets, read_preset
from .config import FROM_BASE, FitConfig, FitError, check_known, convert, default_of
from .rejection_sampling import COMPLETIONS

if TYPE_CHECKING:
    from .fit import FitResult


def read_stages(
    path: str | Path, *, changes: Sequence[str] = (), base: str | None = None
) -> list[FitConfig]:
    """Read a YAML file with or without `stages`.

    Args:
        path: The file; its paths and options are as in `read_fit_config`.
        changes: As there; they hold for each stage, whatever its entry says.
        base: As there, of the first stage.

    Raises:
        FitError: The file cannot be read, or a stage's options are wrong; names the stage.
    """
    path = Path(path)
    values = load(path)
    if "stages" not in values:
        return [read_fit_config(path, changes=changes, base=base)]
    try:
        return _stages(values, changes, base, folder=path.resolve().parent)
    except FitError as error:
        raise FitError(f"{path}: {error}") from None


def run_stages(configs: Sequence[FitConfig]) -> list[FitResult]:
    """Run stages in their order; finished ones are not trained again.

    Raises:
        FitError, ManifestError, SystemExit: See `fit.main`.
    """
    from .fit import main  # takes seconds to import, which reading a file need not wait for

    results = []
    for number, config in enumerate(configs, 1):
        if len(configs) > 1 and os.environ.get("RANK", "0") == "0":
            Console(stderr=True).print(
                f"Stage {number} of {len(configs)}: {config.stage}", style="bold", highlight=False
            )
        results.append(main(config))
    return results


def _stages(
    values: dict[str, Any], changes: Sequence[str], base: str | None, *, folder: Path
) -> list[FitConfig]:
    entries = values.pop("stages")
    if not isinstance(entries, list) or not entries:
        raise FitError("stages must be a list of mappings, each with its stage")
    if "stage" in values:
        raise FitError("stage stands in the entries of stages, not beside them")
    configs: list[FitConfig] = []
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict) or "stage" not in entry:
            raise FitError(f"stage {number} must be a mapping with its stage, got {entry!r}")
        own = sorted({"output_dir", "base"} & set(entry))
        if own:
            raise FitError(f"stage {number}: {own[0]} comes from the stages before; leave it out")
        try:
            configs.append(
                _stage(
                    copy.deepcopy({**values, **entry}), changes, base, before=configs, folder=folder
                )
            )
        except FitError as error:
            raise FitError(f"stage {number} ({entry['stage']}): {error}") from None
    return configs


def _stage(
    values: dict[str, Any],
    changes: Sequence[str],
    base: str | None,
    *,
    before: Sequence[FitConfig],
    folder: Path,
) -> FitConfig:
    stage = values["stage"]
    for text in changes:
        change(values, text)
    if values["stage"] != stage:
        raise FitError("the order of stages can't be changed by --set")
    if "output_dir" in values:
        values["output_dir"] = f"{values['output_dir']}/{len(before) + 1}-{stage}"
    if before or base is not None:
        values = {name: value for name, value in values.items() if name not in FROM_BASE}
        values["base"] = f"{before[-1].output_dir}/model" if before else base
    if stage == "sft2" and not values.get("completions"):
        values["completions"] = [
            f"{one.output_dir}/{COMPLETIONS}" for one in before if one.stage == "grpo"
        ]
    return make_config(values, folder=folder)


# ---- the options of one stage -------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """Reads as YAML 1.2 does ``1:5`` as text, not as sixty-five in base 60, and ``1e-8`` as a
    number, not as text; no key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in lines:
                raise FitError(f"option {name!r} is given twice: lines {lines[name]} and {line}")
            lines[name] = line
        return super().construct_mapping(node, deep=deep)


_Loader.yaml_implicit_resolvers = {
    first: [("tag:yaml.org,2002:str", re.compile(r"[^:]+:")), *rules]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    [*"-+0123456789"],
)


def read_fit_config(
    path: str | Path, *, changes: Sequence[str] = (), base: str | None = None
) -> FitConfig:
    """Read a YAML file.

    Paths are relative to its folder; ``~`` and ``$VARIABLES`` are expanded. A manifest that is not
    a file there can also be the id of a data set on the Hub, a model the name of one elsewhere.
    ``preset: NAME`` takes over the options of a preset, see `aigveval.presets`; options in the file
    override these.

    Args:
        path: The file.
        changes: ``NAME=VALUE``, the value as in YAML, in place of what the file says; ``lora.r=16``
            changes one field of a mapping. Paths in them are relative to the file's folder too.
        base: In place of the option of that name, and of all options that come with it.

    Raises:
        FitError: The file cannot be read, a key is unknown (the nearest right one is offered), or a
            value has a wrong type or range.
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
    """The options in a file by their present names, unchecked."""
    try:
        values = _parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise FitError(f"{path}: {getattr(error, 'strerror', None) or 'not UTF-8 text'}") from error
    except FitError as error:
        raise FitError(f"{path}: {error}") from None
    except yaml.YAMLError as error:
        raise FitError(f"{path}: not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(values, dict):
        raise FitError(f"{path}: expected options, one 'name: value' a line")
    if isinstance(stages := values.get("stages"), list):
        values["stages"] = [
            new_options(entry, warn=True) if isinstance(entry, dict) else entry for entry in stages
        ]
    return new_options(values, warn=True)


def _parse(text: str) -> Any:
    """What YAML says.

    Raises:
        FitError: A key is there twice.
        YAMLError: It is none, or a value that can't be written.
    """
    try:
        values = yaml.load(text, Loader=_Loader)  # a SafeLoader
    except FitError:
        raise
    except RecursionError:
        raise yaml.YAMLError("nested too deeply") from None
    except ValueError as error:  # such as a date that there is not
        raise yaml.YAMLError(one_line(error)) from None
    try:
        json.dumps(values, default=str, skipkeys=True)
    except ValueError:  # by an anchor
        raise yaml.YAMLError("a value holds itself") from None
    return values


def change(values: dict[str, Any], wanted: str) -> None:
    """Change options by ``NAME=VALUE``; see `read_fit_config`."""
    target, equals, text = wanted.partition("=")
    name, *fields = target.strip().split(".")
    if not equals or not name:
        raise FitError(f"expected NAME=VALUE, got {wanted!r}")
    try:
        value = _parse(text)
    except yaml.YAMLError:
        raise FitError(f"{wanted!r}: the value is not YAML") from None
    if not fields:
        ((name, value),) = new_options({name: value}, warn=True).items()
    check_known("option", name, [*FitConfig.__dataclass_fields__, "preset"])
    if not fields:
        values[name] = value
        return
    given = _with_preset(values) if "preset" in values else values
    mapping = values.setdefault(name, copy.deepcopy(given.get(name, default_of(name))))
    for outer in fields[:-1]:
        mapping = mapping.setdefault(outer, {}) if isinstance(mapping, dict) else None
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
    given = {name: convert(name, value, hints[name]) for name, value in values.items()}
    for name in ("train", "valid"):
        given[name] = [_source(entry, folder) for entry in given.get(name, [])]
    given["completions"] = [_path(entry, folder) for entry in given.get("completions", [])]
    for name in ("output_dir", "cache_dir"):  # the same run, wherever it is started from
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

    A URL stays as it is, so that its reader can say that files are needed.
    """
    if url_of(text):
        return text
    path = _path(text, folder)
    is_id = HUB_ID.fullmatch(text) and Path(text).suffix.lower() not in MANIFEST_SUFFIXES
    return text if is_id and text[0] != "." and not Path(path).exists() else path
