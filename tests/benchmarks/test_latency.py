"""The benchmark of latency budgets: what its rows say, on times that are made up."""

from __future__ import annotations

from io import StringIO

import pytest
import torch
from rich.console import Console

from benchmarks import latency
from benchmarks.latency import Job, Row
from benchmarks.latency_nets import Yolo
from benchmarks.rows import Failed
from nasprune.cost.flops import measure
from nasprune.run.trace import trace
from tests.nets import EXAMPLE, TinyResNet

JOB = Job("tiny", "eager", 1, 60, 1, 5)


def test_a_row_has_the_promise_and_the_best_flops_budget_in_equal_time(monkeypatch):
    dense = measure(TinyResNet(), EXAMPLE).flops

    def milliseconds(models, inputs, **_):
        return [10 * measure(model, EXAMPLE).flops / dense for model in models]

    monkeypatch.setattr(latency, "HALVINGS", 2)
    monkeypatch.setattr(latency, "net_of", lambda name: TinyResNet().eval())
    monkeypatch.setattr(latency, "images", lambda: EXAMPLE)
    monkeypatch.setattr(latency, "compare_latency", milliseconds)
    monkeypatch.setattr("nasprune.run.stopwatch.compare_latency", milliseconds)
    monkeypatch.setattr(latency, "_in_a_fresh_process", lambda job, folder: [11.0, 6.6, 12.0, 9.0])
    row = latency.worked_at(JOB)
    assert row.reported <= 0.6
    assert row.again == pytest.approx(0.6)
    assert row.plain == pytest.approx(0.75)
    assert row.drift == pytest.approx(0.1)
    assert row.kept
    assert 0 < row.beside <= 1
    assert row.beside_flops <= row.flops + 1e-9
    assert row.times_flops == row.seconds / row.beside_seconds > 0


def test_failed_rows_stand_in_the_table():
    text = StringIO()
    row = Row(JOB, 0.59, 0.64, 0.66, 0.8, 0.5, 0.7, 0.4, 30.0, 20.0, 0.01)
    assert not row.kept
    Console(width=150, file=text).print(latency.table([row, Failed("no memory")], [JOB, JOB]))
    assert "NO" in text.getvalue()
    assert "66.0" in text.getvalue()
    assert "failed: no memory" in text.getvalue()
    assert "0 of 1 promises kept" in text.getvalue()
    assert "1.50" in text.getvalue()  # 30 seconds beside 20
    assert "1.5 times as long as one within FLOPs in 1" in " ".join(text.getvalue().split())


def test_the_detector_can_be_cut():
    graph = trace(Yolo(width=4, classes=3).eval(), torch.randn(1, 3, 32, 32))
    frozen = [group.name for group in graph.groups if group.frozen_because]
    assert all("heads" in name for name in frozen)
    assert len(graph.free_groups) > 20
