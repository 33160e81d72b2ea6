"""Candidates that stand in several places, have several names, or of which one runs at a time."""

import copy
import re

import pytest
import torch
from torch import nn

import nasprune
from nasprune.errors import InputError
from tests.supernet.find.edges import Edge, Indexed, Net, OneOf, candidates, connected
from tests.supernet.toys import conv, images


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


class Aliased(Net):
    """Has a second name for candidates, `first` or last; where `used`, they run there too."""

    def __init__(self, *edges, first=False, used=False):
        super().__init__(*edges)
        self.all = nn.ModuleList(edge.ops[2] for edge in edges)
        if first:
            self._modules = dict(sorted(self._modules.items()))
        self.used = used

    def forward(self, x):
        x = self.stem(x)
        if self.used:
            x = self.all[0](x)
        return self.head(self.edges(x).mean((2, 3)))


def one_skip():
    skip = nn.Identity()
    return Net(*(Edge([skip, conv(4, 1), conv(4, 3)]) for _ in range(3)))


def one_conv():
    shared = conv(4, 3)
    return Net(*(Edge([nn.Identity(), shared, conv(4, 1)]) for _ in range(3)))


def one_edge():
    edge = Edge(candidates())
    return Net(edge, edge)


def twice_in_one_edge():
    shared = conv(4, 3)
    return Net(Edge([nn.Identity(), shared, shared]))


@pytest.mark.parametrize(
    ("build", "paths"),
    [
        (one_skip, r"edges\.0\.ops\.0 .* edges\.1\.ops\.0, edges\.2\.ops\.0"),
        (one_conv, r"edges\.0\.ops\.1 .* edges\.1\.ops\.1, edges\.2\.ops\.1"),
        (one_edge, r"edges\.0\.ops\.0 .* edges\.1\.ops\.0"),
        (twice_in_one_edge, r"edges\.0\.ops\.1 .* edges\.0\.ops\.2"),
        (lambda: Aliased(Edge(candidates()), used=True), r"edges\.0\.ops\.2 .* all\.0"),
        (lambda: Aliased(Edge(candidates()), first=True, used=True), r"edges\.0\.ops\.2 .* all\.0"),
    ],
)
def test_candidates_that_several_places_share_are_refused(build, paths):
    net = build()
    modules = dict(net.named_modules(remove_duplicate=False))
    with pytest.raises(InputError, match=f"{paths}.*copy.deepcopy"):
        nasprune.Supernet.from_model(net, images())
    after = dict(net.named_modules(remove_duplicate=False))
    assert list(after) == list(modules)
    assert all(after[path] is module for path, module in modules.items())


def advised(net):
    """The net after the code in the message that refuses it; one message is of one shared module."""
    for _ in range(9):
        try:
            return nasprune.Supernet.from_model(net, images())
        except InputError as error:
            (code,) = re.findall("`(for path in .*)`", str(error))
            exec(code, {"net": net, "copy": copy})
    raise AssertionError


@pytest.mark.parametrize("build", [one_skip, one_conv, one_edge, twice_in_one_edge])
def test_the_code_in_the_message_gives_every_place_a_module_of_its_own(build):
    net = build().eval()
    with torch.no_grad():
        before = net(images())
    supernet = advised(net)
    assert [len(choice.ops) for choice in supernet.choices] == [3] * len(net.edges)
    with torch.no_grad():
        assert torch.equal(net(images()), before)


@pytest.mark.parametrize("kind", [nn.ModuleList, nn.ModuleDict])
def test_lists_that_the_net_indexes_are_refused_with_the_code_that_helps(kind):
    one = candidates() if kind is nn.ModuleList else {"a": nn.Identity(), "1": nn.Conv2d(4, 4, 1)}
    edges = [one, one]
    net = Indexed(*(copy.deepcopy(edge) for edge in edges), kind=kind).eval()
    with pytest.raises(InputError, match=r"edges.0: no choice: of its \d modules only '1' runs") as refused:
        nasprune.Supernet.from_model(net, images())
    (code,) = re.findall("`(class OneOf.*?)`", str(refused.value))[:1]
    known = {"nn": nn}
    exec(code, known)
    called = Indexed(*(copy.deepcopy(edge) for edge in edges), kind=known["OneOf"], call=True).eval()
    called.load_state_dict(net.state_dict())
    supernet = nasprune.Supernet.from_model(called, images(), choices=["edges.0", "edges.1"])
    stays = {choice.name: [1] for choice in supernet.choices}
    with torch.no_grad():
        torch.testing.assert_close(supernet.keep(stays).net(images()), net(images()))


def test_lists_of_like_modules_of_which_one_runs_are_not_told():
    net = Net(Edge(candidates()), OneOf([nn.Conv2d(4, 4, 1) for _ in range(3)]))
    assert not any("edges.1" in note for note in nasprune.Supernet.from_model(net, images()).structure.notes)


def test_candidates_that_run_several_times_are_told():
    class Recurrent(Net):
        def forward(self, x):
            return self.head(self.edges(self.edges(self.stem(x))).mean((2, 3)))

    with pytest.raises(InputError, match=r"edges\.0\.ops: no choice: they run several times"):
        nasprune.Supernet.from_model(Recurrent(Edge(candidates())), images())


@pytest.mark.parametrize("first", [False, True])
def test_a_second_name_of_a_candidate_is_no_harm(first):
    net = Aliased(Edge(candidates()), Edge(candidates()), first=first)
    supernet = nasprune.Supernet.from_model(net, images())
    assert [one.path for one in supernet.structure.mixed] == ["edges.0.ops", "edges.1.ops"]
    trimmed = supernet.trim("60%", keep_max=1, scorer="flops_order")
    assert all(len(kept) == 1 for kept in trimmed.choices.values())
    assert all(trimmed.model.all[k] is edge.ops[2] for k, edge in enumerate(trimmed.model.edges))
    assert connected(trimmed.model)


def test_single_path_candidates_with_a_second_name_are_refused():
    net = Aliased(OneOf(candidates()))
    with pytest.raises(InputError, match=r"edges\.0\.ops\.2 .* all\.0"):
        nasprune.Supernet.from_model(net, images(), choices=["edges.0"])
