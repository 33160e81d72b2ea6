"""Supernets are recognised with their weights, and networks without choices are left in peace."""

import copy
import random

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nasprune.errors import InputError
from nasprune.supernet.find.mixed_ops import find_mixed_ops
from tests.supernet import foreign
from tests.supernet.foreign import ReLUConvBN


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def images(size=16, batch=2):
    return torch.randn(batch, 3, size, size)


def shares_of(net, one):
    """The softmax of the row of alphas that belongs to a mixed operation of a chain of cells."""
    return net.rows(net.get_submodule(one.cell))[one.index].detach()


@pytest.mark.parametrize(
    ("build", "layers", "number"),
    [
        (foreign.DartsNet, 6, 84),
        (foreign.DartsNet, 3, 42),
        (foreign.PartialNet, 4, 56),
        (foreign.SwitchedNet, 4, 56),
    ],
)
def test_chains_of_cells(build, layers, number):
    net = build(c=8 if build is foreign.PartialNet else 4, layers=layers)
    found = find_mixed_ops(net, images()).mixed
    assert len(found) == number
    for one in found:
        torch.testing.assert_close(torch.tensor(one.weights), shares_of(net, one), atol=1e-6, rtol=1e-5)
        assert one.path.startswith(one.cell)
    assert [one.index for one in found] == list(range(14)) * layers
    assert not any(one.single_path for one in found)


def test_what_a_mixed_operation_says():
    one = find_mixed_ops(foreign.DartsNet(4, 3), images()).mixed[14]
    assert (one.path, one.ops[1], one.cell, one.index) == ("cells.1._ops.0._ops", "cells.1._ops.0._ops.1", "cells.1", 0)
    assert one.names[:4] == ("Zero", "MaxPool2d", "AvgPool2d", "FactorizedReduce")
    assert one.names[4:] == ("SepConv", "SepConv.2", "DilConv", "DilConv.2")
    assert (one.input_shape, one.output_shape) == ((2, 8, 16, 16), (2, 8, 8, 8))


def test_a_deep_supernet_as_initialised_where_signals_vanish_in_eval_mode():
    net = foreign.DartsNet(4, 9, spread=3.0)
    found = find_mixed_ops(net, images(8)).mixed
    assert len(found) == 9 * 14
    assert all(torch.allclose(torch.tensor(one.weights), shares_of(net, one), atol=1e-5) for one in found)


@pytest.mark.parametrize("least", [0.0, 0.05])
def test_cells_without_a_module_for_the_edge(least):
    net = foreign.Bench201Net(per_stage=1, least=least)
    with torch.no_grad():
        net.arch_parameters[:, 2] = -9.0
    found = find_mixed_ops(net, images(8)).mixed
    assert len(found) == 18
    rows = sorted(net.cells[0].edges)
    for one in found:
        shares = net.arch_parameters[rows.index(one.path.rpartition(".")[2])].detach().softmax(0)
        shares = shares * (shares > least)
        torch.testing.assert_close(torch.tensor(one.weights), shares / shares.sum())
        assert len(one.ops) == 5


def test_one_at_a_time():
    found = find_mixed_ops(foreign.chain(4), images(8)).mixed
    assert [one.path for one in found] == ["1", "2", "3", "4"]
    assert [one.label for one in found] == ["block0", "block1", "block2", "block3"]
    assert {(one.names, one.weights, one.single_path, one.cell) for one in found} == {
        (("k3", "k5", "pool"), None, True, "")
    }
    assert [one.index for one in found] == [0, 1, 2, 3]
    assert (found[1].input_shape, found[1].output_shape) == ((2, 4, 8, 8), (2, 4, 4, 4))


def test_candidates_in_a_private_dict():
    net = foreign.razor()
    found = find_mixed_ops(net, images(8)).mixed
    assert [one.label for one in found] == ["node0", "node1", "node2"]
    for one in found:
        owner = net.get_submodule(one.path)
        assert one.names == tuple(owner.choices)
        torch.testing.assert_close(torch.tensor(one.weights), owner.arch_param.softmax(0))
    alone = find_mixed_ops(foreign.razor(single=True), images(8)).mixed
    assert [(one.path, one.single_path, one.ops) for one in alone] == [(one.path, True, one.ops) for one in found]


