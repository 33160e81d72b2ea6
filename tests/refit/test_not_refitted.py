"""What is left as it is, and what is said of it: layers that cannot be refitted, and samples that are too few."""

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
from nasprune.cut.trial_cuts import half_plan
from nasprune.errors import InputError
from nasprune.refit import fit
from nasprune.refit.reconstruct import reconstruct
from nasprune.run.trace import trace
from nasprune.testing import SampleNet
from tests.refit.nets import INPUT, error


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


class Same(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(nn.functional.pad(x, (1, 1, 1, 1)), self.weight * 1.5)


class LeftOut(nn.Module):
    """What is not refitted between layers that are: computed weights, a layer that runs twice, a class of its own."""

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
        x = self.norm1(nn.functional.conv2d(x, 2 * self.kernel)).relu()
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


def test_too_many_features_and_samples_take_a_part_of_the_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = two_linear(6, 80), torch.randn(50, 6)
    graph = trace(model, x[:1])
    plan = half_plan(graph, [group.name for group in graph.free_groups])
    small, sides = build(model, graph, plan), solved_sides(monkeypatch)
    before = error(model, small, x)
    monkeypatch.setattr(fit, "FEATURES", 39)
    notes = reconstruct(model, small, graph, plan, x)
    assert notes == ["refitted on a part of the samples, as the features are many: 3 (40 features)"]
    assert sides == [25]
    assert error(model, small, x) < 0.5 * before
    with torch.no_grad():
        assert torch.allclose(small(x[::2]).mean(0), model(x[::2]).mean(0), atol=1e-5)
