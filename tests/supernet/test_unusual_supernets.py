"""Supernets that differ from what most people write: zeros under other names, named containers, shared modules."""

import pytest
import torch
from torch import nn

import nasprune
from nasprune.errors import InputError
from tests.supernet.toys import Zero, conv, images


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


class NoConn(nn.Module):
    def forward(self, x):
        return x * 0


class Dead(nn.Module):
    """Has parameters, and gives zeros because all is below its ReLU."""

    def __init__(self, c):
        super().__init__()
        self.conv = nn.Conv2d(c, c, 1)
        nn.init.constant_(self.conv.bias, -1e3)

    def forward(self, x):
        return self.conv(x).relu()


class Edge(nn.Module):
    """A weighted sum; how architecture weights become shares is up to `mix`."""

    def __init__(self, ops, mix=None):
        super().__init__()
        self.ops = nn.ModuleList(ops)
        self.alpha = nn.Parameter(torch.randn(len(self.ops)))
        self.mix = mix or (lambda alpha: alpha.softmax(0))

    def forward(self, x):
        return sum(w * op(x) for w, op in zip(self.mix(self.alpha), self.ops, strict=True))


class Net(nn.Module):
    def __init__(self, *edges, c=4):
        super().__init__()
        self.stem = nn.Conv2d(1, c, 3, padding=1)
        self.edges = nn.Sequential(*edges)
        self.head = nn.Linear(c, 10)

    def forward(self, x):
        return self.head(self.edges(self.stem(x)).mean((2, 3)))


def candidates(c=4):
    return [nn.Identity(), conv(c, 1), conv(c, 3)]


def connected(net):
    with torch.no_grad():
        one, other = net(images(seed=1)), net(images(seed=2))
    return not torch.equal(one, other)


def of_zeros(*zeros):
    """A net whose architecture weights all favour its zero operations."""
    net = Net(*(Edge([*(zero() for zero in zeros), *candidates()]) for _ in range(2))).eval()
    with torch.no_grad():
        for edge in net.edges:
            edge.alpha[: len(zeros)] = 3.0
    return net


@pytest.mark.parametrize("zeros", [(NoConn,), (NoConn, Zero), (Zero, NoConn)])
def test_what_gives_zeros_connects_nothing_whatever_its_name(zeros):
    supernet = nasprune.Supernet.from_model(of_zeros(*zeros), images())
    assert all(choice.connecting == tuple(range(len(zeros), len(choice.ops))) for choice in supernet.choices)
    assert [choice.none for choice in supernet.choices] == [0, 0]
    trimmed = supernet.trim("60%", keep_max=1, scorer="alpha")
    assert all(len(kept) == 1 and kept[0] not in ("NoConn", "Zero") for kept in trimmed.choices.values())
    assert connected(trimmed.model)


def test_what_gives_zeros_is_still_known_after_a_trim():
    supernet = nasprune.Supernet.from_model(of_zeros(NoConn), images())
    small = supernet.keep({choice.name: (0, 2) for choice in supernet.choices})
    assert [(choice.ops, choice.none, choice.zeros) for choice in small.choices] == [
        (("NoConn", "Conv2d"), 0, (0,))
    ] * 2
    assert [one.zeros for one in small.structure.mixed] == [(0,), (0,)]
    with pytest.raises(InputError, match="would connect nothing"):
        small.keep({small.choices[0].name: ["NoConn"]})


def test_a_convolution_that_is_dead_for_now_connects():
    supernet = nasprune.Supernet.from_model(Net(Edge([Dead(4), *candidates()])), images())
    assert supernet.choices[0].connecting == (0, 1, 2, 3)


def test_tied_candidates_connect_where_one_of_them_does():
    ops = [[NoConn(), *candidates()], [nn.Sigmoid(), *candidates()]]
    net = Net(*(Edge(some) for some in ops))
    names = ("first", "skip", "conv1", "conv3")
    supernet = nasprune.Supernet.from_model(net, images(), group=lambda edge: "all", op_names=names)
    assert supernet.choices[0].none is None
