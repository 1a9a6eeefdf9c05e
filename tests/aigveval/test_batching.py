"""The prefetcher: order, bounded reading ahead, failures, items that need no computing."""

import subprocess
import sys
import threading

import pytest

from aigveval.batching import Done, run_batches


def test_order_batches_and_failures():
    sizes = []

    def prepare(item):
        if item == 3:
            raise ValueError("three")
        return Done(-item) if item % 4 == 0 else item * 10

    def compute(batch):
        sizes.append(len(batch))
        if any(item == 5 for item, _ in batch):
            raise RuntimeError("five")
        return [prepared + 1 for _, prepared in batch]

    outcomes = list(run_batches(range(10), prepare=prepare, compute=compute, batch_size=2))
    assert [outcome.item for outcome in outcomes] == list(range(10))
    assert [outcome.result for outcome in outcomes] == [0, 11, 21, None, -4, None, 61, 71, -8, 91]
    assert [str(o.error) for o in outcomes if o.error is not None] == ["three", "five"]
    assert max(sizes) == 2 and all(outcome.seconds >= 0 for outcome in outcomes)


def test_nothing_is_computed_where_all_is_known():
    def compute(batch):
        raise AssertionError("there is nothing to compute")

    outcomes = run_batches("abc", prepare=lambda item: Done(item * 2), compute=compute)
    assert [(o.result, o.error) for o in outcomes] == [("aa", None), ("bb", None), ("cc", None)]


@pytest.mark.parametrize("batch_size, workers", [(1, 1), (3, 2)])
def test_items_are_read_a_bounded_number_ahead(batch_size, workers):
    taken, given = [], 0

    def items():
        for item in range(100):
            taken.append(item)
            assert len(taken) - given <= 2 * batch_size + workers + batch_size
            yield item

    for outcome in run_batches(
        items(),
        prepare=str,
        compute=lambda batch: [text for _, text in batch],
        batch_size=batch_size,
        workers=workers,
    ):
        assert outcome.result == str(outcome.item)
        given += 1
    assert given == 100


def test_what_the_items_raise_ends_the_run():
    def items():
        yield 1
        raise KeyError("no more")

    with pytest.raises(KeyError) as kept:  # and the pool, which else ends by itself
        list(run_batches(items(), prepare=str, compute=lambda batch: ["x"] * len(batch)))
    assert kept.value.__traceback__ is not None
    for thread in threading.enumerate():
        if thread.name.startswith("aigveval-prepare"):
            thread.join(timeout=5)
            assert not thread.is_alive()


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"workers": 0}])
def test_counts_below_one_are_refused(options):
    (name,) = options
    with pytest.raises(ValueError, match=f"^{name} must be at least 1, got 0$"):
        run_batches([], prepare=str, compute=list, **options)


def test_what_is_left_in_the_middle_says_nothing_when_python_ends():
    script = """
from aigveval.batching import run_batches
rows = run_batches(iter(int, 1), prepare=str, compute=lambda batch: ["x"] * len(batch))
next(rows)
import concurrent.futures.thread
concurrent.futures.thread.kept = rows  # as long as anything
del rows
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("count", ["2", 2.0, None])
def test_counts_are_whole_numbers(count):
    with pytest.raises(TypeError, match=f"^workers must be a whole number, got {count!r}$"):
        run_batches([], prepare=str, compute=list, workers=count)


def test_an_error_that_is_its_own_cause_is_of_its_item_alone():
    def prepare(item):
        try:
            raise ValueError(item)
        except ValueError as error:
            raise error from error  # as some libraries do

    (outcome,) = run_batches("a", prepare=prepare, compute=lambda batch: [])
    assert str(outcome.error) == "a" and outcome.error.__cause__ is outcome.error
