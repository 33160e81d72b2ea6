"""Tests that do not depend on how busy the machine is: one thread, no deadlines.

The nets are tiny, and threads that wait for each other on a busy machine take most of the time.
"""

from __future__ import annotations

import importlib
import os
from copy import copy
from functools import cache, partial

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported, here and in sub-processes

import pytest
import torch
from hypothesis import HealthCheck, settings

from nasprune.supernet.report import comparison
from tests.kept import Kept

torch.set_num_threads(1)

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture(scope="session", autouse=True)
def _equal_nets_are_looked_at_once():
    """See `kept`."""
    with pytest.MonkeyPatch.context() as patch:
        for name, copied in (("graph.analysis.capture", lambda found: found), ("cost.flops.traced_counts", copy)):
            module, _, function = f"nasprune.{name}".rpartition(".")
            patch.setattr(f"nasprune.{name}", Kept(getattr(importlib.import_module(module), function), copied))
        yield


@pytest.fixture
def looked_at_anew(monkeypatch):
    """Every net is looked at, whether or not an equal one was, for tests of what that does to the net."""
    from nasprune.cost.traced import traced_counts
    from nasprune.graph.capture import capture

    monkeypatch.setattr("nasprune.graph.analysis.capture", capture)
    monkeypatch.setattr("nasprune.cost.flops.traced_counts", traced_counts)


@pytest.fixture(scope="session", autouse=True)
def _few_timed_passes():
    """Searches measure latencies by a few passes, as no test looks at the numbers; `cost/test_latency` has its own."""
    from nasprune.cost.latency import compare_latency

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nasprune.run.search.compare_latency", partial(compare_latency, repeats=2))
        yield


@cache
def _fewer(images: int):
    """scikit-learn's digits, the first of them; read once."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return type(bunch)(images=bunch.images[:images], target=bunch.target[:images])


@pytest.fixture
def few_digits(monkeypatch):
    """The data set `digits` has 600 images instead of 1,797, for tests of what is done with data, whatever it is."""
    few = _fewer(600)
    monkeypatch.setattr("sklearn.datasets.load_digits", lambda: few)


@pytest.fixture
def one_draw(monkeypatch):
    """Reports of trims draw the baseline `random` once, to save time; tests of reports see what several give."""
    monkeypatch.setattr(comparison, "DRAWS", 1)
