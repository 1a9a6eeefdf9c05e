"""Versions beside the ranges that were tested."""

from importlib import metadata

import pytest

from aigveval import versions
from aigveval.versions import VersionRange, newer_than_tested

# As a wheel writes them: bounds in any order, markers, a name with an extra.
REQUIRES = [
    "torch<2.15,>=2.9",
    "transformers[torch] (>=5.14,<5.25)",
    "pillow>=11",
    "numpy",
    'decord>=0.6; platform_system == "Linux"',
    'trl<1.17,>=1.10; extra == "grpo"',
    'pyiqa>=0.1.16; extra == "pyiqa"',
    'setuptools<81; extra == "pyiqa"',
]
INSTALLED = {
    "torch": "2.15.0+cu130",
    "transformers": "5.26.0.dev0",
    "pillow": "10.4.0",
    "numpy": "2.4.6",
    "decord": "0.6.0",
    "trl": "1.16.0",
    "setuptools": "84.2.1",
}


@pytest.fixture
def installed(monkeypatch, tmp_path):
    def version(name):
        if name not in INSTALLED:
            raise metadata.PackageNotFoundError(name)
        return INSTALLED[name]

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(metadata, "requires", lambda name: REQUIRES)
    monkeypatch.setattr(versions, "__file__", str(tmp_path / "aigveval" / "versions.py"))


def test_ranges_of_an_installed_package(installed):
    ranges = versions.tested_ranges()
    assert list(ranges) == ["decord", "numpy", "pillow", "torch", "transformers", "trl"]
    assert ranges["torch"] == VersionRange(
        name="torch", lowest="2.9", below="2.15", installed="2.15.0+cu130"
    )
    assert [one.tested for one in ranges.values()] == [
        "0.6 or newer",
        "",
        "11 or newer",
        "2.9 up to 2.14",
        "5.14 up to 5.24",
        "1.10 up to 1.16",
    ]
    assert [one.name for one in ranges.values() if one.is_older] == ["pillow"]


def test_what_is_newer_than_tested(installed):
    assert newer_than_tested() == [
        "torch 2.15.0+cu130 (tested up to 2.14)",
        "transformers 5.26.0.dev0 (tested up to 5.24)",
    ]


def test_an_extra_counts_once_it_is_used(installed, monkeypatch):
    monkeypatch.setitem(INSTALLED, "pyiqa", "0.1.16")
    assert "setuptools 84.2.1 (tested below 81)" in newer_than_tested()


@pytest.mark.parametrize(
    "version, newer",
    [
        ("5.24.99", False),
        ("5.25", True),
        ("5.25.0rc1", True),
        ("6", True),
        ("5.9", False),
        (None, False),
    ],
)
def test_newer(version, newer):
    assert (
        VersionRange(name="transformers", lowest="5.14", below="5.25", installed=version).is_newer
        is newer
    )


def test_ranges_of_this_checkout():
    ranges = versions.tested_ranges()
    assert [name for name, one in ranges.items() if one.lowest is None] == []
    bounded = ["peft", "torch", "torchvision", "transformers"]
    assert [name for name in bounded if ranges[name].below is None] == []


def test_without_metadata(installed, monkeypatch):
    def requires(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", requires)
    assert versions.tested_ranges() == {} and newer_than_tested() == []
