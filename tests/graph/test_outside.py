"""Layers and weights that are held, or only held, outside of what torch registers: lists, objects, globals."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import nasprune
from nasprune.cut.trial_plans import half_plan

pytestmark = pytest.mark.usefixtures("looked_at_anew")

X = torch.randn(1, 6)
ELSEWHERE: dict[str, nn.Module] = {}


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)


class LayersInList(Base):
    def __init__(self) -> None:
        super().__init__()
        self.layers = [self.a, {"b": self.b}]

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.layers[1]["b"](self.layers[0](x).relu()).relu())


class WeightsInList(Base):
    def __init__(self) -> None:
        super().__init__()
        self.weights = [self.a.weight, self.b.weight]

    def forward(self, x: Tensor) -> Tensor:
        return self.c(F.linear(self.a(x).relu(), self.weights[1], self.b.bias).relu())


class OnlyInList(Base):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = {"layers": [self.a], "weight": nn.Parameter(torch.randn(8, 8))}
        del self.a

    def forward(self, x: Tensor) -> Tensor:
        x = F.linear(self.hidden["layers"][0](x).relu(), self.hidden["weight"])
        return self.c(self.b(x).relu())


class ElsewhereToo(Base):
    def __init__(self) -> None:
        super().__init__()
        ELSEWHERE["a"] = self.a

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(ELSEWHERE["a"](x).relu()).relu())


@pytest.mark.parametrize("kind", [LayersInList, WeightsInList])
def test_what_a_list_holds_too_is_cut_there_as_well(kind):
    model = kind().eval()
    graph = nasprune.trace(model, X)
    assert {group.name for group in graph.free_groups} == {"a", "b"}
    plan = half_plan(graph, ["a", "b"])
    small = nasprune.build(model, graph, plan)
    assert nasprune.verify(model, small, graph, plan).ok
    if kind is LayersInList:
        assert small.layers[0] is small.a
        assert small.layers[1]["b"] is small.b
    else:
        assert small.weights[0] is small.a.weight
        assert small.weights[1] is small.b.weight


def test_what_only_a_list_holds_stays_whole_and_is_named():
    result = nasprune.search(OnlyInList().eval(), X, "75%", trials=1)
    assert list(result.plan.keep) == ["b"]
    assert set(result.graph.skipped) == {"hidden['layers'][0]", "hidden['weight']"}
    assert "once it is in an nn.ModuleList" in result.graph.skipped["hidden['layers'][0]"]
    assert "once it is in an nn.ParameterList" in result.graph.skipped["hidden['weight']"]


def test_what_is_held_where_nobody_can_cut_it_stays_whole():
    result = nasprune.search(ElsewhereToo().eval(), X, "85%", trials=1)
    assert result.report.proof.ok
    assert list(result.plan.keep) == ["b"]
