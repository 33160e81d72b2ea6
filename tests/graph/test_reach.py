"""Free where the meaning is clear: random cuts of each group, alone and together, and a training step afterwards."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import weight_norm

from nasprune.cut.plan import PrunePlan
from nasprune.cut.selection import best_units
from nasprune.cut.stirred import distinct
from nasprune.cut.surgery import build
from nasprune.cut.trial_plans import half_plan
from nasprune.cut.tried import trial
from nasprune.cut.verify import verify
from nasprune.graph.model import ModelGraph
from nasprune.run.trace import trace
from tests.graph.attention import ATTENTION
from tests.graph.reach import REACH, TOKENS
from tests.graph.scattered import SCATTERED
from tests.graph.structure import Structure


@pytest.mark.parametrize("case", [*REACH, *ATTENTION, *SCATTERED], ids=lambda case: case.name)
def test_every_free_group_can_be_cut_to_any_size(case: Structure) -> None:
    torch.manual_seed(0)
    model = distinct(case.make().eval())
    graph = trace(model, torch.randn(case.shape))
    assert len(graph.free_groups) == case.free, [(g.name, g.frozen_because) for g in graph.groups]
    if case.reason is not None:
        assert any(case.reason in (group.frozen_because or "") for group in graph.groups)
    names = [group.name for group in graph.free_groups]
    for seed, chosen in enumerate([[name] for name in names] + [names, names]):
        plan = random_plan(graph, chosen, seed)
        small = build(model, graph, plan)
        proof = verify(model, small, graph, plan)
        assert proof.max_error <= 1e-9, (chosen, trial(model, graph, plan).reason)
        small.train()(torch.randn(3, *case.shape[1:])).sum().backward()


class DependsOnData(nn.Module):
    """What comes behind a size that depends on data is left whole; what comes before it, and beside it, is not."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.a, self.b, self.c = how, nn.Linear(12, 8), nn.Linear(8, 10), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.a(x).relu())
        if self.how == "repeated":
            x = torch.repeat_interleave(x, (x.sum(-1)[0] > 0).long() + 1, 1)
        elif self.how == "masked":
            x = x[x.sum(-1) > 0]
        elif self.how == "listed":
            x = x[:, (x.sum(-1)[0] > 0).nonzero()[:, 0]]
        return self.c(x)


@pytest.mark.parametrize("how", ["repeated", "masked", "listed"])
def test_channels_end_where_sizes_depend_on_data(how: str) -> None:
    torch.manual_seed(0)
    model = distinct(DependsOnData(how).eval())
    graph = trace(model, torch.randn(TOKENS))
    assert [group.name for group in graph.free_groups] == ["a"]
    assert "depends on the data" in (graph.group("b").frozen_because or "")
    plan = half_plan(graph, ["a"])
    assert trial(model, graph, plan).ok


def test_the_older_weight_norm_is_cut_as_well() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(weight_norm(nn.Linear(*sizes), dim=dim) for sizes, dim in (((12, 8), 0), ((8, 3), None))))
    graph = trace(model.eval(), torch.randn(2, 12))
    plan = half_plan(graph, ["0"])
    small = build(model, graph, plan)
    assert verify(model, small, graph, plan).ok
    assert tuple(small[0].weight.shape) == (4, 12)


def random_plan(graph: ModelGraph, names: list[str], seed: int) -> PrunePlan:
    """Random units of the named groups, a random number of each."""
    random, keep = np.random.default_rng(seed), {}
    for group in (graph.group(name) for name in names):
        count = int(random.integers(1, group.width // group.multiple_of)) * group.multiple_of
        keep[group.name] = best_units(group, torch.from_numpy(random.random(group.width)), count)
    return PrunePlan(graph.signature, keep=keep, scope=graph.scope)