def test_declared_candidates_of_different_shapes_are_no_choice():
    net = nn.Sequential(foreign.LayerChoice({"a": nn.Conv2d(3, 4, 1), "b": nn.Conv2d(3, 5, 1)}, "x"))
    found = find_mixed_ops(net, images(8))
    assert not found.mixed
    assert found.rejected["0"] == "LayerChoice (NNI): candidates give (2, 4, 8, 8), but 'b' gives (2, 5, 8, 8)"


def test_a_container_of_ones_own():
    net = nn.Sequential(foreign.Either(3), foreign.Either(3))
    found = find_mixed_ops(net, images(8)).mixed
    assert [one.path for one in found] == ["0", "1"]
    assert found[0].names == ("wide", "narrow", "pool")
    for one in found:
        torch.testing.assert_close(torch.tensor(one.weights), net.get_submodule(one.path).alpha.detach().softmax(0))


class Branches(nn.Module):
    """Children on the same input, put together by `how`; `listed`: they lie in a ModuleList."""

    def __init__(self, how, branches, listed=True):
        super().__init__()
        self.how = how
        self.listed = listed
        if listed:
            self.branches = nn.ModuleList(branches)
        else:
            for number, branch in enumerate(branches):
                self.add_module(f"branch{number}", branch)

    def forward(self, x):
        branches = self.branches if self.listed else self.children()
        return self.how([branch(x) for branch in branches], x)


def several():
    return [ReLUConvBN(3, 3, 3), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)]


def gate(outputs, x):
    share = torch.stack([x.mean((1, 2, 3)), x.std((1, 2, 3)), x.amax((1, 2, 3))], 1).softmax(1)
    return sum(share[:, k, None, None, None] * y for k, y in enumerate(outputs))


NO_CHOICES = {
    "concatenated branches": (lambda: Branches(lambda ys, x: torch.cat(ys, 1), several()), "branches", "cosine"),
    "RepVGG": (lambda: Branches(lambda ys, x: sum(ys).relu(), several(), False), "", "no weighted sum"),
    "a plain sum": (lambda: Branches(lambda ys, x: sum(ys), several(), False), "", "has no weight"),
    "gains": (lambda: Branches(lambda ys, x: 0.3 * ys[0] + 0.9 * ys[1] + x, several(), False), "", "no shares of one"),
    "MobileOne": (
        lambda: Branches(lambda ys, x: sum(ys), [ReLUConvBN(3, 3, 3) for _ in range(4)]),
        "branches",
        "alike in structure",
    ),
    "an ensemble": (
        lambda: Branches(lambda ys, x: torch.stack(ys).mean(0), [nn.Conv2d(3, 3, 3) for _ in range(3)]),
        "branches",
        "alike in structure",
    ),
    "heads": (lambda: Branches(lambda ys, x: ys, [nn.Conv2d(3, 3, 1) for _ in range(3)]), "branches", "cosine"),
    "a gate over experts": (lambda: Branches(gate, [nn.Conv2d(3, 3, 1) for _ in range(3)]), "branches", "cosine"),
    "a gate over unlike experts": (lambda: Branches(gate, several()), "branches", "cosine"),
    "products": (lambda: Branches(lambda ys, x: ys[0] * ys[1] + ys[2], several()), "branches", "cosine"),
    "a dead net": (lambda: Branches(lambda ys, x: sum(ys).detach(), several()), "branches", "no gradient reaches"),
}


@pytest.mark.parametrize("name", NO_CHOICES)
def test_branches_that_are_no_choice_are_rejected_with_a_reason(name):
    build, path, reason = NO_CHOICES[name]
    found = find_mixed_ops(build(), images(8))
    assert not found.mixed
    assert reason in found.rejected[path]


