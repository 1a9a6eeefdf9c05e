"""Work in stretches, a thread each, and what threads share."""

import contextlib
import threading

import numpy as np
import pytest
import torch

from encoders.base import full_float32, undisturbed
from encoders.resizing import resized
from encoders.threads import by_stretches


@pytest.fixture
def use_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("threads, stretches", [(1, 1), (2, 2), (3, 3), (4, 4), (16, 4)])
@pytest.mark.parametrize("total", [1, 2, 3, 7, 48])
def test_all_is_done_once_and_in_order(use_threads, threads, stretches, total):
    use_threads(threads)
    found = by_stretches(lambda start, stop: list(range(start, stop)), total)
    assert len(found) == min(stretches, total) and all(found)
    assert sum(found, []) == list(range(total))


def test_threads_run_side_by_side(use_threads):
    use_threads(3)
    barrier = threading.Barrier(3, timeout=10)
    names = by_stretches(
        lambda start, stop: (barrier.wait(), threading.current_thread().name)[1], 9
    )
    assert len(set(names)) == 3 and threading.current_thread().name not in names
    use_threads(1)
    assert by_stretches(lambda *_: threading.current_thread(), 9) == [threading.current_thread()]


def test_an_error_comes_out(use_threads):
    def work(start, stop):
        if start:
            raise ValueError("the second half is broken")

    use_threads(2)
    with pytest.raises(ValueError, match="^the second half is broken$"):
        by_stretches(work, 4)


@pytest.mark.parametrize("size", [(20, 30), (90, 200)])
def test_resizing_does_not_depend_on_the_threads(use_threads, size):
    frames = torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (5, 3, 60, 80), dtype=np.uint8)
    )
    found = []
    for threads in (1, 2, 4):
        use_threads(threads)
        found.append(resized(frames, *size))
    assert found[0].shape == (5, 3, *size) and found[0].float().std() > 1
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_full_float32_lasts_until_the_last_thread_is_done():
    convolution = torch.backends.cudnn.conv
    kept = convolution.fp32_precision
    first, second = (full_float32(torch.device("cuda")) for _ in range(2))
    with contextlib.ExitStack() as stack:
        stack.enter_context(second)
        with first:
            stack.close()
            assert convolution.fp32_precision == "ieee"
    assert convolution.fp32_precision == kept


def products():
    """What PyTorch says of products of matrices, by its older settings and its newer ones."""
    found = [
        torch.backends.cuda.matmul.fp32_precision,
        torch.backends.mkldnn.matmul.fp32_precision,
    ]
    try:
        return [*found, torch.get_float32_matmul_precision(), torch.backends.cuda.matmul.allow_tf32]
    except RuntimeError:  # a mix
        return found


def set_newer():
    torch.backends.cuda.matmul.fp32_precision = "tf32"


def set_tf32():
    torch.backends.cuda.matmul.allow_tf32 = True


@pytest.mark.parametrize(
    "choose",
    [
        lambda: None,
        lambda: torch.set_float32_matmul_precision("high"),
        lambda: torch.set_float32_matmul_precision("medium"),
        set_tf32,
        set_newer,
    ],
    ids=["nothing", "high", "medium", "allow_tf32", "newer"],
)
@pytest.mark.parametrize("context", [full_float32, undisturbed])
def test_products_are_exact_and_the_callers_settings_stay(choose, context):
    backends = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul
    kept = [backend.fp32_precision for backend in backends]
    try:
        choose()
        before = products()
        with context(torch.device("cuda")):
            inside = products()
            with context(torch.device("cuda")):
                assert products() == inside
            assert products() == inside
        assert products() == before
        assert inside[0] in ("ieee", "none") and inside[2:] == ["highest", False]
        assert inside[1] in ("ieee", "none")
    finally:
        torch.set_float32_matmul_precision("highest")
        for backend, value in zip(backends, kept):
            backend.fp32_precision = value
