"""Supernets that differ from what most people write: zeros under other names, named containers, shared modules."""

import copy
import re

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
    net.eval()
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


class OneOf(nn.Module):
    """Single-path: runs the candidate with the greatest architecture weight."""

    def __init__(self, ops, gain=1):
        super().__init__()
        self.ops = nn.ModuleList(ops)
        self.alpha = nn.Parameter(torch.randn(len(self.ops)))
        self.gain = gain

    def forward(self, x):
        return self.gain * self.ops[int(self.alpha.argmax())](x)


class Indexed(nn.Module):
    """The net indexes its lists of candidates, unless it is to `call` them; `chain`: applied one after another."""

    def __init__(self, *edges, chain=False, kind=nn.ModuleList, call=False):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.edges = nn.ModuleList(kind(ops) for ops in edges)
        self.head = nn.Linear(4, 10)
        self.chain, self.call = chain, call

    def forward(self, x):
        x = self.stem(x)
        for edge in self.edges:
            if self.chain:
                for op in edge:
                    x = op(x)
            else:
                x = edge(x) if self.call else edge["1" if isinstance(edge, nn.ModuleDict) else 1](x)
        return self.head(x.mean((2, 3)))


def test_single_path_candidates_are_found_when_named():
    net = Net(OneOf(candidates()), OneOf(candidates()))
    with pytest.raises(InputError, match="Name them with `choices=`"):
        nasprune.Supernet.from_model(net, images())
    supernet = nasprune.Supernet.from_model(
        net, images(), choices=["edges.*"], weights=lambda edge: edge.net.get_submodule(edge.path).alpha
    )
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
    supernet = nasprune.Supernet.from_model(
        net, images(), choices=["edges.*"], weights=lambda edge: edge.net.get_submodule(edge.path).alpha
    )
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


def test_candidates_of_which_one_runs_are_told_and_how_to_name_them():
    net = Net(Edge(candidates()), OneOf(candidates()))
    notes = nasprune.Supernet.from_model(net, images()).structure.notes
    assert any("edges.1.ops: no choice: of its 3 modules only" in one for one in notes)
    (named,) = (re.findall(r"choices=\['(.*?)'\]", one)[0] for one in notes if "choices=" in one)
    supernet = nasprune.Supernet.from_model(net, images(), choices=["edges.0.ops", named])
    assert [one.path for one in supernet.structure.mixed] == ["edges.0.ops", "edges.1"]


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


def own_weights(edge):
    return edge.net.get_submodule(edge.path.removesuffix(".ops")).alpha


def doubts_of(supernet):
    return [note for note in supernet.structure.notes if "the softmax of the given weights is" in note]


def test_weights_of_another_edge_are_noted():
    net = Net(*(Edge(candidates()) for _ in range(3)))
    supernet = nasprune.Supernet.from_model(net, images(), weights=lambda edge: edge.net.edges[0].alpha)
    (note,) = doubts_of(supernet)
    assert note.startswith("edges.1.ops and 1 more: the net mixes Identity 0.")
    assert note in supernet.summary()


def test_nearly_even_weights_in_another_order_are_noted():
    net = Net(*(Edge(candidates()) for _ in range(2)))
    with torch.no_grad():
        for edge, values in zip(net.edges, ([0.0, 2e-4, 4e-4], [4e-4, 2e-4, 0.0]), strict=True):
            edge.alpha.copy_(torch.tensor(values))
    assert doubts_of(nasprune.Supernet.from_model(net, images(), weights=lambda edge: edge.net.edges[0].alpha))
    assert not doubts_of(nasprune.Supernet.from_model(net, images(), weights=own_weights))


def test_a_temperature_is_noted():
    net = Net(*(Edge(candidates(), lambda alpha: (alpha / 0.1).softmax(0)) for _ in range(2)))
    (note,) = doubts_of(nasprune.Supernet.from_model(net, images(), weights=own_weights))
    assert "temperature" in note
    right = nasprune.Supernet.from_model(net, images(), weights=lambda edge: own_weights(edge) / 0.1)
    assert not doubts_of(right)


class Skipping(Edge):
    """Leaves out what connects nothing, whose share is lost."""

    def forward(self, x):
        pairs = zip(self.mix(self.alpha), self.ops, strict=True)
        return sum(w * op(x) for w, op in pairs if not isinstance(op, Zero))


def test_right_weights_raise_no_doubt():
    for kind in (Edge, Skipping):
        net = Net(*(kind([Zero(), *candidates()]) for _ in range(2)))
        supernet = nasprune.Supernet.from_model(net, images(), weights=own_weights)
        assert len(supernet.choices) == 2
        assert not doubts_of(supernet)


@pytest.mark.parametrize("hard", [False, True])
def test_shares_drawn_at_random_are_unknown(hard):
    def mix(alpha):
        return nn.functional.gumbel_softmax(alpha, 1.0, hard=hard)

    net = Net(*(Edge(candidates(), mix) for _ in range(2)))
    state = torch.get_rng_state()
    supernet = nasprune.Supernet.from_model(net, images())
    assert torch.equal(torch.get_rng_state(), state)
    assert [one.weights for one in supernet.structure.mixed] == [None, None]
    assert "edges.0.ops and 1 more: the net draws the shares of the candidates at random" in supernet.summary()
    with pytest.raises(InputError, match="give `weights=`"):
        supernet.score("alpha")
    given = nasprune.Supernet.from_model(net, images(), weights=own_weights)
    assert "at random" not in given.summary()
    assert not doubts_of(given)


def test_a_candidate_that_draws_numbers_leaves_the_shares_known():
    class Noise(nn.Module):
        def forward(self, x):
            return torch.randn_like(x)

    net = Net(Edge([Noise(), *candidates()]))
    supernet = nasprune.Supernet.from_model(net, images(), weights=own_weights)
    (one,) = supernet.structure.mixed
    torch.testing.assert_close(torch.tensor(one.weights), net.edges[0].alpha.detach().softmax(0))
    assert not doubts_of(supernet)
