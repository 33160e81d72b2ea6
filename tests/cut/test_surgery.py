"""The cut: sizes that modules record, tied tensors, gradients flags, and what must be refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from nasprune.cut.plan import PrunePlan
from nasprune.cut.surgery import build
from nasprune.cut.trial_plans import half_plan
from nasprune.errors import PlanError
from nasprune.run.trace import trace
from nasprune.testing import SampleNet
from tests.graph.layers import GroupedTransposed, GroupNorms, NormsWithoutParameters, TiedWeights

INPUT = (1, 3, 8, 8)


def halved(model: nn.Module) -> nn.Module:
    graph = trace(model.eval(), torch.randn(INPUT))
    return build(model, graph, half_plan(graph, [group.name for group in graph.free_groups]))


def test_modules_record_their_new_sizes() -> None:
    small = halved(SampleNet())
    for module in small.modules():
        if isinstance(module, nn.Conv2d):
            assert (module.out_channels, module.in_channels // module.groups) == module.weight.shape[:2]
        if isinstance(module, nn.BatchNorm2d):
            assert module.num_features == len(module.weight)
        if isinstance(module, nn.Linear):
            assert (module.out_features, module.in_features) == module.weight.shape


def test_grouped_transposed_convolution_keeps_its_groups() -> None:
    up = halved(GroupedTransposed()).up
    assert (up.groups, up.in_channels, up.out_channels) == (2, 4, 6)
    assert up.weight.shape[:2] == (4, 3)


def test_norms_shrink_with_and_without_parameters() -> None:
    small = halved(GroupNorms())
    assert (small.gn.num_groups, small.gn.num_channels) == (2, 4)
    assert (small.one.num_groups, small.one.num_channels) == (1, 6)
    bare = halved(NormsWithoutParameters())
    assert (bare.gn.num_groups, bare.gn.num_channels) == (1, 4)
    assert bare.bn.num_features == bare.bn.running_mean.numel() == 6
    assert bare.ln.normalized_shape == (6,)


def test_tied_weights_stay_tied() -> None:
    small = halved(TiedWeights())
    assert small.a.weight is small.b.weight
    assert small.a.weight.shape[0] == 4


def test_the_dense_model_and_its_flags_are_left_alone() -> None:
    model = SampleNet().train()
    model.stem.weight.requires_grad_(False)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    graph = trace(model, torch.randn(INPUT))
    small = build(model, graph, half_plan(graph, [group.name for group in graph.free_groups]))
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert model.training
    assert not small.stem.weight.requires_grad
    assert small.head.weight.requires_grad


def test_the_result_trains() -> None:
    small = halved(SampleNet()).train()
    small(torch.randn(2, *INPUT[1:])).sum().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in small.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keep": {"nothing": (0,)}}, "group 'nothing', which the model does not have"),
        ({"keep": {"stem": (0, 99)}}, "has units 0 to 15, the plan keeps 99"),
        ({"keep": {"split": (0, 1)}}, "same share of each of its 2 parts"),
        ({"drop": ("nothing",)}, "block 'nothing', which the model does not have"),
    ],
)
def test_plans_that_do_not_fit_are_refused(change: dict, message: str) -> None:
    model = SampleNet().eval()
    graph = trace(model, torch.randn(INPUT))
    with pytest.raises(PlanError, match=message):
        build(model, graph, replace(PrunePlan(graph.signature), **change))


def test_what_code_has_noted_on_parameters_stays_with_them() -> None:
    model = SampleNet()
    model.stem.weight._no_weight_decay = True
    model.head.weight.scales = {"lr": 0.1}
    model.head.weight.fisher = torch.ones_like(model.head.weight)
    model.head.weight.comes_from = model.stem.weight
    model.head.bias.fisher = torch.ones_like(model.head.bias)
    small = halved(model)
    assert small.stem.weight._no_weight_decay
    assert small.head.weight.scales == {"lr": 0.1}
    assert small.head.weight.scales is not model.head.weight.scales
    assert small.head.weight.comes_from is small.stem.weight
    assert not hasattr(small.head.weight, "fisher"), "it was made for the whole tensor"
    assert torch.equal(small.head.bias.fisher, model.head.bias.fisher)
