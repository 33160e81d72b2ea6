"""The same net written otherwise is refitted alike: layouts, keywords, padding, shortcuts, floating types."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from nasprune.cut.plan import PrunePlan
from nasprune.cut.stirred import distinct
from nasprune.cut.surgery import build
from nasprune.cut.trial_cuts import half_plan
from nasprune.refit.reconstruct import reconstruct, sites
from nasprune.run.trace import trace
from nasprune.testing import SampleNet
from tests.refit.nets import INPUT, Branch, error, pointwise


class Stream(nn.Module):
    """One residual net over (n, 8, positions), written with four kinds of layers."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.stem, self.one, self.two = pointwise(kind, 3, 8), Branch(kind, 8), Branch(kind, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = {"Conv2d": x.unsqueeze(3), "Conv1d": x, "3-D": x.mT, "4-D": x.mT.unsqueeze(1)}[self.kind]
        x = self.two(self.one(self.stem(x).relu()))
        return self.head(x.flatten(2).mean(2) if self.kind.startswith("Conv") else x.flatten(1, -2).mean(1))


@pytest.mark.parametrize("positions", [4, 6, 8])  # of 8 channels, 4 stay
@pytest.mark.parametrize("kind", ["Conv1d", "3-D", "4-D"])
def test_layouts_of_one_net_are_refitted_alike(kind: str, positions: int) -> None:
    torch.manual_seed(0)
    first = distinct(Stream("Conv2d")).eval()
    x, weights = torch.randn(50, 3, positions), []
    for layout in ("Conv2d", kind):
        model = Stream(layout).eval()
        model.load_state_dict({n: v.reshape(model.state_dict()[n].shape) for n, v in first.state_dict().items()})
        graph = trace(model, x[:1])
        small = build(model, graph, half_plan(graph, [group.name for group in graph.free_groups]))
        reconstruct(model, small, graph, half_plan(graph, [group.name for group in graph.free_groups]), x)
        weights.append({name: value.flatten() for name, value in small.state_dict().items()})
    assert weights[0]["two.b.weight"].numel() == 4 * 6
    assert all(torch.allclose(weights[0][name], value, rtol=1e-3, atol=1e-4) for name, value in weights[1].items())


@pytest.mark.parametrize("padding", ["circular", "reflect", "replicate"])
def test_padding_of_every_mode_is_refitted(padding: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1, padding_mode=padding), nn.ReLU(), nn.Conv2d(12, 4, 3, padding=1, bias=False)
    )
    model[2].padding_mode = padding
    x = torch.randn(40, 3, 6, 6)
    graph = trace(model.eval(), x[:1])
    plan = half_plan(graph, [group.name for group in graph.free_groups])
    small = build(model, graph, plan)
    before = error(model, small, x)
    assert [site.path for site in sites(model, graph, plan)] == ["0", "2"]
    reconstruct(model, small, graph, plan, x)
    assert error(model, small, x) < 0.7 * before


class NormOfSteps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(6, 8), nn.BatchNorm1d(4), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.norm(self.a(x)).relu())


def test_a_norm_along_another_axis_keeps_its_means() -> None:
    torch.manual_seed(0)
    model, x = distinct(NormOfSteps()).eval(), torch.randn(60, 4, 6)
    graph = trace(model, x[:1])
    assert [site.norm for site in sites(model, graph, PrunePlan(graph.signature, {"a": (0, 1, 4)}))] == [None, None]


class Keywords(nn.Module):
    """Calls its layers and its block with keywords."""

    def __init__(self, keywords: bool) -> None:
        super().__init__()
        self.keywords = keywords
        self.stem, self.block, self.head = nn.Linear(3, 8), Branch("Linear", 8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        if self.keywords:
            return self.head(input=self.block(x=self.stem(input=x)))
        return self.head(self.block(self.stem(x)))


@pytest.mark.parametrize("method", ["lstsq", "obs"])
def test_calls_with_keywords_are_refitted_alike(method: str) -> None:
    torch.manual_seed(0)
    first, x = Keywords(False).eval(), torch.randn(50, 3)
    other = Keywords(True).eval()
    other.load_state_dict(first.state_dict())
    results = []
    for model in (first, other):
        graph = trace(model, x[:1])
        plan = half_plan(graph, [group.name for group in graph.free_groups])
        results.append(build(model, graph, plan))
        reconstruct(model, results[-1], graph, plan, x, method)
    assert all(torch.equal(a, b) for a, b in zip(results[0].parameters(), results[1].parameters(), strict=True))


def test_shortcuts_that_are_unlike_the_branch_are_left_alone() -> None:
    class Wider(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 12), nn.Linear(12, 8)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.b(self.a(x.mean(1, keepdim=True)).relu())

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), Branch("Linear", 8), Wider(), nn.Linear(8, 2)).eval()
    x = torch.randn(40, 5, 3)
    x[:8] *= 50  # rows that do not belong together would show
    graph = trace(model, x[:1])
    plan = PrunePlan(graph.signature, drop=("1",))
    small = build(model, graph, plan)
    reconstruct(model, small, graph, plan, x)
    with torch.no_grad():
        seen = [net[:2](x) for net in (model, small)]
        wanted, given = (net[2](value) - value for net, value in zip((model, small), seen, strict=True))
    assert (given - wanted)[8:].square().mean() < wanted[8:].square().mean()


@pytest.mark.parametrize("method", ["lstsq", "obs"])
@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_other_kinds_of_floating_point_numbers_are_refitted(kind: torch.dtype, method: str) -> None:
    torch.manual_seed(0)
    model, x = distinct(SampleNet()).eval(), torch.randn(64, *INPUT[1:])
    graph = trace(model, x[:1])
    plan = half_plan(graph, [group.name for group in graph.free_groups])
    errors, weights = [], []
    for one in (torch.float32, kind):
        other = copy.deepcopy(model).to(one)
        small = build(other, graph, plan)
        before = error(other, small, x.to(one))
        reconstruct(other, small, graph, plan, x, method)
        assert {value.dtype for value in small.parameters()} == {one}
        errors.append(error(other, small, x.to(one)) / before)
        weights.append(torch.cat([value.flatten().double() for value in small.parameters()]))
    assert errors[1] < 1.2 * errors[0] + 0.01
    if kind == torch.float64:
        assert torch.allclose(weights[0], weights[1], rtol=1e-2, atol=1e-3)
