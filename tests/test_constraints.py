"""The bounds of setup.cfg are the versions of the constraint files that CI tests."""

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from aigveval import versions

FOLDER = Path(__file__).parents[1] / ".ci"
PYTHONS = ("3.11", "3.12", "3.13", "3.14", "3.15")
# What they do changes with minor versions.
DEEP = ("torch", "torchvision", "transformers", "peft", "trl", "ray")


def plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(name, python):
    """Name and version of each line that holds for Linux on x86-64 with a Python."""
    lines = (FOLDER / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    assert all(re.fullmatch(r"#.*|[a-z0-9-]+==[^\s;]+( ; .+)?", line) for line in lines if line)
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.7",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    named = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return [
        (plain(one.name), str(one.specifier).removeprefix("=="))
        for one in named
        if one.marker is None or one.marker.evaluate(environment)
    ]


def pinned(name, python=PYTHONS[0]):
    return dict(pins(name, python))


def release(version):
    return tuple(int(part) for part in re.match(r"[\d.]*\d", version)[0].split("."))


@pytest.fixture(scope="module")
def ranges(monkeypatch_module):
    monkeypatch_module.setattr(versions, "installed_version", lambda name: "1")  # of all extras
    return {
        plain(name): one
        for name, one in versions.tested_ranges().items()
        # of extras that have environments of their own, and aren't constrained
        if plain(name) not in ("pyiqa", "setuptools", "gradio")
    }


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def test_lower_bounds_are_the_oldest_versions_tested(ranges):
    oldest = pinned("oldest")
    wrong = {}
    for name, one in ranges.items():
        low, tested = release(one.lowest), release(oldest[name])
        if tested[: len(low)] != low or any(tested[len(low) :]):
            wrong[name] = (one.lowest, oldest[name])
    assert wrong == {}


@pytest.mark.parametrize("python", PYTHONS)
def test_upper_bounds_are_behind_the_newest_minor_versions_tested(ranges, python):
    newest = pinned("newest", python)
    if "ray" not in newest:
        assert python == PYTHONS[-1]  # there is none for it yet
        newest["ray"] = pinned("newest")["ray"]
    for name in DEEP:
        major, minor = release(newest[name])[:2]
        assert ranges[name].below == f"{major}.{minor + 1}", name
    assert ranges["av"].below == str(release(pinned("newest", PYTHONS[-1])["av"])[0] + 1)
    for name, one in ranges.items():
        assert release(newest[name]) >= release(one.lowest), name


@pytest.mark.parametrize(
    ("name", "python"), [("oldest", "3.11"), *(("newest", p) for p in PYTHONS)]
)
def test_everything_is_pinned_once(name, python):
    found = pins(name, python)
    assert len(found) > 100 and len(dict(found)) == len(found)


def test_setup_names_the_pythons_that_are_tested():
    setup = (FOLDER.parent / "setup.cfg").read_text(encoding="utf-8")
    assert tuple(re.findall(r"Python :: (3\.\d+)", setup)) == PYTHONS
    assert f"python_requires = >={PYTHONS[0]}" in setup
