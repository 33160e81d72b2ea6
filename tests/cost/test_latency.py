"""Latency is a positive median, grows with the work, and leaves models and threads as they were."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn

from nasprune.cost.latency import compare_latency, measure_latency
from nasprune.errors import InputError


def test_more_work_takes_longer():
    small, big = nn.Linear(64, 64), nn.Sequential(*(nn.Linear(1024, 1024) for _ in range(8)))
    inputs = torch.zeros(5, 64), torch.zeros(5, 1024)
    assert 0 < measure_latency(small, inputs[0]) < measure_latency(big, inputs[1])


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
    assert calls == [("a", 7), ("b", 7)] * 5


def test_repeats_must_be_positive():
    with pytest.raises(InputError, match="at least 1, got 0"):
        measure_latency(nn.Identity(), torch.zeros(1), repeats=0)


def test_fast_models_are_measured_often_and_slow_ones_seldom():
    calls = {"fast": 0, "slow": 0}

    class Counted(nn.Module):
        def __init__(self, name, seconds):
            super().__init__()
            self.name, self.seconds = name, seconds

        def forward(self, x):
            calls[self.name] += 1
            time.sleep(self.seconds)
            return x

    compare_latency([Counted("fast", 0.0)], torch.zeros(1, 2))
    compare_latency([Counted("slow", 0.3)], torch.zeros(1, 2))
    assert calls["slow"] == 3 + 2 + 5
    assert calls["fast"] > 2 * calls["slow"]
