"""A refit on many batches gives what one on a single batch gives, whatever the memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from nasprune.common.inputs import Inputs
from nasprune.common.shelf import Shelf
from nasprune.cut.plan import PrunePlan
from nasprune.cut.stirred import distinct
from nasprune.cut.surgery import build
from nasprune.cut.trial_plans import half_plan
from nasprune.graph.model import ModelGraph
from nasprune.refit.reconstruct import reconstruct
from nasprune.refit.targets import Calls
from nasprune.run.trace import trace
from nasprune.testing import SampleNet
from tests.graph.structure import Structure
from tests.graph.structures import STRUCTURES, traced
from tests.refit.nets import INPUT
from tests.refit.test_not_refitted import LeftOut


def halved(graph: ModelGraph) -> PrunePlan:
    blocks = tuple(block.name for block in graph.free_blocks[:1])
    inside = {name for block in graph.blocks if block.name in blocks for name in block.groups}
    kept = half_plan(graph, [group.name for group in graph.free_groups if group.name not in inside]).keep
    return PrunePlan(graph.signature, kept, blocks)


def numbers(model: nn.Module) -> Tensor:
    return torch.cat([value.flatten().double() for value in model.state_dict().values()])


def assert_alike(a: nn.Module, b: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        pairs = zip(tree_leaves(a(x)), tree_leaves(b(x)), strict=True)
    assert all((one - two).norm() <= 1e-3 * one.norm() + 1e-6 for one, two in pairs)


@pytest.mark.parametrize("case", STRUCTURES, ids=lambda case: case.name)
def test_every_structure_as_one_batch_and_as_many(case: Structure) -> None:
    model, graph = traced(case).model, traced(case).graph
    torch.manual_seed(0)
    x, plan = torch.randn(48, *case.shape[1:]), halved(graph)
    nets = [build(model, graph, plan).eval() for _ in range(3)]
    for net, batches, memory in zip(nets, (x, x.split(16), x.split(16)), (2**30, 2**30, 0), strict=True):
        notes = reconstruct(model, net, graph, plan, batches, memory=memory)
        assert not any("one batch only" in note for note in notes), notes
    assert_alike(nets[0], nets[1], x)
    assert torch.equal(numbers(nets[1]), numbers(nets[2]))


@pytest.mark.parametrize("method", ["lstsq", "obs"])
def test_samples_are_drawn_alike_and_nothing_else_changes(method: str) -> None:
    torch.manual_seed(0)
    model, x = distinct(SampleNet()).train(), torch.randn(64, *INPUT[1:])
    graph = trace(model, x[:1])
    plan = halved(graph)
    before = numbers(model)
    nets = [build(model, graph, plan) for _ in range(2)]
    for net, batches in zip(nets, (x, x.split(8)), strict=True):
        reconstruct(model, net, graph, plan, batches, method, rows=500)
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    assert_alike(*(net.eval() for net in nets), x)
    assert torch.equal(numbers(model), before)
    assert model.training


def test_norms_behind_layers_that_are_not_refitted_see_every_batch() -> None:
    torch.manual_seed(0)
    model, x = LeftOut().eval(), torch.randn(64, 3, 8, 8) + 3
    graph = trace(model, x[:1])
    plan = PrunePlan(graph.signature, {group.name: tuple(range(10)) for group in graph.free_groups})
    nets = [build(model, graph, plan) for _ in range(2)]
    for net, batches in zip(nets, (x, x.split(16)), strict=True):
        reconstruct(model, net, graph, plan, batches)
    for name in ("norm1", "norm2", "norm3", "before"):
        one, many = (net.get_submodule(name) for net in nets)
        assert torch.allclose(one.running_mean, many.running_mean, rtol=1e-3, atol=1e-4), name
        assert torch.allclose(one.running_var, many.running_var, rtol=1e-3), name


class Part(nn.Module):
    """A part that can be captured in a network that cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.body = SampleNet()

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x * 2)
        return y if y.sum() > 0 else y + 1


def test_a_part_is_refitted_on_what_it_reads() -> None:
    torch.manual_seed(0)
    model, x = Part().eval(), torch.randn(48, *INPUT[1:])
    distinct(model.body)
    graph = trace(model, x[:1], scope="body")
    plan = half_plan(graph, [group.name for group in graph.free_groups])
    nets = [build(model, graph, plan).eval() for _ in range(2)]
    for net, batches in zip(nets, (x, x.split(16)), strict=True):
        reconstruct(model, net, graph, plan, batches)
    assert_alike(nets[0].body, nets[1].body, x)


class ByTheBatch(nn.Module):
    """Runs other code for several items, so that torch.export has no program for them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).relu()
        if len(x) > 1 and x.max() > 1e6:
            return x[:, :3]
        return self.b(x)


def test_without_a_program_of_many_items_one_batch_is_used_and_said() -> None:
    torch.manual_seed(0)
    model, x = ByTheBatch().eval(), torch.randn(60, 6)
    graph = trace(model, x[:1])
    plan = PrunePlan(graph.signature, {"a": (0, 2, 3, 7)})
    nets = [build(model, graph, plan) for _ in range(2)]
    notes = [
        reconstruct(model, net, graph, plan, batches) for net, batches in zip(nets, (x[:20], x.split(20)), strict=True)
    ]
    assert any("saw one batch only" in note for note in notes[1])
    assert notes[0] == []
    assert_alike(*nets, x)


@pytest.mark.parametrize("limit", [0, 2**20])
def test_inputs_of_batches_come_back_from_the_shelf(limit: int) -> None:
    with Shelf(limit) as shelf:
        calls = Calls(shelf)
        for number in range(3):
            calls.put(Inputs((torch.full((2, 4), float(number)), 7), {"mask": torch.arange(2) == number}))
        assert (len(calls), calls.items) == (3, 2)
        for number, call in enumerate(calls):
            assert torch.equal(call.args[0], torch.full((2, 4), float(number)))
            assert call.args[1] == 7
            assert torch.equal(call.kwargs["mask"], torch.arange(2) == number)
        assert torch.equal(calls[-1].args[0], calls[2].args[0])
