"""Our version, and those of other libraries that aigveval was tested with and that are installed.

The ranges are those of our own package metadata; in a checkout those of its `setup.cfg`.
"""

import configparser
import re
from dataclasses import dataclass
from pathlib import Path

__version__ = "0.1.0"
DISTRIBUTION = "aigveval"


@dataclass(frozen=True, kw_only=True)
class VersionRange:
    """One library.

    Attributes:
        name: Of its distribution, as in `pip install NAME`.
        lowest: The lowest version that was tested; None where any will do.
        below: The version that is the first untested one; None without an upper bound.
        installed: The installed version; None where it's absent.
    """

    name: str
    lowest: str | None
    below: str | None
    installed: str | None

    @property
    def tested(self) -> str:
        """The range in words, such as "5.14 up to 5.24"; empty where any version will do."""
        words = ([self.lowest] if self.lowest else []) + ([self.limit] if self.below else [])
        return " ".join(words) if self.below else f"{self.lowest} or newer" if self.lowest else ""

    @property
    def limit(self) -> str:
        """The upper end in words, such as "up to 5.24"; empty without one."""
        if self.below is None:
            return ""
        *first, last = _release(self.below)
        if first and last:  # of 5.25 the minor version before it
            return "up to " + ".".join(map(str, [*first, last - 1]))
        return f"below {self.below}"

    @property
    def is_newer(self) -> bool:
        """Whether what is installed is newer than what was tested."""
        return bool(self.installed and self.below) and not _is_older(self.installed, self.below)

    @property
    def is_older(self) -> bool:
        """Whether what is installed is older than what was tested."""
        return bool(self.installed and self.lowest) and _is_older(self.installed, self.lowest)


def tested_ranges() -> dict[str, VersionRange]:
    """Name to range of every library that aigveval and its extras need, by name.

    Of an extra whose first library is absent nothing counts: it isn't used. Empty where nothing
    tells, as in a copy of the bare packages.
    """
    ranges: dict[str, VersionRange] = {}
    for extra, requirements in _requirements().items():
        found = [one for one in map(_range, requirements) if one is not None]
        if extra and found and found[0].installed is None:
            continue
        for one in found:
            ranges.setdefault(one.name, one)
    return dict(sorted(ranges.items()))


def newer_than_tested() -> list[str]:
    """Installed libraries beyond their range, such as "transformers 5.26.0 (tested up to 5.24)"."""
    return [
        f"{one.name} {one.installed} (tested {one.limit})"
        for one in tested_ranges().values()
        if one.is_newer
    ]


def _requirements() -> dict[str, list[str]]:
    """Extra, or "", to its requirements: of the checkout around this file, else as installed."""
    from importlib import metadata  # not with the package: it takes longer than all else there

    config = configparser.ConfigParser(interpolation=None)
    found: dict[str, list[str]] = {}
    try:
        config.read(Path(__file__).parents[1] / "setup.cfg", encoding="utf-8")
        if config.get("metadata", "name", fallback=None) == DISTRIBUTION:
            found[""] = config["options"]["install_requires"].split("\n")
            extras = config["options.extras_require"]
            return found | {name: lines.split("\n") for name, lines in extras.items()}
        for requirement in metadata.requires(DISTRIBUTION) or []:
            extra = re.search(r"extra\s*==\s*[\"']([^\"']+)", requirement)
            found.setdefault(extra[1] if extra else "", []).append(requirement)
    except (configparser.Error, KeyError, metadata.PackageNotFoundError, OSError, ValueError):
        pass
    return found


def _range(requirement: str) -> VersionRange | None:
    """Of a line such as `torch<2.15,>=2.9; platform_system == "Linux"`; None for an empty one."""
    found = re.match(r"\s*([A-Za-z0-9._-]+)\s*(?:\[[^]]*\])?\s*\(?([^;)]*)", requirement)
    if found is None:
        return None
    bounds = dict(re.findall(r"(>=|==|<)\s*([0-9][^,\s]*)", found[2]))
    return VersionRange(
        name=found[1],
        lowest=bounds.get(">=") or bounds.get("=="),
        below=bounds.get("<"),
        installed=installed_version(found[1]),
    )


def installed_version(name: str) -> str | None:
    """Of a distribution; None where it's absent."""
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _release(version: str) -> tuple[int, ...]:
    """The numbers of a version, without what stands behind them, such as `rc1` or `+cu128`."""
    found = re.match(r"\d+(?:\.\d+)*", version.strip())
    return tuple(map(int, found[0].split("."))) if found else ()


def _is_older(version: str | None, than: str | None) -> bool:
    one, other = _release(version or ""), _release(than or "")
    length = max(len(one), len(other))
    return one + (0,) * (length - len(one)) < other + (0,) * (length - len(other))
