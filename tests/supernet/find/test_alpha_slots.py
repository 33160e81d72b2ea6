"""Architecture weights are found where a net holds them, and again in its copies."""

import copy

import pytest
import torch

from nasprune.supernet.find.alpha_slots import Slot, find_slot, plain_tensors
from tests.supernet import foreign

HELD = {
    "a plain tensor": (foreign.DartsNet, lambda net: net.alphas_normal, Slot("", "alphas_normal", None, ())),
    "a row": (foreign.DartsNet, lambda net: net.alphas_reduce[3], Slot("", "alphas_reduce", None, (3,))),
    "by way of a list": (foreign.DartsNet, lambda net: net._arch_parameters[1], Slot("", "alphas_reduce", None, ())),
    "a number": (foreign.DartsNet, lambda net: net.alphas_normal[3, 4], Slot("", "alphas_normal", None, (3, 4))),
    "a column": (
        foreign.DartsNet,
        lambda net: net.alphas_normal[:, 5],
        Slot("", "alphas_normal", None, ((0, 14, 1), 5)),
    ),
    "a piece of a row": (
        foreign.DartsNet,
        lambda net: net.alphas_normal[2, 3:6],
        Slot("", "alphas_normal", None, (2, (3, 6, 1))),
    ),
    "every other number": (
        foreign.DartsNet,
        lambda net: net.alphas_normal[2:12:2, 1],
        Slot("", "alphas_normal", None, ((2, 11, 2), 1)),
    ),
    "of a dict": (foreign.SwitchedNet, lambda net: net.alphas["normal_3"], Slot("alphas", "normal_3", None, ())),
    "a row of a parameter": (
        foreign.Bench201Net,
        lambda net: net.arch_parameters.detach()[5],
        Slot("", "arch_parameters", None, (5,)),
    ),
}


@pytest.mark.parametrize("name", HELD)
def test_what_is_held_is_found_and_read_in_a_copy(name):
    build, take, expected = HELD[name]
    net = build(4) if build is foreign.Bench201Net else build(4, 2)
    slot = find_slot(net, take(net))
    assert slot == expected
    twin = copy.deepcopy(net)
    view = slot.read(twin)
    assert torch.equal(view, take(net))
    with torch.no_grad():
        view.fill_(7.0)
    assert torch.equal(take(twin), torch.full_like(view, 7.0))
    assert not torch.equal(take(net), torch.full_like(view, 7.0))


def test_only_in_a_list():
    net = foreign.chain()
    net.weights = [torch.randn(3), torch.randn(4, 2)]
    assert find_slot(net, net.weights[1][2]) == Slot("", "weights", 1, (2,))


def test_a_piece_of_a_flat_tensor():
    net = foreign.chain()
    net.weights = torch.randn(12)
    for start in (0, 3, 9):
        assert find_slot(net, net.weights[start : start + 3]) == Slot("", "weights", None, ((start, start + 3, 1),))


@pytest.mark.parametrize("change", [lambda t: t.softmax(-1), lambda t: t[3] * 1, lambda t: t[:, :3], lambda t: t[2:4]])
def test_what_is_computed_or_no_row_is_not_held(change):
    net = foreign.DartsNet(4, 2)
    assert find_slot(net, change(net.alphas_normal)) is None


def test_tensors_that_a_state_dict_lacks():
    net = foreign.PartialNet(8, 2)
    plain = plain_tensors(net)
    assert list(plain) == ["alphas_normal", "alphas_reduce", "betas_normal", "betas_reduce"]
    assert plain["betas_normal"] is net.betas_normal
    assert plain_tensors(foreign.SwitchedNet(4, 2)) == {}
