"""Closed-form refitting against scikit-learn, against exact redundancy, and on every structural difficulty."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor, nn

from nasprune.cut.plan import PrunePlan
from nasprune.cut.surgery import build
from nasprune.cut.trial_cuts import half_plan
from nasprune.cut.verify import distinct
from nasprune.errors import InputError
from nasprune.refit import reconstruct as refit_module
from nasprune.refit.reconstruct import reconstruct, sites
from nasprune.run.trace import trace
from nasprune.testing import SampleNet
from tests.graph.structures import STRUCTURES, Structure

INPUT = (1, 3, 8, 8)


def error(dense: nn.Module, small: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        return float((dense(x) - small(x)).square().mean())


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
    torch.manual_seed(0)
    model = distinct(case.make().eval())
    graph = trace(model, torch.randn(case.shape))
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


def test_too_few_samples_are_named_and_bad_methods_refused() -> None:
    model = distinct(SampleNet()).eval()
    graph = trace(model, torch.randn(INPUT))
    plan = half_plan(graph, ["first.conv1"])
    small = build(model, graph, plan)
    notes = reconstruct(model, small, graph, plan, torch.randn(1, *INPUT[1:]))
    assert any("64 samples for" in note and "more calibration images" in note for note in notes)
    with pytest.raises(InputError, match="none, lstsq, obs, got 'magic'"):
        reconstruct(model, small, graph, plan, torch.randn(1, *INPUT[1:]), "magic")


def test_what_is_whole_is_not_touched() -> None:
    model = SampleNet().eval()
    graph = trace(model, torch.randn(INPUT))
    whole = build(model, graph, PrunePlan(graph.signature))
    assert reconstruct(model, whole, graph, PrunePlan(graph.signature), torch.randn(8, *INPUT[1:])) == []
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in model.state_dict().items())


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


class _Branch(nn.Module):
    def __init__(self, kind: str, width: int) -> None:
        super().__init__()
        self.a, self.b = pointwise(kind, width, 12), pointwise(kind, 12, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.b(self.a(x).relu())


class Stream(nn.Module):
    """One residual net over (n, 8, positions), written with four kinds of layers."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.stem, self.one, self.two = pointwise(kind, 3, 8), _Branch(kind, 8), _Branch(kind, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = {"Conv2d": x.unsqueeze(3), "Conv1d": x, "3-D": x.mT, "4-D": x.mT.unsqueeze(1)}[self.kind]
        x = self.two(self.one(self.stem(x).relu()))
        return self.head(x.flatten(2).mean(2) if self.kind.startswith("Conv") else x.flatten(1, -2).mean(1))


def pointwise(kind: str, wide: int, out: int) -> nn.Module:
    return getattr(nn, kind)(wide, out, 1) if kind.startswith("Conv") else nn.Linear(wide, out)


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


