"""Architecture weights that are told are compared with those that the net is seen to mix by."""

import pytest
import torch
from torch import nn

import nasprune
from nasprune.errors import InputError
from tests.supernet.find.edges import Edge, Net, candidates
from tests.supernet.toys import Zero, images


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def own_weights(edge):
    return edge.module.alpha


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
