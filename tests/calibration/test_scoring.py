from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nasprune import registry
from nasprune.base import Criterion
from nasprune.calibration.scoring import WeightContext, score_all
from nasprune.errors import InputError, PluginError
from nasprune.graph.model import AxisSlice, AxisUnits, CoupledGroup
from nasprune.run.names import scorer
from nasprune.run.trace import trace
from tests.fakes import graph_of

CRITERIA = ["l1", "l2", "random", "fpgm", "bn_scale"]


class Grouped(nn.Module):
    """A residual stream, a grouped convolution, a concatenation that repeats channels, and a flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.inner = nn.Conv2d(8, 8, 3, padding=1)
        self.split = nn.Conv2d(8, 12, 3, padding=1, groups=2)
        self.join = nn.Conv2d(24, 6, 1)
        self.head = nn.Linear(6 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu()
        x = x + self.inner(x)
        x = self.split(x)
        x = self.join(torch.cat([x, x], 1))
        return self.head(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))


@pytest.fixture(scope="module")
def traced():
    torch.manual_seed(0)
    model = Grouped()
    return model, trace(model, torch.zeros(1, 3, 8, 8))


def brute_rows(model: nn.Module, graph, group: CoupledGroup, role: str) -> Iterator[Tensor]:
    """Sum of squares of each unit's slots, by plain loops over positions."""
    number = graph.groups.index(group)
    for part in group.slices:
        if part.role != role:
            continue
        tensor = dict(model.named_parameters())[part.param]
        axis = next(units for units in graph.params[part.param] if units.axis == part.axis)
        total = torch.zeros(group.width)
        parts = axis.units.shape[0]
        for p, stretch in enumerate(tensor.chunk(parts) if parts > 1 else [tensor]):
            for position, unit in enumerate(axis.units[p]):
                if unit >= 0 and graph.unit_group[unit] == number:
                    total[graph.unit_index[unit]] += stretch.select(part.axis, position).square().sum()
        yield total


@pytest.mark.parametrize("role", ["out", "in"])
def test_rows_hold_exactly_the_slots_of_each_unit(traced, role):
    model, graph = traced
    context = WeightContext(model, graph)
    seen = 0
    for group in graph.groups:
        gathered = list(context.rows(group) if role == "out" else context.columns(group))
        expected = list(brute_rows(model, graph, group, role))
        assert len(gathered) == len(expected)
        for rows, total in zip(gathered, expected, strict=True):
            assert rows.shape[0] == group.width
            torch.testing.assert_close(rows.square().sum(1), total)
            seen += 1
    assert seen >= 4


def test_scales_are_the_batch_norm_weights_alone(traced):
    model, graph = traced
    found = {group.name: list(WeightContext(model, graph).scales(group)) for group in graph.groups}
    stem = next(group for group in graph.groups if group.name == "stem")
    assert [rows.shape for rows in found["stem"]] == [(stem.width, 1)]
    assert sum(map(len, found.values())) == 1


def test_units_with_fewer_positions_are_filled_up_with_zeros():
    units = np.array([[0, 1, 0, 2, 0, -1]])
    group = CoupledGroup("g", 4, (AxisSlice("weight", 0, "out", 5),), ((0, 1, 2, 3),), 1)
    fields = {"params": {"weight": (AxisUnits(0, units),)}}
    graph = graph_of([group], **fields)
    model = nn.Linear(2, 6)
    (rows,) = WeightContext(model, graph).rows(group)
    weight = model.weight.detach()
    expected = torch.zeros(4, 6)
    expected[0] = torch.cat([weight[0], weight[2], weight[4]])
    expected[1, :2], expected[2, :2] = weight[1], weight[3]
    torch.testing.assert_close(rows, expected)


@pytest.mark.parametrize("name", CRITERIA)
def test_scores_fit_the_groups_and_depend_on_the_seed_alone(traced, name):
    model, graph = traced
    criterion = registry.load("criteria", name)()
    random.seed(1)
    first = score_all(graph, criterion, WeightContext(model, graph, seed=4))
    second = score_all(graph, criterion, WeightContext(model, graph, seed=4))
    assert set(first) == {group.name for group in graph.free_groups}
    for group in graph.free_groups:
        assert first[group.name].shape == (group.width,)
        torch.testing.assert_close(first[group.name], second[group.name], rtol=0, atol=0)


def test_norms_by_formula(traced):
    model, graph = traced
    context = WeightContext(model, graph)
    stem = next(group for group in graph.groups if group.name == "stem")
    producers = [model.stem.weight.detach(), model.inner.weight.detach()]
    norms = torch.stack([weight.flatten(1).norm(dim=1) for weight in producers])
    l2 = registry.load("criteria", "l2")
    torch.testing.assert_close(l2().score(stem, context), norms.sum(0))
    for reduce, expected in (("sum", norms.sum(0)), ("mean", norms.mean(0)), ("max", norms.amax(0))):
        context = WeightContext(model, graph, reduce=reduce)
        torch.testing.assert_close(l2().score(stem, context), expected)
    with pytest.raises(InputError, match="sum, mean, max"):
        scorer("l2(reduce=median)")


def test_fpgm_drops_the_filter_at_the_geometric_median():
    weight = torch.tensor([[0.0, 0.0], [4.0, 0.0], [-4.0, 0.0], [0.0, 4.0], [0.0, -4.0]])
    model = nn.Linear(2, 5)
    model.weight.data = weight
    group = CoupledGroup("g", 5, (AxisSlice("weight", 0, "out", 5),), ((0, 1, 2, 3, 4),), 1)
    graph = graph_of([group], params={"weight": (AxisUnits(0, np.arange(5)[None]),)})
    scores = registry.load("criteria", "fpgm")().score(group, WeightContext(model, graph))
    distances = torch.cdist(weight, weight).sum(1)
    torch.testing.assert_close(scores.float(), distances)
    assert int(scores.argmin()) == 0


class Bad(Criterion):
    def __init__(self, answer: object) -> None:
        self._answer = answer

    def score(self, group, context):
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (torch.zeros(3), r"expected scores of shape \(8,\), got \(3,\)"),
        ([0.0] * 8, "got list"),
        (torch.full((8,), float("nan")), "expected finite scores, got 8"),
        (KeyError("oops"), "failed: KeyError: 'oops'"),
    ],
)
def test_a_criterion_that_breaks_its_contract_is_named(traced, answer, message):
    model, graph = traced
    with pytest.raises(PluginError, match=f"`Bad` on group 'stem'.*{message}"):
        score_all(graph, Bad(answer), WeightContext(model, graph))
