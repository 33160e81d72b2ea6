"""Tests that do not depend on how busy the machine is: one thread, no deadlines.

The nets are tiny, and threads that wait for each other on a busy machine take most of the time.
"""

from __future__ import annotations

import os
from functools import cache

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported, here and in sub-processes

import pytest
import torch
from hypothesis import HealthCheck, settings

from nasprune.supernet.report import comparison

torch.set_num_threads(1)

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


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
