"""Deprecated calls of ours fail the test that makes them, however they are attributed."""

import logging
import types
import warnings
from functools import wraps

import pytest
import torch
from torch import nn

from .deprecations import Deprecations

LIBRARY = """
import functools, logging, warnings

def renamed(forward):
    @functools.wraps(forward)
    def wrapped(self, x, **options):
        if "old" in options:
            warnings.warn("old is deprecated", FutureWarning, stacklevel=2)
        return forward(self, x)
    return wrapped

def unattributed():
    warnings.warn("it is deprecated", DeprecationWarning)

def logged():
    logging.getLogger("some").warning_once("`a` is deprecated, use `b`")

def inside():
    unattributed_too()

def unattributed_too():
    warnings.warn("mine", DeprecationWarning, stacklevel=2)
"""


@pytest.fixture
def library(monkeypatch):
    """A module that isn't ours."""
    made = types.ModuleType("somelibrary")
    exec(compile(LIBRARY, "somelibrary.py", "exec"), made.__dict__)
    return made


@pytest.fixture
def noted(monkeypatch):
    """Watches on its own, without telling the tests' own watcher."""
    found = Deprecations()
    monkeypatch.setattr(warnings, "warn", warnings.warn)
    monkeypatch.setattr(logging.Logger, "warning_once", lambda *args: None, raising=False)
    real = getattr(warnings.warn, "_warn", warnings.warn)
    monkeypatch.setattr(warnings, "warn", real)
    monkeypatch.setitem(__import__("sys").modules, "transformers.utils.logging", logging)
    found.watch()
    yield found


@pytest.mark.filterwarnings("ignore")
def test_found_behind_torch_s_call(library, noted):
    class Model(nn.Module):
        @library.renamed
        def forward(self, x):
            return x

    Model()(torch.zeros(1))
    assert noted.found == []
    Model()(torch.zeros(1), old=1)
    (line,) = noted.found
    assert line.startswith("tests.test_deprecations:") and line.endswith(
        " (somelibrary): old is deprecated"
    )


@pytest.mark.filterwarnings("ignore")
def test_found_where_a_library_names_no_caller(library, noted):
    library.unattributed()
    library.logged()
    library.logged()  # it would be logged once
    assert [line.partition("): ")[2] for line in noted.found] == [
        "it is deprecated",
        "`a` is deprecated, use `b`",
        "`a` is deprecated, use `b`",
    ]


@pytest.mark.filterwarnings("ignore")
def test_what_others_do_is_theirs(library, noted):
    other = types.ModuleType("otherlibrary")
    other.call = library.unattributed
    exec(compile("def use():\n    call()\n", "otherlibrary.py", "exec"), other.__dict__)
    other.use()
    warnings.warn("not a deprecation", UserWarning)
    assert noted.found == []


def test_a_plain_deprecated_call_is_an_error(library, noted):
    @wraps(library.unattributed_too)
    def call():
        library.unattributed_too()

    with pytest.raises(DeprecationWarning, match="^mine$"):
        call()
