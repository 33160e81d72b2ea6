"""Edges of which one candidate runs: drawn at random they are found, set they are told with the line that helps."""

import ast
import random
import re

import pytest
import torch
from torch import nn
from torch.nn import functional

import nasprune
from nasprune.errors import InputError
from tests.supernet.find.edges import Edge, Net, OneOf, candidates, connected
from tests.supernet.toys import conv, images


class Drawing(OneOf):
    def forward(self, x):
        return self.ops[random.randrange(len(self.ops))](x)


class Sampling(OneOf):
    def forward(self, x):
        return self.ops[int(torch.multinomial(self.alpha.softmax(0), 1))](x)


class Hard(OneOf):
    """As GDAS: the one with share one runs, the others are their shares."""

    def forward(self, x):
        shares = functional.gumbel_softmax(self.alpha, hard=True)
        return sum(share * op(x) if share > 0.5 else share for share, op in zip(shares, self.ops, strict=True))


class Named(nn.Module):
    """Candidates are attributes."""

    def __init__(self, ops):
        super().__init__()
        self.skip, self.small, self.large = ops
        self.choice = "small"

    def forward(self, x):
        return getattr(self, self.choice)(x)


class Attributes(Named):
    def forward(self, x):
        return getattr(self, random.choice(("skip", "small", "large")))(x)


@pytest.fixture(autouse=True)
def _drawn():
    random.seed(0)
    torch.manual_seed(0)


def recognised(net, choices=None):
    return nasprune.Supernet.from_model(net, images(), choices=choices)


@pytest.mark.parametrize("kind", [Drawing, Sampling, Hard, Attributes])
def test_what_draws_its_candidate_is_found(kind):
    net = Net(Edge(candidates()), *(kind(candidates()) for _ in range(4)))
    before = random.getstate(), torch.get_rng_state()
    supernet = recognised(net)
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    assert [one.path for one in supernet.structure.mixed] == ["edges.0.ops", *(f"edges.{n}" for n in (1, 2, 3, 4))]
    assert all(one.single_path and len(one.ops) == 3 for one in supernet.structure.mixed[1:])
    assert "seen to draw at random, which runs one candidate at a time" in supernet.summary()
    trimmed = supernet.trim(keep_max=1, scorer="flops_order")
    assert all(len(ops) == 1 for ops in trimmed.choices.values())
    assert connected(trimmed.model)


def test_candidates_that_are_alike_are_found_where_they_are_drawn():
    net = Net(*(Drawing([nn.Conv2d(4, 4, 1) for _ in range(3)]) for _ in range(4)))
    assert len(recognised(net).choices) == 4


def test_edges_that_drew_the_same_in_every_pass_are_found_with_others_of_their_class(monkeypatch):
    class Lazy(Drawing):
        def forward(self, x):
            return super().forward(x) if self is net.edges[0] else self.ops[0](x)

    net = Net(*(Lazy(candidates()) for _ in range(2)), OneOf(candidates()))
    supernet = recognised(net)
    assert [one.path for one in supernet.structure.mixed] == ["edges.0", "edges.1"]
    assert "name them with choices=['edges.*']" in supernet.summary()


@pytest.mark.parametrize("after", [torch.relu, torch.tanh])
def test_more_than_the_drawn_candidate_is_refused_with_the_class_that_helps(after):
    """A ReLU after a ReLU changes nothing, and is more all the same."""

    class More(Drawing):
        def forward(self, x):
            return after(super().forward(x))

    net = Net(*(More([nn.Sequential(op, nn.ReLU()) for op in candidates()]) for _ in range(4)))
    with pytest.raises(InputError, match=r"does more than to call it; hold them in a `class OneOf") as refused:
        recognised(net)
    (code,) = re.findall("`(class OneOf.*?)`", str(refused.value))[:1]
    known = {"nn": nn}
    exec(code, known)

    class Helped(OneOf):
        def forward(self, x):
            return after(self.ops(x))

    helped = Net(*(Helped(edge.ops) for edge in net.edges))
    for edge in helped.edges:
        edge.ops = known["OneOf"](edge.ops)
    supernet = recognised(helped, ["edges.*.ops"])
    assert len(supernet.choices) == 4
    assert connected(supernet.trim(keep_max=1, scorer="flops_order").model)


def test_a_path_that_is_sometimes_left_out_is_no_choice():
    class Dropping(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.skip = conv(4, 3), nn.Identity()

        def forward(self, x):
            return x + self.body(x) if random.random() < 0.5 else x

    net = Net(Edge(candidates()), *(Dropping() for _ in range(4)))
    assert [one.path for one in recognised(net).structure.mixed] == ["edges.0.ops"]


@pytest.mark.parametrize(("kind", "path"), [(OneOf, "edges.1.ops"), (Named, "edges.1")])
def test_a_candidate_that_is_set_is_told_with_the_line_that_names_all(kind, path):
    net = Net(Edge(candidates()), *(kind(candidates()) for _ in range(3)))
    supernet = recognised(net)
    assert [one.path for one in supernet.structure.mixed] == ["edges.0.ops"]
    (note,) = (note for note in supernet.structure.notes if "name them with" in note)
    assert note.startswith(f"{path} and 2 more: no choice: of its 3 modules only ")
    named = ast.literal_eval(note.partition("choices=")[2])
    assert named == ["edges.*.ops", "edges.*"]
    assert len(recognised(net, named).choices) == 4


def test_where_nothing_is_found_commands_are_told_what_to_do():
    net = Net(OneOf(candidates()), OneOf(candidates()))
    with pytest.raises(
        InputError, match=r"choices=\['edges.\*'\].*from_model\(net, inputs, choices=\[\.\.\.\]\) gives"
    ):
        recognised(net)