def discrete_darts():
    """The evaluation net of a genotype: two operations a node, on any earlier state."""

    class Discrete(nn.Module):
        def __init__(self, c):
            super().__init__()
            self.preprocess0, self.preprocess1 = ReLUConvBN(c, c), ReLUConvBN(c, c)
            names = ["sep3", "sep3", "sep3", "sep3", "sep3", "skip", "skip", "dil3"]
            self._ops = nn.ModuleList(foreign.op(name, c, 1) for name in names)
            self._indices = [0, 1, 0, 1, 1, 0, 0, 2]
            self.out = nn.Conv2d(4 * c, c, 1)

        def forward(self, x):
            states = [self.preprocess0(x), self.preprocess1(x)]
            for node in range(4):
                a, b = (self._ops[k](states[self._indices[k]]) for k in (2 * node, 2 * node + 1))
                states.append(a + b)
            return self.out(torch.cat(states[2:], 1))

    return nn.Sequential(nn.Conv2d(3, 8, 3), Discrete(8), Discrete(8))


class SqueezeExcite(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.conv = nn.Conv2d(c, c, 3, padding=1)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(c, c, 1), nn.Sigmoid())
        self.shortcut = nn.Conv2d(c, c, 1)

    def forward(self, x):
        return self.conv(x) * self.gate(x) + self.shortcut(x)


DISCRETE = {
    "discrete DARTS": (discrete_darts, 16),
    "squeeze-excite": (lambda: nn.Sequential(SqueezeExcite(3), SqueezeExcite(3)), 8),
    "resnet18": (torchvision.models.resnet18, 32),
    "googlenet": (lambda: torchvision.models.googlenet(aux_logits=True, init_weights=False), 32),
    "densenet121": (torchvision.models.densenet121, 32),
    "deeplabv3_resnet50": (
        lambda: torchvision.models.segmentation.deeplabv3_resnet50(weights=None, weights_backbone=None, aux_loss=True),
        32,
    ),
    "mobilenet_v3_small": (torchvision.models.mobilenet_v3_small, 32),
    "swin_t": (torchvision.models.swin_t, 32),
    "shufflenet_v2_x0_5": (torchvision.models.shufflenet_v2_x0_5, 32),
    "inception_v3": (lambda: torchvision.models.inception_v3(init_weights=False), 80),
}


@pytest.mark.parametrize("name", DISCRETE)
def test_networks_without_choices(name):
    build, size = DISCRETE[name]
    assert find_mixed_ops(build(), images(size)).mixed == ()


class Touchy(foreign.DartsNet):
    """Changes whatever it can while it runs."""

    def __init__(self):
        super().__init__(4, 2)
        self.register_buffer("count", torch.zeros(()))
        self.cached = None
        self.log = []
        self.seen = torch.zeros(2)

    def forward(self, x):
        self.count += 1
        self.seen.add_(1)
        self.cached = x
        self.log.append(random.random() + np.random.random() + torch.rand(()).item())  # noqa: NPY002
        return super().forward(x)


def test_the_net_is_left_as_found():
    net = Touchy()
    net.cells[0].eval()
    net.stem[0].weight.requires_grad_(False)
    net.classifier.weight.grad = torch.ones_like(net.classifier.weight)
    calls = []
    net.register_forward_hook(lambda *_: calls.append(1))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    modes = [module.training for module in net.modules()]
    hooks = [(len(module._forward_hooks), len(module._forward_pre_hooks)) for module in net.modules()]
    flags = [value.requires_grad for value in net.parameters()]
    alphas, state, drawn = net.alphas_normal.clone(), torch.get_rng_state(), random.getstate()
    assert find_mixed_ops(net, images()).mixed
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert [module.training for module in net.modules()] == modes
    assert [(len(module._forward_hooks), len(module._forward_pre_hooks)) for module in net.modules()] == hooks
    assert [value.requires_grad for value in net.parameters()] == flags
    assert [value.grad is None for value in net.parameters()].count(False) == 1
    assert net.classifier.weight.grad.unique().tolist() == [1.0]
    assert (net.cached, net.log, net.seen.tolist()) == (None, [], [0.0, 0.0])
    assert torch.equal(net.alphas_normal, alphas)
    assert net.alphas_normal.grad is None
    assert random.getstate() == drawn
    images()
    torch.set_rng_state(state)
    copy.deepcopy(net)


