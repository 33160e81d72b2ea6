"""Damages from one backward pass against the divergence that is measured by cutting."""

from __future__ import annotations

import copy

import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from nasprune import registry
from nasprune.consumers import consumers
from nasprune.damage import _interpolated, _measured, damages
from nasprune.data import ArrayDataset
from nasprune.errors import InputError
from nasprune.graph.trace import trace
from nasprune.registry import search_space
from nasprune.selection import best_units
from nasprune.surgery import Removed
from nasprune.testing import SampleNet
from nasprune.verify import distinct

INPUT = (1, 3, 8, 8)
T = 4.0


def divergence(model: nn.Module, changed: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        p, q = ((net(x) / T).log_softmax(1) for net in (model, changed))
    return float((p.exp() * (p - q)).sum(1).mean()) * T * T


@pytest.fixture(scope="module")
def case() -> tuple:
    torch.manual_seed(0)
    model = distinct(SampleNet()).eval()
    graph = trace(model, torch.randn(INPUT))
    space = search_space(graph, "widths", divisor=4)
    scores = {group.name: torch.rand(group.width) for group in graph.free_groups}
    return model, graph, space, scores, torch.randn(1024, *INPUT[1:])


def test_damages_order_options_as_cutting_does(case: tuple) -> None:
    model, graph, space, scores, x = case
    found = damages(model, graph, space, scores, [x], refit=False)
    priced, measured = [], []
    for choice in space.widths:
        group = graph.group(choice.name)
        for option in choice.options[:-1]:
            changed = copy.deepcopy(model)
            kept = torch.zeros(group.width, dtype=torch.bool)
            kept[list(best_units(group, scores[group.name], option))] = True
            for one in consumers(changed, graph, group):
                flat = one.modules[0].weight.data
                gone = torch.from_numpy(one.channels[~kept.numpy()]).flatten()
                per_group = flat.shape[1]
                for channel in gone.tolist():
                    rows = len(flat) // (1 if one.modules[0].weight.ndim == 2 else one.modules[0].groups)
                    part, position = divmod(channel, per_group)
                    flat[part * rows : (part + 1) * rows, position] = 0
            priced.append(found[choice.name][option])
            measured.append(divergence(model, changed, x))
    for block in space.blocks:
        changed = copy.deepcopy(model)
        setattr(changed, block.name, Removed(relu=True))
        priced.append(found[block.name][0])
        measured.append(divergence(model, changed, x))
    assert spearmanr(priced, measured)[0] > 0.8


def test_small_damages_are_the_divergence() -> None:
    """A linear net: the first-order change is exact, and the second-order divergence nearly so."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.Linear(8, 4)).eval()
    with torch.no_grad():
        model[1].weight.mul_(0.1)
    graph, x = trace(model, torch.randn(1, 5)), torch.randn(4000, 5)
    space = search_space(graph, "widths", divisor=1)
    scores = {"0": torch.arange(8.0)}
    found = damages(model, graph, space, scores, [x], refit=False)
    measured: list[float] = []
    for option in reversed(range(1, 8)):
        changed = copy.deepcopy(model)
        changed[1].weight.data[:, : 8 - option] = 0
        measured.append(divergence(model, changed, x))
        assert found["0"][option] == pytest.approx(max(measured), rel=0.15)  # narrower never counts as less harmful


def test_refitting_lowers_damage_and_full_width_has_none(case: tuple) -> None:
    model, graph, space, scores, x = case
    plain, refitted = (damages(model, graph, space, scores, [x], refit=refit) for refit in (False, True))
    totals = [sum(sum(options.values()) for options in found.values()) for found in (plain, refitted)]
    assert totals[1] < totals[0]
    for choice in space.choices:
        assert plain[choice.name][choice.options[-1]] == 0
        assert set(plain[choice.name]) == set(choice.options)


def test_the_model_is_left_as_it_was(case: tuple) -> None:
    model, graph, space, scores, x = case
    model = copy.deepcopy(model).train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    first, second = (damages(model, graph, space, scores, [x[:32]], refit=True) for _ in range(2))
    assert first == second
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert model.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_options_between_measured_ones_are_interpolated() -> None:
    options = tuple(range(8, 513, 8))
    chosen = _measured(options)
    assert len(chosen) == 8
    assert (chosen[0], chosen[-1]) == (8, 504)
    harms = _interpolated(options, {option: (512 - option) ** 2 / 100 for option in chosen})
    assert harms[512] == 0
    assert list(harms.values()) == sorted(harms.values(), reverse=True)
    assert harms[256] == pytest.approx(256**2 / 100, rel=0.01)


class Functional(nn.Module):
    """The middle convolution is called as a function, so that no module reads what `a` makes."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.conv2d(self.a(x).relu(), self.b.weight, self.b.bias).relu()
        return self.head(x.mean((2, 3)))


def test_groups_that_no_module_reads_are_narrowed_last() -> None:
    torch.manual_seed(0)
    model, x = Functional().eval(), torch.randn(64, *INPUT[1:])
    graph = trace(model, x[:1])
    space = search_space(graph, "widths", divisor=2)
    scores = registry.scorer("obs").scores(model, graph, data=ArrayDataset(x, torch.arange(64) % 4))
    assert len(set(scores["a"].tolist())) == 8
    found = damages(model, graph, space, scores, [x], refit=True)
    assert set(found) == {"a", "b"}
    assert found["a"][8] == 0
    assert found["a"][2] > found["a"][6] > max(found["b"].values()) > 0


def test_without_inputs_it_says_what_is_missing(case: tuple) -> None:
    model, graph, space, scores, _ = case
    with pytest.raises(InputError, match="calibration inputs"):
        damages(model, graph, space, scores, [], refit=False)
