"""The proof must accept right cuts, refuse wrong ones, and find what is at fault."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nasprune.cost.flops import CostModel, measure
from nasprune.cut.compare import compare
from nasprune.cut.plan import PrunePlan
from nasprune.cut.proof import AS_CUT, STRUCTURE
from nasprune.cut.stirred import distinct
from nasprune.cut.surgery import build
from nasprune.cut.trial_plans import half_plan
from nasprune.cut.tried import bisect
from nasprune.cut.verify import prove, verify
from nasprune.errors import PlanError
from nasprune.run.trace import trace
from nasprune.testing import SampleNet

INPUT = (1, 3, 8, 8)


@pytest.fixture
def case() -> tuple:
    torch.manual_seed(0)
    model = SampleNet().eval()
    graph = trace(model, torch.randn(INPUT))
    plan = half_plan(graph, [g.name for g in graph.free_groups], [graph.free_blocks[0].name])
    return model, graph, plan


def test_a_right_cut_is_proved(case: tuple) -> None:
    model, graph, plan = case
    small = build(model, graph, plan)
    proof = verify(model, small, graph, plan)
    assert proof.ok
    assert proof.max_error <= 1e-12
    assert proof.dtype == "float64"
    assert proof.compares == AS_CUT
    assert proof.flops == proof.predicted_flops == measure(small, torch.randn(INPUT)).flops


@pytest.mark.parametrize("change", ["weight", "channel", "statistics"])
def test_other_weights_are_told(case: tuple, change: str) -> None:
    model, graph, plan = case
    small = build(model, graph, plan)
    weight = small.get_submodule("stem").weight
    with torch.no_grad():
        if change == "weight":
            weight[0, 0, 0, 0] += 1e-3
        elif change == "channel":
            weight.copy_(weight.flip(0))
        else:
            small.get_submodule("norm").running_mean[0] += 1e-3
    assert not compare(model, small, graph, plan).ok
    proof = verify(model, small, graph, plan)
    assert proof.ok
    assert proof.compares == STRUCTURE


def test_the_reference_is_the_dense_model_where_nothing_is_cut(case: tuple) -> None:
    model, graph, _ = case
    assert compare(model, model, graph, PrunePlan(graph.signature)).error <= 1e-15


def test_the_reference_is_the_hand_masked_dense_model(case: tuple) -> None:
    """Second route: consumers' slices set to zero by hand in the user's own model, run by PyTorch itself."""
    model, graph, _ = case
    plan = half_plan(graph, [group.name for group in graph.free_groups])
    masked = distinct(model).double()
    small = build(distinct(model), graph, plan).double()
    keep = graph.unit_mask(plan.keep)
    consumed = {(part.param, part.axis) for group in graph.groups for part in group.slices if part.role == "in"}
    with torch.no_grad():
        for name, axes in graph.params.items():
            weight = masked.get_parameter(name) if (name, 1) in consumed else None
            for axis in axes:
                if weight is not None and axis.axis == 1:
                    gone = torch.from_numpy(~axis.positions(keep))
                    rows = weight.shape[0] // len(gone)
                    weight[gone.repeat_interleave(rows, 0).expand(weight.shape[:2])] = 0
        x = torch.randn(2, *INPUT[1:], dtype=torch.float64)
        assert torch.allclose(masked(x), small(x), rtol=0, atol=1e-12)


class Baked(nn.Module):
    """The second stage multiplies by a number that the first cut makes wrong, without any error at run time."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 6, 1)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.a(x)).relu()
        return self.head(self.c(x * x.shape[1]).mean((2, 3)))


def test_a_group_that_fails_is_found_left_whole_and_named() -> None:
    torch.manual_seed(0)
    model = Baked().eval()
    graph = trace(model, torch.randn(INPUT))
    proven = prove(model, graph, half_plan(graph, [group.name for group in graph.free_groups]))
    assert list(proven.proof.frozen) == ["b"]
    assert "differ" in proven.proof.frozen["b"]
    assert sorted(proven.plan.keep) == ["a", "c"]
    assert proven.model.b.out_channels == 8
    assert proven.proof.ok


def test_bisection_finds_all_that_fail() -> None:
    bad = {"c", "f", "g"}
    tried = []

    def reason(names: list[str]) -> str:
        tried.append(names)
        return "bad" if bad & set(names) else ""

    assert set(bisect(list("abcdefgh"), reason)) == bad
    assert len(tried) < 20


def test_bisection_gives_up_what_fails_only_together() -> None:
    assert set(bisect(["a", "b", "c"], lambda names: "bad" if {"a", "c"} <= set(names) else "")) >= {"a", "c"}


def test_constant_tensors_become_distinct() -> None:
    twin = distinct(SampleNet())
    assert all(value.std() > 0 for name, value in twin.named_parameters() if value.numel() > 1)


def test_prediction_of_a_plan_counts_blocks(case: tuple) -> None:
    _, graph, plan = case
    without = CostModel(graph).costs([PrunePlan(plan.signature, plan.keep).counts])[0]
    assert CostModel(graph).costs([plan.counts])[0].flops < without.flops


def test_a_plan_of_another_model_is_refused_at_the_first_difference(case: tuple) -> None:
    model, graph, plan = case
    other = SampleNet()
    other.head = nn.Linear(24, 7)
    with pytest.raises(PlanError, match=r"'head.weight' has shape \[4, 24\], this model has \[7, 24\]"):
        build(other, graph, plan)
    del model
