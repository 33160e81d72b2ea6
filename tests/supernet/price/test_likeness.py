"""What costs the same is counted once, and only what is understood throughout is remembered for good."""

from __future__ import annotations

import pytest
from torch import nn

from nasprune.supernet.price import likeness
from nasprune.supernet.price.counting import count_module
from nasprune.supernet.price.likeness import count_once


@pytest.fixture
def counted(monkeypatch):
    """The modules that were counted indeed."""
    found = []

    def counting(module, shape):
        found.append(module)
        return count_module(module, shape)

    monkeypatch.setattr(likeness, "KNOWN", {})
    monkeypatch.setattr(likeness, "count_module", counting)
    return found


class Picky(nn.Conv2d):
    """Holds something that nobody understands."""

    def __init__(self) -> None:
        super().__init__(3, 4, 3)
        self.what = object()


def test_what_is_alike_is_counted_once(counted):
    first, second, other = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3, stride=2)
    double = nn.Conv2d(3, 4, 3).double()
    for module, shape in ((first, 8), (second, 8), (other, 8), (second, 9), (double, 8)):
        assert count_once(module, (1, 3, shape, shape)) == count_module(module, (1, 3, shape, shape))
    assert counted == [first, other, second, double]


def test_what_is_not_understood_is_remembered_by_the_caller_only(counted):
    module, known = Picky(), {}
    for _ in range(2):
        count_once(module, (1, 3, 8, 8), known)
    assert counted == [module]
    count_once(module, (1, 3, 8, 8))
    assert counted == [module, module]
    assert (len(known), len(likeness.KNOWN)) == (1, 0)


def test_memory_is_limited(counted, monkeypatch):
    monkeypatch.setattr(likeness, "AT_MOST", 2)
    for channels in (1, 2, 3):
        count_once(nn.Linear(channels, 1), (1, channels))
    assert len(likeness.KNOWN) == 2
    count_once(nn.Linear(3, 1), (1, 3))
    assert len(counted) == 3
