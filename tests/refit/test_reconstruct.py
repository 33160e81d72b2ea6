"""Closed-form refitting against scikit-learn, against exact redundancy, and on every structural difficulty."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor, nn

from nasprune.cut.plan import PrunePlan
from nasprune.cut.stirred import distinct
from nasprune.cut.surgery import build
from nasprune.cut.trial_plans import half_plan
from nasprune.refit import fit
from nasprune.refit.leastsquares import Moments
from nasprune.refit.reconstruct import reconstruct
from nasprune.run.trace import trace
from nasprune.testing import SampleNet
from tests.graph.structure import Structure
from tests.graph.structures import STRUCTURES, traced
from tests.refit.nets import INPUT, error


class TwoLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).relu())


def test_one_layer_is_ridge_regression_towards_the_old_weights() -> None:
    torch.manual_seed(0)
    model, x = TwoLayers().eval(), torch.randn(200, 6)
    graph = trace(model, x[:1])
    plan = PrunePlan(graph.signature, {"a": (0, 2, 3, 7)})
    small = build(model, graph, plan)
    old = small.b.weight.detach().clone().double()
    damp = 0.05
    reconstruct(model, small, graph, plan, x, damp=damp)
    with torch.no_grad():
        read, wanted = small.a(x).relu().double().numpy(), model(x).double().numpy()
    alpha = damp * np.mean(((read - read.mean(0)) ** 2).sum(0))
    ridge = Ridge(alpha=alpha).fit(read, wanted - read @ old.T.numpy())
    assert np.allclose(small.b.weight.detach().numpy(), old.numpy() + ridge.coef_, atol=1e-5)
    assert np.allclose(small.b.bias.detach().numpy(), ridge.intercept_, atol=1e-5)


@pytest.mark.parametrize("method", ["lstsq", "obs"])
def test_what_is_redundant_is_recovered_exactly(method: str) -> None:
    torch.manual_seed(0)
    model = distinct(SampleNet()).eval()
    with torch.no_grad():
        for name in ("first.conv1.weight", "first.norm1.weight", "first.norm1.bias"):
            value = model.get_parameter(name)
            value[8:] = value[:8] * (2.0 if name != "first.conv1.weight" else 1.0)
        model.first.norm1.running_mean[8:] = model.first.norm1.running_mean[:8]
        model.first.norm1.running_var[8:] = model.first.norm1.running_var[:8]
    graph = trace(model, torch.randn(INPUT))
    plan = PrunePlan(graph.signature, {"first.conv1": tuple(range(8))})
    small, x = build(model, graph, plan).eval(), torch.randn(64, *INPUT[1:])
    before = error(model, small, x)
    reconstruct(model, small, graph, plan, x, method, damp=1e-9)
    assert before > 1e-3
    assert error(model, small, x) < 1e-8 * before


@pytest.mark.parametrize("case", STRUCTURES, ids=lambda case: case.name)
def test_every_structure_refits_and_none_gets_worse(case: Structure) -> None:
    model, graph = traced(case).model, traced(case).graph
    torch.manual_seed(0)
    plan = half_plan(graph, [group.name for group in graph.free_groups])
    small, x = build(model, graph, plan).eval(), torch.randn(64, *case.shape[1:])
    refitted = copy.deepcopy(small)
    reconstruct(model, refitted, graph, plan, x)
    outputs = [net(x) for net in (model, small, refitted)]
    first = [next(iter(out.values())) if isinstance(out, dict) else out for out in outputs]
    assert (first[0] - first[2]).square().mean() <= (first[0] - first[1]).square().mean() * 1.01 + 1e-12


def test_a_later_layer_makes_good_for_a_dropped_block() -> None:
    torch.manual_seed(0)
    model = distinct(SampleNet()).eval()
    graph = trace(model, torch.randn(INPUT))
    plan = PrunePlan(graph.signature, drop=(graph.free_blocks[0].name,))
    small, x = build(model, graph, plan).eval(), torch.randn(256, *INPUT[1:])
    before = error(model, small, x)
    reconstruct(model, small, graph, plan, x)
    fresh = torch.randn(256, *INPUT[1:])
    assert error(model, small, fresh) < 0.5 * before


def test_nothing_but_the_small_net_changes_and_it_is_deterministic() -> None:
    torch.manual_seed(0)
    model = SampleNet().train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    graph = trace(model, torch.randn(INPUT))
    plan = half_plan(graph, [group.name for group in graph.free_groups])
    nets = [build(model, graph, plan) for _ in range(2)]
    x = torch.randn(32, *INPUT[1:])
    for net in nets:
        reconstruct(model, net, graph, plan, x, rows=500)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert model.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for net in (model, nets[0]) for m in net.modules())
    assert all(torch.equal(a, b) for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True))


def test_errors_of_the_dense_run_are_raised_here() -> None:
    model = SampleNet().eval()
    graph = trace(model, torch.randn(INPUT))
    plan = half_plan(graph, ["first.conv1"])
    with pytest.raises(RuntimeError, match="channels"):
        reconstruct(model, build(model, graph, plan), graph, plan, torch.randn(4, 5, 8, 8))


class FarInputs(nn.Module):
    """Reads inputs whose mean is far above their deviation, which the first bias takes away."""

    def __init__(self, offset: float) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 16), nn.Linear(16, 3)
        with torch.no_grad():
            self.a.weight.abs_()
            self.a.bias.fill_(offset / 2)
            self.b.bias.sub_(self.b.weight.sum(1) * self.a.weight.sum(1).mean() * offset)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x))


@pytest.mark.parametrize("offset", [1e3, 1e4])
def test_means_far_above_deviations_do_not_spoil_the_fit(offset: float) -> None:
    torch.manual_seed(0)
    model, x = FarInputs(offset).eval(), torch.randn(400, 6) + offset
    graph = trace(model, x[:1])
    plan = PrunePlan(graph.signature, {"a": tuple(range(10))})
    small = build(model, graph, plan)
    reconstruct(model, small, graph, plan, x)  # ten units carry all that six inputs hold
    with torch.no_grad():
        spread = model(x).var(0).mean()
    assert error(model, small, x) < 0.01 * spread


def test_a_depthwise_layer_is_read_in_pieces_as_small_as_another(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 64, 1), nn.ReLU(), nn.Conv2d(64, 64, 7, padding=3, groups=64), nn.Conv2d(64, 4, 1)
    )
    x, seen = torch.randn(16, 3, 16, 16), list[int]()
    add = Moments.add
    monkeypatch.setattr(fit, "VALUES", 2**20)
    monkeypatch.setattr(Moments, "add", lambda self, x, y: (seen.append(x.numel()), add(self, x, y))[1])
    graph = trace(model, x[:1])
    plan = half_plan(graph, [group.name for group in graph.free_groups])
    reconstruct(model, build(model, graph, plan), graph, plan, x)
    assert max(seen) <= 2**20
