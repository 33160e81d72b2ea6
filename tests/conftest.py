"""Tests that do not depend on how busy the machine is: one thread, no deadlines.

The nets are tiny, and threads that wait for each other on a busy machine take most of the time.
"""

from __future__ import annotations

import gc
import os
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import replace
from functools import cache, partial
from threading import RLock

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported, here and in sub-processes

import pytest
import sklearn.datasets
import torch
from hypothesis import HealthCheck, settings

from nasprune import registry
from nasprune.common.alone import _LOCKS, alone
from nasprune.cost.traced import traced_counts
from nasprune.graph.capture import capture
from nasprune.run.trace import traced
from nasprune.supernet.report import comparison, discrete
from tests.kept import Kept

torch.set_num_threads(1)
torch.cuda.device_count = cache(torch.cuda.device_count)  # asked at every operation of a trace, and slow without a GPU
gc.set_threshold(20_000, 10, 20)  # nets are many objects: by default a tenth of the time goes into looking for circles

READERS = ("nasprune.graph.analysis", "nasprune.refit.layer_by_layer", "nasprune.cost.traced")
"""Files that capture nets."""
LOAD_DIGITS = sklearn.datasets.load_digits

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """Every test begins with the same random numbers, whatever ran before: it finds the same always, and equal nets."""
    torch.manual_seed(0)


def _apart(function):
    """In a thread: a trace writes down all callers of every operation, and a test has sixty of them."""

    def called(model, inputs):
        with alone(), pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(1) as thread:
            patch.setitem(_LOCKS, os.getpid(), RLock())  # what this thread has for itself, that one may use
            return thread.submit(function, model, inputs).result()

    return called


def _look_by(patch, capturing, counting, tracing):
    for reader in READERS:
        patch.setattr(f"{reader}.capture", capturing)
    patch.setattr("nasprune.cost.flops.traced_counts", counting)

    def look(net, x, scope, rules):
        return replace(tracing(net, x, scope, tuple(rules)), whole_call=x)

    patch.setattr("nasprune.run.trace.traced", look)


@pytest.fixture(scope="session", autouse=True)
def _equal_nets_are_looked_at_once():
    """See `kept`."""
    with pytest.MonkeyPatch.context() as patch:
        _look_by(patch, Kept(_apart(capture)), Kept(_apart(traced_counts), copy), Kept(traced))
        yield


@pytest.fixture
def looked_at_anew(monkeypatch):
    """Every net is looked at, whether or not an equal one was, for tests of what that does to the net."""
    _look_by(monkeypatch, capture, traced_counts, traced)


@pytest.fixture
def looked_at_once(monkeypatch):
    """As `looked_at_anew`, the first time in a test."""
    _look_by(monkeypatch, Kept(_apart(capture)), Kept(_apart(traced_counts), copy), Kept(traced))


@pytest.fixture(scope="session", autouse=True)
def _few_timed_passes():
    """Searches measure latencies by a few passes, as no test looks at the numbers; `cost/test_latency` has its own."""
    from nasprune.cost.latency import compare_latency

    with pytest.MonkeyPatch.context() as patch:
        for story in ("nasprune.run.stopwatch", "nasprune.strategies.prune"):
            patch.setattr(f"{story}.compare_latency", partial(compare_latency, repeats=2))
        yield


@cache
def _fewer(images: int):
    """scikit-learn's digits, the first of them; read once."""
    bunch = LOAD_DIGITS()
    return type(bunch)(images=bunch.images[:images], target=bunch.target[:images])


@pytest.fixture
def few_digits(monkeypatch):
    """The data set `digits` has 400 images instead of 1,797, for tests of what is done with data, whatever it is."""
    monkeypatch.setattr("sklearn.datasets.load_digits", partial(_fewer, 400))


@pytest.fixture(scope="module")
def few_digits_for_all():
    """`few_digits` for all tests of a file, and for what they share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sklearn.datasets.load_digits", partial(_fewer, 400))
        yield


@pytest.fixture
def few_paths(monkeypatch):
    """The scorer `paths` draws 20 of them instead of hundreds, for tests of what is done with scores."""
    monkeypatch.setitem(registry.load("op_scorers", "paths").__init__.__kwdefaults__, "paths", 20)


@pytest.fixture
def one_draw(monkeypatch):
    """Reports draw the baseline `random` once, to save time; tests of reports see what several draws give."""
    monkeypatch.setattr(comparison, "DRAWS", 1)
    monkeypatch.setattr(discrete, "BASELINES", dict.fromkeys(discrete.BASELINES, 1))
