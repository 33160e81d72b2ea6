"""Times of layers: measured at widths, fitted, kept on disk, and added up exactly for any decision."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from nasprune.cost import time_cache, times
from nasprune.cost.flops import CostModel
from nasprune.cost.runtimes import Runtime
from nasprune.cost.timed_layers import Layer, layer_of
from nasprune.cost.times import Fit, Table, Times, fitted, times_of
from nasprune.cut.surgery import build
from nasprune.cut.trial_plans import half_plan
from nasprune.deploy.runtimes import runtime_of
from nasprune.run.trace import trace
from nasprune.testing import SampleNet
from tests.refit.nets import INPUT

POSITIVE = st.floats(0, 1e6)


@given(POSITIVE, POSITIVE, POSITIVE, POSITIVE)
def test_a_time_that_has_the_form_is_found(constant: float, read: float, made: float, both: float) -> None:
    grid = [(a, b) for a in times.GRID for b in times.GRID]
    values = [constant + read * a + made * b + both * a * b for a, b in grid]
    fit = fitted(grid, values)
    found = [fit.constant + fit.read * a + fit.made * b + fit.both * a * b for a, b in grid]
    assert np.allclose(found, np.maximum(values, 1.0), rtol=1e-3, atol=1.0)
    assert min(vars(fit).values()) >= 0


class Kinds(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.deep = nn.Conv2d(3, 8, 3, padding=1, stride=2), nn.Conv2d(8, 8, 3, groups=8, padding="same")
        self.grouped, self.line = nn.Conv2d(8, 16, 1, groups=2, bias=False), nn.Conv1d(16, 4, 3, dilation=2)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.grouped(self.deep(self.first(x))).flatten(2)
        return self.head(self.line(x).mean(2))


@pytest.mark.parametrize("runtime", ["eager", "onnxruntime"])
def test_every_kind_of_layer_runs_at_every_share_of_its_widths(runtime: str) -> None:
    if runtime == "onnxruntime":
        pytest.importorskip("onnxruntime")
    by = runtime_of(runtime)
    graph = trace(Kinds().eval(), torch.randn(1, 3, 8, 8))
    layers = [layer for node in graph.program.live if (layer := layer_of(node, 2)) is not None]
    assert [layer.operator for layer in layers] == ["conv2d", "conv2d", "conv2d", "conv1d", "linear"]
    shapes = [
        [
            _first(by.layer(layer.at(read, made), torch.device("cpu"))()).shape[:2]
            for read, made in ((1, 1), (0.5, 0.25))
        ]
        for layer in layers
    ]
    assert shapes == [
        [(2, 8), (2, 2)],
        [(2, 8), (2, 2)],
        [(2, 16), (2, 4)],
        [(2, 4), (2, 1)],
        [(2, 5), (2, 1)],
    ]


def _first(found: object) -> Tensor:
    return torch.as_tensor(found[0] if isinstance(found, list) else found)


@given(st.floats(1, 1e6), st.lists(POSITIVE, min_size=1, max_size=3), st.floats(1, 1e6), st.booleans())
def test_times_add_up_to_what_the_whole_takes(whole: float, layers: list[float], others: float, fused: bool) -> None:
    found = Times({str(n): Fit(1.0, 0.0, 0.0, value) for n, value in enumerate(layers)}, {"other": others})
    filled = found.filling(whole, fused=fused)
    assert filled.dense == pytest.approx(whole)
    measured = sum(fit.dense for fit in found.layers.values())
    if fused and measured <= (1 - times.OTHERS) * whole:
        assert filled.layers["0"].dense == pytest.approx(found.layers["0"].dense)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Layers take what their sizes say, and are not run."""
    asked: list[str] = []

    def fake(layer: Layer, device: torch.device, runtime: Runtime) -> Fit:
        asked.append(layer.key)
        return Fit(10.0, 3.0, 5.0, float(np.prod(layer.weight)))

    monkeypatch.setattr(times, "measured", fake)
    return asked


