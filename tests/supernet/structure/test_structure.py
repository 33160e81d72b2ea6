"""Choices, gates, removal and prices of a supernet that is nobody's but the user's."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import nasprune
from nasprune.errors import InputError
from nasprune.supernet.cut.removal import OFF, Removed, cut
from nasprune.supernet.price.counting import count_module
from nasprune.supernet.structure.recognise import recognise
from nasprune.supernet.structure.structure import Structure
from tests.supernet.toys import OPS, Toy, images


def structure(net: Toy, *, weights: bool = True) -> Structure:
    return recognise(
        net.eval(),
        images(),
        choices=None,
        group=lambda place: f"edge/{place.index}",
        weights=(lambda place: net.alphas[place.index]) if weights else None,
        op_names=OPS,
        space=None,
    )


def ones(of: Structure) -> dict[str, torch.Tensor]:
    return {choice.name: torch.ones(len(choice.ops)) for choice in of.choices}


def test_six_mixed_operations_decide_as_three():
    found = structure(Toy())
    assert [choice.name for choice in found.choices] == ["edge/0", "edge/1", "edge/2"]
    assert [choice.places for choice in found.choices] == [(0, 3), (1, 4), (2, 5)]
    assert found.choices[0].ops == OPS
    assert found.choices[0].none == 0


@pytest.mark.parametrize("plain", [False, True])
def test_weights_are_found_where_the_net_holds_them_and_in_copies(plain):
    net = Toy(plain=plain)
    found = structure(net)
    clone = copy.deepcopy(net)
    with torch.no_grad():
        clone.alphas += 1.5
    for number, choice in enumerate(found.choices):
        assert torch.equal(found.logits_in(net, choice), net.alphas[number])
        assert torch.equal(found.logits_in(clone, choice), clone.alphas[number])
        assert found.logits_in(net, choice).requires_grad


def test_without_weights_the_shares_are_those_seen():
    net = Toy()
    found = structure(net, weights=False)
    for number, choice in enumerate(found.choices):
        torch.testing.assert_close(
            found.shares_in(net, choice), net.alphas[number].softmax(0).detach(), rtol=0, atol=1e-4
        )
        assert found.logits_in(net, choice) is None


def test_gates_of_one_change_nothing_and_leave_nothing():
    net = Toy()
    found = structure(net)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    expected = net(images())
    with found.gated(ones(found)):
        assert torch.equal(net(images()), expected)
    assert all(not module._forward_hooks for module in net.modules())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_a_gate_acts_wherever_the_choice_occurs():
    net = Toy()
    found = structure(net)
    gates = ones(found)
    gates["edge/1"] = torch.tensor([1.0, 0.0, 1.0, 1.0])
    with found.gated(gates):
        gated = net(images())
    by_hand = copy.deepcopy(net)
    for cell in by_hand.cells:
        cell.edges[1][1] = type(net.cells[0].edges[0][0])()
    torch.testing.assert_close(gated, by_hand(images()))


def test_keeping_some_gives_the_net_with_the_others_silenced_and_the_shares_renormalised():
    net = Toy()
    small = structure(net).keep({"edge/0": ["skip", "conv3"], "edge/2": ["conv1"]})
    expected = copy.deepcopy(net)
    with torch.no_grad():
        expected.alphas[0, [0, 2]] = -torch.inf
        expected.alphas[2, [0, 1, 3]] = -torch.inf
    torch.testing.assert_close(small.net(images()), expected(images()))
    assert [choice.ops for choice in small.choices] == [("skip", "conv3"), OPS, ("conv1",)]
    assert float(small.net.alphas[0, 2].detach()) == OFF
    assert isinstance(small.net.cells[1].edges[0][2], Removed)
    assert sum(p.numel() for p in small.net.parameters()) < sum(p.numel() for p in net.parameters())


def test_the_original_is_untouched():
    net = Toy()
    before = copy.deepcopy(net.state_dict())
    structure(net).keep({"edge/0": ["conv3"]})
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("single", [False, True])
def test_what_stands_in_for_candidates_lies_where_the_net_does(single):
    net = nn.Sequential(OnePath(1, "one"), nn.Flatten(), nn.Linear(64, 10)).eval() if single else Toy()
    found = recognise(net, images(), None, None, None, None, None) if single else structure(net)
    kept = {choice.name: (0, 1) for choice in found.choices}
    small = cut(net.to("meta"), found.mixed, found.choices, kept)
    assert {value.device.type for value in (*small.parameters(), *small.buffers())} == {"meta"}


@pytest.mark.parametrize("kept", [{}, {"edge/0": ["skip"]}, {"edge/0": [3], "edge/1": ["none", "conv1"]}])
def test_prices_equal_the_count_of_what_is_built(kept):
    small = structure(Toy()).keep(kept)
    assert small.counts == count_module(small.net, (1, 1, 8, 8))


def test_a_smaller_supernet_is_trimmed_further():
    once = structure(Toy()).keep({"edge/0": ["skip", "conv3"]})
    twice = once.keep({"edge/0": ["conv3"]})
    assert twice.choices[0].ops == ("conv3",)
    assert twice.counts == count_module(twice.net, (1, 1, 8, 8))
    assert torch.equal(twice.logits_in(twice.net, twice.choices[0]), twice.net.alphas[0, 3:])


def test_edges_that_nothing_enters_or_nobody_hears_go_too():
    """Without edge 0 -> 1 node 1 is dead, so edge 1 -> 2 reads zeros; without 1 -> 2 nobody hears edge 0 -> 1."""
    for gone, also in (("edge/0", "edge/2"), ("edge/2", "edge/0")):
        small = structure(Toy()).keep({gone: []})
        assert [choice.name for choice in small.choices] == ["edge/1"], f"without {gone} {also} must go"
        assert small.counts == count_module(small.net, (1, 1, 8, 8))
        assert all(isinstance(op, Removed) for cell in small.net.cells for op in (*cell.edges[0], *cell.edges[2]))


def test_nothing_left_is_refused():
    with pytest.raises(InputError, match="nothing connects the output with the input"):
        structure(Toy()).keep({"edge/1": [], "edge/2": []})


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ({"edge/9": ["skip"]}, "no choice 'edge/9'"),
        ({"edge/0": ["conv5"]}, "has the candidates"),
        ({"edge/0": ["none"]}, "would connect nothing"),
    ],
)
def test_impossible_selections_are_refused(kept, message):
    with pytest.raises(InputError, match=message):
        structure(Toy()).keep(kept)


def test_a_trimmed_supernet_still_trains():
    small = structure(Toy()).keep({"edge/0": ["skip", "conv3"], "edge/1": ["conv1", "conv3"]})
    net = small.net.train()
    optimiser = torch.optim.Adam(net.parameters(), lr=0.01, weight_decay=1e-3)
    first = None
    for _ in range(30):
        loss = nn.functional.cross_entropy(net(images(16)), torch.arange(16) % 10)
        first = float(loss.detach()) if first is None else first
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < first
    assert net.alphas.isfinite().all()
    assert float(net.alphas[0].softmax(0)[2].detach()) == 0.0


def test_what_is_left_of_the_channels_is_pruned_like_any_model():
    small = structure(Toy()).keep({name: ["conv1", "conv3"] for name in ("edge/0", "edge/1", "edge/2")})
    graph = nasprune.trace(small.net, images(1))
    assert any(group.frozen_because is None for group in graph.groups)
    result = nasprune.search(small.net, images(1), "60%", trials=5)
    assert result.report.proof.ok
    assert result.report.cut.flops <= 0.6 * result.report.dense.flops


class OnePath(nn.Module):
    """Runs one candidate at a time; known by its class name."""

    def __init__(self, channels: int, label: str) -> None:
        super().__init__()
        self.label = label
        self.names = ["skip", "conv1", "conv3"]
        for name, module in zip(
            self.names,
            (nn.Identity(), nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 3, padding=1)),
            strict=True,
        ):
            self.add_module(name, module)

    def forward(self, x):
        return self._modules[self.names[0]](x)


OnePath.__name__ = OnePath.__qualname__ = "LayerChoice"


def test_single_path_choices_become_plain_modules():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        OnePath(4, "first"),
        nn.ReLU(),
        OnePath(4, "second"),
        nn.Flatten(),
        nn.Linear(256, 10),
    )
    found = recognise(net.eval(), images(), None, None, None, None, None)
    assert [choice.ops for choice in found.choices] == [("skip", "conv1", "conv3")] * 2
    assert [choice.name for choice in found.choices] == ["first", "second"]
    with found.gated({}):
        both = net(images())
    x = net[0](images())
    x = (x + net[1].conv1(x) + net[1].conv3(x)) / 3
    x = x.relu()
    x = (x + net[3].conv1(x) + net[3].conv3(x)) / 3
    torch.testing.assert_close(both, net[5](x.flatten(1)))
    small = found.keep({"first": ["conv3"], "second": ["skip", "conv1"]})
    assert isinstance(small.net[1], nn.Conv2d)
    assert small.counts == count_module(small.net, (1, 1, 8, 8))
    smaller = small.keep({"second": ["conv1"]})
    assert smaller.counts == count_module(smaller.net, (1, 1, 8, 8))
