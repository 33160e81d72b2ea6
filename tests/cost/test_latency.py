"""Latency is a median of passes that take turns, others relative to the first; models and threads are left as found."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nasprune.cost.latency import compare_latency, measure_latency
from nasprune.errors import InputError


class Clock:
    """Stands in for `time`; it stands still but where a net of `takes` runs."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("nasprune.cost.latency.time", clock)
    return clock


def takes(clock, *seconds):
    """A net whose passes take the given seconds in turn, the last of them for ever, and the list of its passes."""
    passes = []

    class Takes(nn.Module):
        def forward(self, x):
            clock.now += seconds[min(len(passes), len(seconds) - 1)]
            passes.append(x)
            return x

    return Takes(), passes


def test_it_is_the_median_in_milliseconds_without_the_first_passes(clock):
    small, _ = takes(clock, 9.0, 9.0, 0.002, 0.5, 0.001)
    big, _ = takes(clock, 0.25)
    assert compare_latency([small, big], torch.zeros(5, 64), repeats=3) == pytest.approx([2.0, 250.0])


def test_real_passes_take_time():
    assert measure_latency(nn.Linear(64, 64), torch.zeros(5, 64), repeats=1) > 0


def test_models_and_threads_are_left_as_found():
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout()).train()
    before = torch.get_num_threads()
    times = compare_latency([model, model], torch.zeros(1, 4), repeats=3, threads=1)
    assert len(times) == 2
    assert model.training
    assert model[1].training
    assert torch.get_num_threads() == before


def test_models_take_turns_on_the_inputs_as_they_are():
    calls = []

    class Spy(nn.Module):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def forward(self, x):
            calls.append((self.name, len(x)))
            return x

    compare_latency([Spy("a"), Spy("b")], torch.zeros(7, 2), repeats=3)
    assert calls == [*[("a", 7), ("b", 7), ("b", 7), ("a", 7)] * 2, ("a", 7), ("b", 7)]


def test_repeats_must_be_positive():
    with pytest.raises(InputError, match="at least 1, got 0"):
        measure_latency(nn.Identity(), torch.zeros(1), repeats=0)


def test_fast_models_are_measured_often_and_slow_ones_seldom(clock):
    fast, often = takes(clock, 0.001)
    slow, seldom = takes(clock, 0.3)
    compare_latency([fast], torch.zeros(1, 2))
    compare_latency([slow], torch.zeros(1, 2))
    assert len(seldom) == 3 + 2 + 5
    assert len(often) == 3 + 5 + 50


def test_a_machine_whose_speed_changes_from_turn_to_turn_gives_the_same_ratio(clock):
    speeds = [1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0]
    big, _ = takes(clock, *(0.02 * speed for speed in speeds))
    small, _ = takes(clock, *(0.01 * speed for speed in [*speeds[:6], 1.0]))  # interrupted once
    dense, cut = compare_latency([big, small], torch.zeros(1, 2), repeats=5)
    assert cut / dense == pytest.approx(0.5)


def test_measuring_ends_when_it_is_enough(clock):
    net, passes = takes(clock, 0.01)
    asked = []

    def enough(times):
        asked.append([len(each) for each in times])
        return len(asked) == 3

    compare_latency([net, net], torch.zeros(1, 2), enough=enough)
    assert asked == [[5, 5], [6, 6], [7, 7]]
    assert len(passes) == 2 * (1 + 7)  # the first turn warms up


def test_measuring_that_is_never_enough_ends_with_the_time(clock):
    net, passes = takes(clock, 0.1)
    compare_latency([net], torch.zeros(1, 2), enough=lambda times: False, seconds=0.95)
    assert len(passes) == 1 + 10
    slow, few = takes(clock, 9.0)
    compare_latency([slow], torch.zeros(1, 2), enough=lambda times: False, seconds=0.95)
    assert len(few) == 1 + 3
    fast, most = takes(clock, 1e-6)
    compare_latency([fast], torch.zeros(1, 2), enough=lambda times: False, seconds=0.95)
    assert len(most) == 1 + 50
