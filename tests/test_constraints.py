"""The bounds of setup.cfg are the versions of the constraint files that CI tests."""

import re
from pathlib import Path

import pytest

from aigveval import versions

FOLDER = Path(__file__).parents[1] / ".ci"
# What they do changes with minor versions.
DEEP = ("torch", "torchvision", "transformers", "peft", "trl", "ray")


def plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned(name):
    lines = (FOLDER / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {plain(name): version.strip() for name, version in pairs}


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


def test_upper_bounds_are_behind_the_newest_minor_versions_tested(ranges):
    newest = pinned("newest")
    for name in DEEP:
        major, minor = release(newest[name])[:2]
        assert ranges[name].below == f"{major}.{minor + 1}", name
    for name, one in ranges.items():
        assert release(newest[name]) >= release(one.lowest), name


def test_everything_is_pinned_once():
    for name in ("newest", "oldest"):
        lines = (FOLDER / f"{name}.txt").read_text(encoding="utf-8").splitlines()
        assert all(re.fullmatch(r"#.*|[a-z0-9-]+==\S+", line) for line in lines if line), name
        assert len(pinned(name)) == sum(not line.startswith("#") for line in lines)
