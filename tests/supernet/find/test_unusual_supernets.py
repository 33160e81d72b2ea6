"""Supernets that differ from what most people write: zeros under other names, containers that are named."""

import pytest
import torch
from torch import nn

import nasprune
from nasprune.errors import InputError
from tests.supernet.find.edges import Edge, Indexed, Net, OneOf, candidates, connected
from tests.supernet.toys import Toy, Zero, images


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


def test_single_path_candidates_are_found_when_named():
    net = Net(OneOf(candidates()), OneOf(candidates()))
    with pytest.raises(InputError, match="Name them with `choices=`"):
        nasprune.Supernet.from_model(net, images())
    supernet = nasprune.Supernet.from_model(net, images(), choices=["edges.*"], weights=lambda edge: edge.module.alpha)
    assert [(one.path, one.single_path, one.names) for one in supernet.structure.mixed] == [
        (path, True, ("Identity", "Conv2d", "Conv2d.2")) for path in ("edges.0", "edges.1")
    ]
    assert "OneOf, named" in supernet.summary()
    ones = {choice.name: torch.ones(3) for choice in supernet.choices}
    with supernet.gated(ones), torch.no_grad():
        assert net(images()).shape == (4, 10)


@pytest.mark.parametrize("keep", [1, 2])
def test_named_single_path_candidates_are_trimmed(keep):
    net = Net(OneOf(candidates()), OneOf(candidates()))
    supernet = nasprune.Supernet.from_model(net, images(), choices=["edges.*"], weights=lambda edge: edge.module.alpha)
    trimmed = supernet.trim("100%", keep_max=keep, scorer="alpha")
    assert all(len(kept) == keep for kept in trimmed.choices.values())
    assert connected(trimmed.model)
    again = trimmed.supernet.trim(keep_max=1, scorer="alpha")
    best = [("Identity", "Conv2d", "Conv2d.2")[int(edge.alpha.argmax())] for edge in net.edges]
    assert [kept for (kept,) in again.choices.values()] == best
    if keep == 1:
        with torch.no_grad():
            torch.testing.assert_close(again.model.eval()(images()), net.eval()(images()))


def test_candidates_alike_in_structure_are_found_when_named():
    net = Net(*(Edge([nn.Conv2d(4, 4, 1) for _ in range(3)]) for _ in range(2)))
    for paths in (["edges.*"], ["edges.*.ops"], ["edges.0", "edges.1.ops"]):
        supernet = nasprune.Supernet.from_model(net, images(), choices=paths)
        assert len(supernet.structure.mixed) == 2
        for edge, one in zip(net.edges, supernet.structure.mixed, strict=True):
            torch.testing.assert_close(torch.tensor(one.weights), edge.alpha.detach().softmax(0))
    trimmed = supernet.trim("60%", keep_max=1, scorer="alpha")
    assert connected(trimmed.model)


def test_what_is_named_adds_to_what_is_recognised():
    net = Net(Edge(candidates()), Edge([nn.Conv2d(4, 4, 1) for _ in range(3)]), OneOf(candidates()), nn.ReLU())
    supernet = nasprune.Supernet.from_model(net, images(), choices=["edges.*.ops", "edges.2"])
    assert [one.path for one in supernet.structure.mixed] == ["edges.0.ops", "edges.1.ops", "edges.2"]
    few = nasprune.Supernet.from_model(net, images(), choices=["*"])
    assert [one.path for one in few.structure.mixed] == ["edges.0.ops"]


class Block(nn.Module):
    """Residual: two modules read the same and give the same shape, and neither is a candidate."""

    def __init__(self):
        super().__init__()
        self.conv, self.shortcut = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        return self.conv(x).relu() + self.shortcut(x)


def test_a_star_takes_only_what_is_seen_to_be_mixed_and_a_path_takes_all():
    net = Net(Edge(candidates()), Block())
    wide = nasprune.Supernet.from_model(net, images(), choices=["edges.*"])
    assert [one.path for one in wide.structure.mixed] == ["edges.0.ops"]
    assert any("edges.1: no choice: conv, shortcut" in note for note in wide.structure.notes)
    both = nasprune.Supernet.from_model(net, images(), choices=["edges.*", "edges.1"])
    assert [(one.path, one.weights is None) for one in both.structure.mixed] == [
        ("edges.0.ops", False),
        ("edges.1", True),
    ]


@pytest.mark.parametrize(
    ("net", "path", "reason"),
    [
        (lambda: Indexed(candidates()), "edges.0", "edges.0: only one of its candidates runs, and it is not called"),
        (lambda: Net(OneOf(candidates(), gain=2)), "edges.0", "does more than to call it"),
        (lambda: Net(OneOf([nn.Conv2d(4, 3, 1), nn.Identity()])), "edges.0", r"'0' gives \(4, 3, 8, 8\)"),
        (lambda: Indexed([nn.ReLU(), nn.Conv2d(4, 4, 1)], chain=True), "edges.0", "do not read the same tensor"),
        (lambda: Net(Edge(candidates())), "edges.0.ops.1", "no module that holds others has this path"),
        (lambda: Net(nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 1))), "edges.?", "do not read the same tensor"),
        (lambda: Net(nn.Sequential(nn.ReLU())), "edges.0", "holds fewer than two modules"),
    ],
)
def test_what_is_named_and_has_no_candidates_is_refused_with_the_reason(net, path, reason):
    with pytest.raises(InputError, match=reason):
        nasprune.Supernet.from_model(net(), images(), choices=[path])


def test_values_that_are_no_numbers_are_refused_by_name():
    net = Toy().eval()
    name, value = list(net.named_parameters())[-1]
    with torch.no_grad():
        value.view(-1)[0] = torch.nan
    with pytest.raises(InputError, match=f"{name} holds values that are no numbers"):
        nasprune.Supernet.from_model(net, images())
