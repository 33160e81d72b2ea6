"""Every structural difficulty: correct by zero-versus-remove, or frozen with a reason."""

from __future__ import annotations

import pytest

from nasprune.cost.flops import CostModel, measure
from nasprune.cut.surgery import build
from nasprune.cut.trial_plans import half_plan
from nasprune.cut.tried import trial
from nasprune.cut.verify import verify
from tests.graph.structure import Structure
from tests.graph.structures import STRUCTURES, traced


@pytest.mark.parametrize("case", STRUCTURES, ids=lambda case: case.name)
def test_half_of_every_free_group_goes_and_the_outputs_stay(case: Structure) -> None:
    model, graph = traced(case).model, traced(case).graph
    assert len(graph.free_groups) == case.free, [(g.name, g.frozen_because) for g in graph.groups]
    if case.reason is not None:
        assert any(case.reason in (group.frozen_because or "") for group in graph.groups)
    plan = half_plan(graph, [group.name for group in graph.free_groups])
    small = build(model, graph, plan)
    proof = verify(model, small, graph, plan)
    assert proof.ok, trial(model, graph, plan)
    assert proof.max_error <= 1e-9
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters()) or not case.free
    assert CostModel(graph).dense == measure(model, graph.example_inputs)
