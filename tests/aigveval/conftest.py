"""What the tests of training share."""

import pytest


@pytest.fixture(scope="session")
def lite():
    """The shipped model, loaded once; it scores, and nobody changes it."""
    from aigveval.inference.assessor import load
    from encoders import WeightsError

    try:
        return load("lite", device="cpu")
    except WeightsError as error:
        pytest.skip(f"the frozen weights cannot be had here: {error}")


@pytest.fixture(scope="session")
def fit_llm(tmp_path_factory):
    from tests.aigveval.fit_case import make_llm

    folder = tmp_path_factory.mktemp("llm")
    make_llm(folder)
    return folder


@pytest.fixture(scope="session")
def fit_data(tmp_path_factory):
    from tests.aigveval.fit_case import make_data

    folder = tmp_path_factory.mktemp("data")
    make_data(folder)
    return folder


@pytest.fixture
def fit_config(tmp_path, fit_data, fit_llm, monkeypatch):
    """A config that trains in a second, with one thread; its encoders are registered meanwhile."""
    import torch

    from encoders import registry

    from tests.aigveval.fit_case import REGISTERED, make_config

    monkeypatch.setattr(registry, "_registered", dict(REGISTERED))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield make_config(fit_data, fit_llm, tmp_path / "run")
    torch.set_num_threads(threads)
