"""Convolutions and linear layers that code calls as functions are refitted as modules are."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import nasprune
from nasprune.calibration.called import routed, stand_in
from nasprune.cut.surgery import build
from nasprune.cut.trial_cuts import half_plan
from nasprune.refit.reconstruct import reconstruct
from nasprune.refit.sites import sites
from nasprune.run.trace import trace
from tests.refit.nets import error

Call = Callable[[nn.Module, Tensor], Tensor]
LAYERS: dict[str, tuple[Callable[[], nn.Module], Call, int]] = {
    "conv1d": (lambda: nn.Conv1d(8, 8, 3, 2, 1), lambda m, x: functional.conv1d(x, m.weight, m.bias, 2, 1), 1),
    "conv2d": (lambda: nn.Conv2d(8, 8, 3), lambda m, x: torch.conv2d(x, m.weight, bias=m.bias), 2),
    "conv2d, keywords": (
        lambda: nn.Conv2d(8, 8, 3, (1, 2), (1, 0), bias=False),
        lambda m, x: functional.conv2d(weight=m.weight, input=x, padding=(1, 0), stride=(1, 2)),
        2,
    ),
    "conv2d, same": (
        lambda: nn.Conv2d(8, 8, 3, padding="same", dilation=2),
        lambda m, x: functional.conv2d(x, m.weight, m.bias, padding="same", dilation=2),
        2,
    ),
    "grouped": (
        lambda: nn.Conv2d(8, 8, 3, groups=2),
        lambda m, x: functional.conv2d(x, m.weight, m.bias, groups=2),
        2,
    ),
    "conv3d": (lambda: nn.Conv3d(8, 8, 2), lambda m, x: functional.conv3d(x, m.weight, m.bias), 3),
    "transposed": (
        lambda: nn.ConvTranspose2d(8, 8, 3, 2, 1, 1),
        lambda m, x: functional.conv_transpose2d(x, m.weight, m.bias, 2, 1, 1),
        2,
    ),
    "linear": (lambda: nn.Linear(8, 8), lambda m, x: functional.linear(x, m.weight, m.bias), 0),
}
FIRST: dict[int, Callable[[], nn.Module]] = {
    0: lambda: nn.Linear(3, 8),
    1: lambda: nn.Conv1d(3, 8, 3),
    2: lambda: nn.Conv2d(3, 8, 3),
    3: lambda: nn.Conv3d(3, 8, 2),
}


class Modular(nn.Module):
    def __init__(self, first: nn.Module, layer: nn.Module, call: Call) -> None:
        super().__init__()
        self.first, self.layer, self.last = first, layer, nn.Linear(8, 4)
        self.call = call

    def middle(self, x: Tensor) -> Tensor:
        return self.layer(x)

    def forward(self, x: Tensor) -> Tensor:
        x = self.middle(self.first(x).relu()).relu()
        return self.last(x.flatten(2).mean(2) if x.ndim > 2 else x)


class Functional(Modular):
    def middle(self, x: Tensor) -> Tensor:
        return self.call(self.layer, x)


def pair(name: str) -> tuple[Modular, Modular, Tensor]:
    """The net with a module, the same one with a function, inputs."""
    make, call, axes = LAYERS[name]
    torch.manual_seed(0)
    nets = [kind(FIRST[axes](), make(), call).eval() for kind in (Modular, Functional)]
    nets[1].load_state_dict(nets[0].state_dict())
    return nets[0], nets[1], torch.randn(64, 3, *[8] * axes)


@pytest.mark.parametrize("batches", [1, 4])
@pytest.mark.parametrize("name", LAYERS)
def test_a_function_is_refitted_to_what_its_module_would_be(name: str, batches: int) -> None:
    found = []
    for model, x in ((net, inputs) for *nets, inputs in [pair(name)] for net in nets):
        graph = trace(model, x[:1])
        plan = half_plan(graph, [group.name for group in graph.free_groups])
        small = build(model, graph, plan)
        before = error(model, small, x)
        notes = reconstruct(model, small, graph, plan, list(torch.split(x, len(x) // batches)))
        assert not any("not refitted" in note for note in notes)
        assert error(model, small, x) < before
        assert all(weight.is_leaf and weight.requires_grad for weight in small.parameters())
        found.append(small)
    for (key, one), other in zip(found[0].state_dict().items(), found[1].state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, msg=key)


@pytest.mark.parametrize("name", LAYERS)
def test_what_stands_in_for_a_call_sees_and_changes_what_it_reads_and_makes(name: str) -> None:
    _, model, x = pair(name)
    layer = stand_in(model, trace(model, x[:1]).program, "layer.weight")
    assert layer is not None
    assert layer.weight is model.layer.weight
    seen: list[Tensor] = []
    handles = [
        layer.register_forward_pre_hook(lambda _, args: (2 * args[0],)),
        layer.register_forward_hook(lambda _, args, result: seen.append(args[0]) or torch.zeros_like(result)),
    ]
    with torch.no_grad():
        plain = model(x)
        assert not seen
        with routed([layer, model.first]):
            changed = model(x)
        torch.testing.assert_close(seen[0], 2 * model.first(x).relu())
        torch.testing.assert_close(changed, model.last.bias.expand(len(x), -1))
        for handle in handles:
            handle.remove()
        with routed([layer]):
            torch.testing.assert_close(model(x), plain)


class Shared(nn.Module):
    """Weights that something else reads as well, that torch's own code multiplies with, and that are computed."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.attention = nn.Embedding(10, 8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.once, self.twice = nn.Parameter(torch.randn(8, 8)), nn.Parameter(torch.randn(8, 8))
        self.scaled = nn.Parameter(torch.randn(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.table(x)
        x = self.attention(x, x, x, need_weights=False)[0]
        x = functional.linear(x, self.once).relu()
        x = functional.linear(functional.linear(x, self.twice).relu(), self.twice)
        return functional.linear(functional.linear(x, 2 * self.scaled), self.table.weight)


def test_weights_of_another_kind_have_no_stand_in() -> None:
    model, x = Shared().eval(), torch.randint(10, (4, 5))
    graph = trace(model, x[:1])
    standing = {name: stand_in(model, graph.program, name) for name, _ in model.named_parameters()}
    assert {name for name, layer in standing.items() if layer is not None} == {"once", "twice"}
    whole = nasprune.PrunePlan(graph.signature)
    assert [site.path for site in sites(model, graph, whole) if site.by_function] == ["once"], "others run twice"


def test_a_search_refits_functions() -> None:
    _, model, x = pair("conv2d")
    labels = model(x).argmax(1)
    result = nasprune.search(model, x[:1], "50%", data=(x, labels), allow_chance=True, trials=1)
    assert not any("not refitted" in note for note in result.report.notes)
    assert result.report.proof.ok
