"""What tests of supernets share."""

from __future__ import annotations

import pytest

from nasprune.supernet.price import times
from tests.supernet.clocks import work


@pytest.fixture
def steady(monkeypatch):
    """Times are `work`, and none is remembered; gives how often single models were measured."""
    calls = []

    def measure(model, inputs, **options):
        calls.append(model)
        return work(model, inputs)

    monkeypatch.setattr("nasprune.cost.latency.measure_latency", measure)
    monkeypatch.setattr(
        "nasprune.cost.latency.compare_latency",
        lambda models, inputs, **options: [work(model, inputs) for model in models],
    )
    monkeypatch.setattr(times, "KNOWN", {})
    return calls
