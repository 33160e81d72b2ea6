"""`memory_reused`: freed memory stays with the process inside, and goes back at the end."""

from __future__ import annotations

import resource
import sys
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from nasprune.common import allocation
from nasprune.common.allocation import KEPT, USUAL, give_back, memory_reused
from nasprune.cost.latency import measure_latency

LARGE = 16 * 2**20  # numbers, 64 MiB: above what glibc maps anew

pytestmark = pytest.mark.skipif(allocation._glibc() is None, reason="needs glibc, of which the memory is asked for")


def faults_of(passes: int) -> int:
    """Pages that the kernel had to give while a large tensor was made and freed again and again."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(passes):
        torch.ones(LARGE)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def held() -> int:
    """Bytes of the process in memory."""
    with open("/proc/self/statm") as found:
        return int(found.read().split()[1]) * resource.getpagesize()


def test_a_large_tensor_takes_the_pages_of_the_one_before() -> None:
    anew = faults_of(8)
    with memory_reused():
        faults_of(2)
        again = faults_of(8)
    assert again < anew / 4


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_goes_back_at_the_end() -> None:
    before = held()
    with memory_reused():
        torch.ones(4 * LARGE)
        assert held() - before > 2 * LARGE * 4
    assert held() - before < LARGE * 4


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_goes_back_between_two_steps_where_much_is_free() -> None:
    with memory_reused():
        torch.ones(4 * LARGE)
        before = held()
        give_back(least=2**40)
        assert held() > before - LARGE
        give_back(least=LARGE)
        assert held() < before - 2 * LARGE * 4


def test_an_older_glibc_gives_memory_back_without_saying_how_much(monkeypatch: pytest.MonkeyPatch) -> None:
    class Older:
        calls: ClassVar[list[int]] = []

        def malloc_trim(self, pad: int) -> None:
            self.calls.append(pad)

    monkeypatch.setattr(allocation, "_glibc", Older)
    give_back(least=2**30)
    assert Older.calls == [0]


def test_only_the_outermost_sets_and_restores(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[int, int]] = []
    monkeypatch.setattr(allocation, "_set", told.append)

    @memory_reused()
    def inner() -> None:
        assert told == [KEPT]

    with memory_reused():
        inner()
        inner()
    with pytest.raises(KeyError), memory_reused():
        raise KeyError
    assert told == [KEPT, USUAL, KEPT, USUAL]


def test_latencies_are_measured_with_memory_that_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setattr(allocation, "_set", told.append)

    class Net(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            told.append("run")
            return images

    measure_latency(Net(), torch.ones(1), repeats=1)
    assert (told[0], told[1], told[-1]) == (KEPT, "run", USUAL)


def test_without_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocation, "_glibc", lambda: None)
    with memory_reused():
        assert torch.ones(3).sum() == 3