class Same(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(nn.functional.pad(x, (1, 1, 1, 1)), self.weight * 1.5)


class Keywords(nn.Module):
    """Calls its layers and its block with keywords."""

    def __init__(self, keywords: bool) -> None:
        super().__init__()
        self.keywords = keywords
        self.stem, self.block, self.head = nn.Linear(3, 8), _Branch("Linear", 8), nn.Linear(8, 5)

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


class LeftOut(nn.Module):
    """What is not refitted between layers that are: a function, a layer that runs twice, a class of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.kernel, self.norm1 = nn.Parameter(torch.randn(16, 16, 3, 3) / 6), nn.BatchNorm2d(16)
        self.twice, self.norm2 = nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16)
        self.own, self.norm3 = Same(16, 16, 3), nn.BatchNorm2d(16)
        self.middle, self.norm4 = nn.Conv2d(16, 16, 1, bias=False), nn.BatchNorm2d(16)
        self.before = nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu()
        x = self.norm1(nn.functional.conv2d(x, self.kernel)).relu()
        x = self.norm4(self.middle(x)).relu()
        x = self.norm2(self.twice(self.twice(x).relu()))
        x = self.norm3(self.own(x)).relu()
        return self.head(self.before(x).mean((2, 3)))


def read_by(model: nn.Module, name: str, x: Tensor) -> Tensor:
    seen: list[Tensor] = []
    handle = model.get_submodule(name).register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        model.eval()(x)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("method", ["lstsq", "obs"])
def test_norms_behind_layers_that_are_not_refitted_see_the_cut_net(method: str) -> None:
    torch.manual_seed(0)
    model, x = LeftOut().eval(), torch.randn(64, 3, 8, 8)
    for name in ("norm", "norm1", "norm4", "norm2", "norm3", "before"):
        norm, seen = model.get_submodule(name), read_by(model, name, x)
        norm.running_mean.copy_(seen.mean((0, 2, 3)))
        norm.running_var.copy_(seen.var((0, 2, 3)))
    graph = trace(model, x[:1])
    plan = PrunePlan(graph.signature, {g.name: tuple(range(10)) for g in graph.free_groups})
    small = build(model, graph, plan)
    variances = {name: small.get_submodule(name).running_var.clone() for name in ("norm", "norm4")}
    notes = reconstruct(model, small, graph, plan, x, method)
    for name in ("norm1", "norm2", "norm3", "before"):
        norm, seen = small.get_submodule(name), read_by(small, name, x)
        assert torch.allclose(norm.running_mean, seen.mean((0, 2, 3)), atol=1e-3), name
        assert torch.allclose(norm.running_var, seen.var((0, 2, 3)), rtol=1e-2), name
        assert norm.momentum == 0.1
    assert all(torch.equal(small.get_submodule(name).running_var, value) for name, value in variances.items())
    assert not any(module.training for module in small.modules())
    assert any(note.startswith("kernel, twice, own are not refitted: ") for note in notes), notes


def test_notes_name_few_layers_and_only_those_behind_a_cut() -> None:
    class Functions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Parameter(torch.randn(8, 6))
            self.others = nn.ParameterList(torch.randn(8, 8) for _ in range(8))

        def forward(self, x: Tensor) -> Tensor:
            x = nn.functional.linear(x, self.first)
            for weight in self.others:
                x = (x @ weight.t()).relu()
            return x

    model, x = Functions().eval(), torch.randn(32, 6)
    graph = trace(model, x[:1])
    plan = half_plan(graph, [group.name for group in graph.free_groups])
    notes = reconstruct(model, build(model, graph, plan), graph, plan, x)
    assert len(notes) == 1
    assert notes[0].startswith("others.0, others.1, others.2, others.3, others.4 and 3 more are not refitted"), notes


def two_linear(wide: int, hidden: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(wide, hidden), nn.ReLU(), nn.Linear(hidden, 3)).eval()


def test_a_layer_that_reads_what_the_dense_one_reads_keeps_its_weights() -> None:
    model, x = two_linear(192, 20), torch.randn(100, 3, 8, 8)
    graph = trace(model, x[:1])
    plan = half_plan(graph, [group.name for group in graph.free_groups])
    small = build(model, graph, plan)
    before = copy.deepcopy(small)
    assert reconstruct(model, small, graph, plan, x) == []  # 100 samples for 192 features
    assert torch.equal(small[1].weight, before[1].weight)
    assert torch.equal(small[1].bias, before[1].bias)
    assert not torch.equal(small[3].weight, before[3].weight)


def solved_sides(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    sides: list[int] = []
    plain = torch.linalg.solve

    def watched(a: Tensor, b: Tensor) -> Tensor:
        sides.append(a.shape[-1])
        return plain(a, b)

    monkeypatch.setattr(torch.linalg, "solve", watched)
    return sides


def test_fewer_samples_than_features_solve_for_the_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = two_linear(6, 80), torch.randn(30, 6)
    graph = trace(model, x[:1])
    plan = half_plan(graph, [group.name for group in graph.free_groups])
    small, damp = build(model, graph, plan), 0.05
    old, sides = small[3].weight.detach().clone().double(), solved_sides(monkeypatch)
    notes = reconstruct(model, small, graph, plan, x, damp=damp)
    with torch.no_grad():
        read, wanted = small[:3](x).double().numpy(), model(x).double().numpy()
    alpha = damp * 2 * 40 / 30 * np.mean(((read - read.mean(0)) ** 2).sum(0))
    ridge = Ridge(alpha=alpha).fit(read, wanted - read @ old.T.numpy())
    assert np.allclose(small[3].weight.detach().numpy(), old.numpy() + ridge.coef_, atol=1e-5)
    assert np.allclose(small[3].bias.detach().numpy(), ridge.intercept_, atol=1e-5)
    assert sides == [30]
    assert any("30 samples for 40 features" in note for note in notes)


def test_too_many_features_and_samples_leave_the_weights_but_not_the_means(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = two_linear(6, 80), torch.randn(50, 6)
    graph = trace(model, x[:1])
    plan = half_plan(graph, [group.name for group in graph.free_groups])
    small, sides = build(model, graph, plan), solved_sides(monkeypatch)
    old = small[3].weight.detach().clone()
    monkeypatch.setattr(refit_module, "FEATURES", 39)
    notes = reconstruct(model, small, graph, plan, x)
    assert notes == ["3: its weights stay as they are, since 40 features are too many for a refit"]
    assert torch.equal(small[3].weight, old)
    assert sides == []
    with torch.no_grad():
        assert torch.allclose(small(x).mean(0), model(x).mean(0), atol=1e-5)


def test_shortcuts_that_are_unlike_the_branch_are_left_alone() -> None:
    class Wider(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 12), nn.Linear(12, 8)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.b(self.a(x.mean(1, keepdim=True)).relu())

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), _Branch("Linear", 8), Wider(), nn.Linear(8, 2)).eval()
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