def test_predictions_are_sums_over_the_calls_of_the_built_network(measured: list[str]) -> None:
    model = SampleNet().eval()
    graph = trace(model, torch.randn(INPUT))
    found, _ = times_of(model, graph)
    found = Times(found.layers, dict.fromkeys(found.others, 100.0))
    prices = CostModel(graph, found)
    assert prices.dense.nanoseconds == pytest.approx(found.dense, abs=1)
    plan = half_plan(graph, [group.name for group in graph.free_groups])
    kept = {name: len(units) for name, units in plan.keep.items()}
    small = build(model, graph, plan)
    expected = 0.0
    sizes = _output_sizes(small, graph.example_inputs.tensors[0])
    dense_sizes = _output_sizes(model, graph.example_inputs.tensors[0])
    for node in graph.program.live:
        path = graph.program.owner(node)
        if node.name in found.layers:
            layer, before = small.get_submodule(path), model.get_submodule(path)
            made, read = (layer.weight.shape[axis] / before.weight.shape[axis] for axis in (0, 1))
            fit = found.layers[node.name]
            expected += fit.constant + fit.read * read + fit.made * made + fit.both * read * made
        elif path in sizes and node.name in found.others:
            expected += 100.0 * sizes[path] / dense_sizes[path]
    others = [n for n in graph.program.live if n.name in found.others and graph.program.owner(n) not in sizes]
    assert expected <= prices.costs([kept])[0].nanoseconds <= expected + 100.0 * len(others) + 1


def _output_sizes(model: nn.Module, x: Tensor) -> dict[str, int]:
    sizes: dict[str, int] = {}
    norms = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]
    handles = [
        module.register_forward_hook(lambda _, __, out, name=name: sizes.__setitem__(name, out.numel()))
        for name, module in norms
    ]
    with torch.no_grad():
        model.eval()(x)
    for handle in handles:
        handle.remove()
    return sizes


def test_known_layers_are_not_measured_again(measured: list[str]) -> None:
    model = SampleNet().eval()
    graph = trace(model, torch.randn(INPUT))
    _, table = times_of(model, graph)
    assert len(measured) == len(set(measured)) == len(table.layers)
    times_of(model, graph, known=table)
    assert len(measured) == len(table.layers)
    times_of(model, graph, known=table, batch=2)
    assert len(measured) == 2 * len(table.layers)


def test_a_network_whose_calls_are_all_known_is_not_run(measured: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    model = SampleNet().eval()
    graph = trace(model, torch.randn(INPUT))
    times_before, table = times_of(model, graph)
    assert len(table.calls) < len(times_before.others)  # calls of one kind and shape share their time
    runs: list[object] = []
    clock = times.call_seconds
    monkeypatch.setattr(times, "call_seconds", lambda *given: runs.append(given) or clock(*given))
    again, same = times_of(model, graph, known=table)
    assert (again, same, runs) == (times_before, table, [])
    times_of(model, trace(model, torch.randn(*INPUT[:-2], 2 * INPUT[-2], 2 * INPUT[-1])), known=table)
    assert len(runs) == 1


def test_times_are_kept_by_device_and_damage_is_measured_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NASPRUNE_CACHE", str(tmp_path / "cache"))
    fits = Table({"a layer": Fit(1.0, 2.0, 3.0, 4.0)}, {"a call": 5.0})
    assert time_cache.known_times("a cpu") == Table()
    time_cache.keep_times("a cpu", fits)
    time_cache.keep_times("another", Table({"b": Fit(0.0, 0.0, 0.0, 1.0)}))
    assert time_cache.known_times("a cpu") == fits
    file = tmp_path / "cache" / time_cache.FILE
    rng = random.Random(0)
    for damage in ("{", "[]", '{"a cpu": 3}', '{"a cpu": {"x": [1, 2, 3]}}', '{"a cpu": {"x": [1, 2, 3, NaN]}}'):
        file.write_text(damage)
        assert time_cache.known_times("a cpu") == Table()
    file.write_bytes(rng.randbytes(100))
    time_cache.keep_times("a cpu", fits)
    assert list(json.loads(file.read_text())) == ["a cpu"]


def test_where_nothing_can_be_kept_it_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NASPRUNE_CACHE", str(tmp_path / "file"))
    time_cache.keep_times("a cpu", Table({"a layer": Fit(1.0, 2.0, 3.0, 4.0)}))
    assert "measured times are not kept" in caplog.text
