"""Predicted costs against fvcore on built models, for random decisions of nets with every kind of size."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from fvcore.nn import ActivationCountAnalysis, FlopCountAnalysis

import nasprune
from nasprune.cost.flops import CostModel, measure
from nasprune.cut.plan import PrunePlan
from nasprune.cut.surgery import build
from nasprune.errors import PlanError
from nasprune.graph.model import CoupledGroup
from nasprune.run.trace import trace
from nasprune.testing import SampleNet
from tests.graph.structure import Structure
from tests.graph.structures import STRUCTURES, traced


def random_keep(group: CoupledGroup, rng: random.Random) -> tuple[int, ...]:
    share = rng.randint(1, group.width // group.multiple_of)
    steps = group.width // group.multiple_of
    return tuple(sorted(u for cell in group.partitions for u in rng.sample(cell, len(cell) // steps * share)))


@pytest.mark.parametrize("case", STRUCTURES, ids=lambda case: case.name)
def test_prediction_equals_fvcore_on_the_built_model(case: Structure) -> None:
    rng = random.Random(case.name)
    model, graph = traced(case).model, traced(case).graph
    prices = CostModel(graph)
    for _ in range(3):
        chosen = [group for group in graph.free_groups if rng.random() < 0.7]
        dropped = sorted(block.name for block in graph.free_blocks if rng.random() < 0.5)
        plan = PrunePlan(graph.signature, {group.name: random_keep(group, rng) for group in chosen}, tuple(dropped))
        small = build(model, graph, plan)
        assert prices.costs([plan.counts])[0] == measure(small, graph.example_inputs)


def test_measure_is_plain_fvcore() -> None:
    model, inputs = SampleNet().eval(), torch.randn(1, 3, 8, 8)
    cost = measure(model, inputs)
    assert cost.flops == FlopCountAnalysis(model, inputs).total()
    assert cost.activations == ActivationCountAnalysis(model, inputs).total()
    assert cost.params == sum(value.numel() for value in model.parameters())


def test_one_convolution_by_hand() -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 6, 3, padding=1, bias=False), torch.nn.Conv2d(6, 4, 1, bias=False))
    graph = trace(net, torch.randn(1, 3, 5, 5))
    kept = 4
    assert nasprune.predict(graph, {"0": kept}).flops == 25 * (kept * 3 * 9 + 4 * kept)
    assert nasprune.predict(graph, {"0": kept}).params == kept * 27 + 4 * kept
    assert nasprune.predict(graph, {"0": kept}).activations == 25 * (kept + 4)


def test_a_network_that_costs_the_same_whatever_is_cut_has_a_price() -> None:
    graph = trace(torch.nn.LSTM(3, 4, batch_first=True).eval(), torch.randn(1, 5, 3))
    assert nasprune.predict(graph, {}).flops == 5 * 4 * 4 * (3 + 4)


def test_many_decisions_cost_what_each_costs() -> None:
    graph = trace(SampleNet().eval(), torch.randn(1, 3, 8, 8))
    rng = random.Random(0)
    decisions = [
        {g.name: g.multiple_of * rng.randint(1, g.width // g.multiple_of) for g in graph.free_groups}
        | {b.name: rng.randint(0, 1) for b in graph.free_blocks}
        for _ in range(50)
    ]
    table = nasprune.predict(graph, decisions)
    assert table.flops.dtype == np.int64
    assert [table[i] for i in range(50)] == [nasprune.predict(graph, decision) for decision in decisions]


def test_a_name_that_is_no_choice_is_refused() -> None:
    graph = trace(SampleNet().eval(), torch.randn(1, 3, 8, 8))
    with pytest.raises(PlanError, match="no group or block 'nonsense'"):
        nasprune.predict(graph, {"nonsense": 1})


@pytest.mark.usefixtures("looked_at_anew")
def test_measuring_leaves_the_model_as_it_was() -> None:
    model = SampleNet().train()
    hooks = [len(module._forward_hooks) for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    measure(model, torch.randn(1, 3, 8, 8))
    assert model.training
    assert [len(module._forward_hooks) for module in model.modules()] == hooks
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