def test_random_states_are_left_as_found():
    net, x = Touchy(), images()
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    find_mixed_ops(net, x)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


def test_a_batch_of_one_is_doubled_and_gradients_may_be_off():
    with torch.no_grad():
        found = find_mixed_ops(foreign.Bench201Net(), images(8, batch=1)).mixed
    assert len(found) == 18
    assert found[0].input_shape == (2, 4, 8, 8)


def test_a_net_without_gradients_is_no_reason_to_fail():
    class Spoiled(nn.Module):
        def __init__(self):
            super().__init__()
            self.ops = nn.ModuleList([nn.Conv2d(3, 3, 1), nn.Sigmoid()])

        def forward(self, x):
            one, other = (each(x) for each in self.ops)
            hidden = one.exp()
            total = 0.5 * hidden + 0.5 * other
            hidden.zero_()
            return total

    found = find_mixed_ops(Spoiled(), images(8))
    assert not found.mixed
    assert "no gradients to tell by; RuntimeError" in found.rejected["ops"]


def test_frozen_weights_make_no_difference():
    net = foreign.Bench201Net().requires_grad_(False)
    assert len(find_mixed_ops(net, images(8)).mixed) == 18


@pytest.mark.parametrize("inputs", [(), [torch.zeros(2, 3, 8, 8)], (torch.zeros(2, 3, 8, 8), 1)])
def test_inputs_must_be_tensors(inputs):
    with pytest.raises(InputError, match="expected example_inputs to be a tensor or a tuple of tensors"):
        find_mixed_ops(foreign.chain(), inputs)


def test_inputs_must_fit():
    with pytest.raises(InputError, match=r"does not run in eval mode on inputs of shape \[2, 5, 8, 8\]"):
        find_mixed_ops(foreign.chain(), torch.zeros(2, 5, 8, 8))


KINDS = (
    lambda c: nn.Conv2d(c, c, 3, padding=1),
    lambda c: nn.Conv2d(c, c, 1),
    lambda c: nn.AvgPool2d(3, 1, 1),
    lambda c: nn.Identity(),
    lambda c: foreign.Zero(),
    lambda c: nn.Sequential(nn.Conv2d(c, c, 5, padding=2), nn.ReLU(inplace=True)),
    lambda c: ReLUConvBN(c, c, 3),
)


class Weighted(nn.Module):
    def __init__(self, ops, weights, stacked):
        super().__init__()
        self.ops = nn.ModuleList(ops)
        self.weights = weights
        self.stacked = stacked

    def forward(self, x):
        outputs = [each(x) for each in self.ops]
        if self.stacked:
            return (torch.stack(outputs) * self.weights.view(-1, 1, 1, 1, 1)).sum(0)
        total = 0.0
        for weight, output in zip(self.weights, outputs, strict=True):
            total += weight * output
        return total


@settings(max_examples=15, derandomize=True)
@given(
    st.lists(st.lists(st.sampled_from(range(len(KINDS))), min_size=2, max_size=5, unique=True), min_size=1, max_size=3),
    st.integers(0, 2**16),
    st.booleans(),
    st.sampled_from([1e-3, 1.0, 4.0]),
)
def test_random_mixtures_are_found_with_their_weights(choices, seed, stacked, spread):
    torch.manual_seed(seed)
    layers = []
    for kinds in choices:
        weights = (spread * torch.randn(len(kinds))).softmax(0)
        layers += [Weighted([KINDS[kind](4) for kind in kinds], weights, stacked), nn.BatchNorm2d(4)]
    net = nn.Sequential(nn.Conv2d(3, 4, 3), *layers, nn.Conv2d(4, 2, 1))
    found = find_mixed_ops(net, torch.randn(2, 3, 6, 6)).mixed
    assert [one.path for one in found] == [f"{2 * number + 1}.ops" for number in range(len(choices))]
    for number, one in enumerate(found):
        torch.testing.assert_close(torch.tensor(one.weights), net[2 * number + 1].weights, atol=1e-5, rtol=1e-4)
