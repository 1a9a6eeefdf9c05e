"""What all tests share. Set before torch and transformers are imported, so that it holds."""

import gc
import os
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path

import pytest
import typer.main
import typer.testing

from aigveval import versions

from .deprecations import Deprecations

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TRANSFORMERS_OFFLINE="1")
BESIDE_OTHERS = "PYTEST_XDIST_WORKER" in os.environ
# More threads gain nothing on clips this small.
THREADS_ARE_GIVEN = "OMP_NUM_THREADS" in os.environ
os.environ.setdefault("OMP_NUM_THREADS", "2")
# The longest: begun first, so that no process is left alone with one at the end.
LONG = ("test_notebooks.py", "test_fit_processes.py", "test_bad_input.py")


gc.disable()  # until all is imported, of which nothing is garbage


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_setupnodes():
    """Side by side (`pytest -n 2`) each process has a core; they inherit what is set here."""
    if not THREADS_ARE_GIVEN:
        os.environ["OMP_NUM_THREADS"] = "1"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    if BESIDE_OTHERS:
        items.sort(key=lambda item: item.path.name not in LONG)  # keeps the order otherwise


def pytest_collection_finish():
    """What is imported stays: else each training would search all of it for garbage."""
    gc.freeze()
    gc.enable()


_DEPRECATIONS = Deprecations()
_DEPRECATIONS.watch()


def pytest_report_header() -> str:
    """Says so where something is newer than what was tested."""
    newer = versions.newer_than_tested()
    return f"not tested yet: {', '.join(newer)}" if newer else "no library is newer than tested"


@pytest.fixture(autouse=True, scope="session")
def commands_made_once():
    """Typer's runner makes the command line anew from all its options for every call."""
    with pytest.MonkeyPatch.context() as patch:
        if hasattr(typer.testing, "_get_command"):  # its own name for `typer.main.get_command`
            patch.setattr(typer.testing, "_get_command", cache(typer.main.get_command))
        yield


@pytest.fixture
def held(monkeypatch):
    """Puts a list of what is held now in place of a context, such as `torch.cuda.device`."""

    def watch(context):
        inside = []

        @contextmanager
        def hold(value):
            inside.append(value)
            yield
            inside.pop()

        monkeypatch.setattr(context, hold)
        return inside

    return watch


@pytest.fixture(autouse=True)
def nothing_newer(monkeypatch):
    """So that messages are the same with versions that are yet to be tested."""
    monkeypatch.setattr(versions, "newer_than_tested", lambda: [])


@pytest.fixture(autouse=True)
def no_deprecated_calls():
    """Fails a test in which a module of ours does what a library calls deprecated."""
    _DEPRECATIONS.watch()
    _DEPRECATIONS.found.clear()
    yield
    _DEPRECATIONS.watch()
    found = list(dict.fromkeys(_DEPRECATIONS.found))
    if found:
        pytest.fail("deprecated calls of ours:\n" + "\n".join(found), pytrace=False)


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") is not None:
        import torch

        from aigveval.model.precision import has_bfloat16

        if not torch.cuda.is_available() or not has_bfloat16(torch.device("cuda")):
            pytest.skip("needs a CUDA GPU that computes in bfloat16")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The development data, which is no part of the project; tests that need it are skipped."""
    given = os.environ.get("AIGVEVAL_DATA")
    if not given:
        pytest.skip("AIGVEVAL_DATA is not set: it names the folder with the development data")
    if not Path(given).is_dir():
        pytest.skip(f"AIGVEVAL_DATA is not a folder: {given}")
    return Path(given)


@pytest.fixture(scope="session")
def make_encoder():
    """`create_encoder`, once per name and options; skips where the weights can't be had."""
    from encoders import WeightsError, create_encoder

    @lru_cache(maxsize=None)
    def made(name, **options):
        try:
            return create_encoder(name, **options)
        except WeightsError as error:
            return error

    def make(name, **options):
        encoder = made(name, **options)
        if isinstance(encoder, WeightsError):
            pytest.skip(f"no weights for {name}: {encoder}")
        return encoder

    return make
