"""The public way: from a module to smaller supernets and networks."""

from __future__ import annotations

import copy

import pytest
import torch

import nasprune
from nasprune.errors import BudgetError, InputError
from nasprune.supernet.price.counting import Counts, count_module
from tests.supernet import foreign
from tests.supernet.toys import Toy, images

SMALL = nasprune.Size(channels=4, layers=3, channels_in=1, resolution=8)


FEW = ("none", "skip_connect", "sep_conv_3x3")
DARTS = f"darts(ops={list(FEW)})"

pytestmark = pytest.mark.usefixtures("one_draw", "few_paths")


@pytest.fixture(scope="module")
def darts():
    space = nasprune.supernet_space(DARTS)
    torch.manual_seed(0)
    return nasprune.Supernet.from_model(space.supernet(SMALL), torch.randn(2, 1, 8, 8), space=space)


@pytest.fixture(scope="module")
def nb201():
    space = nasprune.supernet_space("nasbench201")
    torch.manual_seed(0)
    net = space.supernet(nasprune.Size(channels=4, layers=1, channels_in=1, resolution=8))
    return nasprune.Supernet.from_model(net, torch.randn(2, 1, 8, 8), space=space)


def test_without_a_scorer_scores_are_the_shares_that_were_seen():
    supernet = nasprune.Supernet.from_model(Toy().eval(), images())
    found = supernet.score("alpha")
    shares = supernet.net.alphas.softmax(-1).detach()
    assert list(found) == [one.path for one in supernet.structure.mixed]
    for number, scores in enumerate(found.values()):
        assert list(scores.values()) == pytest.approx(shares[number % 3].tolist(), abs=1e-4)


@pytest.mark.parametrize("schedule", ["topk(k=2)", "threshold(share=0.2)", "progressive(stages=[3, 2], epochs=0)"])
def test_trimming_keeps_budget_and_prediction(nb201, schedule):
    before = copy.deepcopy(nb201.net.state_dict())
    trimmed = nb201.trim("50%", "alpha", schedule=schedule)
    counted = count_module(trimmed.model, (1, 1, 8, 8))
    assert counted == trimmed.report.after == trimmed.supernet.counts
    assert 2 * counted.fvcore <= nb201.counts.fvcore
    assert all(ops for ops in trimmed.choices.values())
    assert all(torch.equal(value, before[name]) for name, value in nb201.net.state_dict().items())


def test_what_a_budget_counts_is_named(nb201):
    macs = nb201.trim(f"{nb201.counts.macs * 6 // 10}MACs", "flops_order", keep_max=8).report.after
    params = nb201.trim("70% of params", "flops_order", keep_max=8).report.after
    assert macs.macs <= nb201.counts.macs * 6 // 10
    assert 10 * params.params <= 7 * nb201.counts.params


def test_an_impossible_budget_is_refused_before_anything_is_cut(darts):
    with pytest.raises(BudgetError, match="raise"):
        darts.trim("1KFLOPs", "random")
    with pytest.raises(BudgetError, match="cheapest genotype costs"):
        darts.discretise("1KFLOPs", scorer="alpha", size=SMALL)


def test_a_network_of_the_space_costs_what_the_knapsack_said(darts):
    free = darts.discretise(scorer="alpha", size=SMALL)
    limit = free.counts.fvcore * 8 // 10
    tight = darts.discretise(f"{limit}FLOPs", scorer="alpha", size=SMALL)
    assert tight.counts.fvcore <= limit < free.counts.fvcore
    assert tight.counts == count_module(tight.model, SMALL.input_shape)
    assert tight.model(images(2)).shape == (2, 10)
    assert isinstance(tight.build(), type(tight.model))
    assert len(tight.left) < len(tight.model.state_dict()), "values of the supernet are taken over"
    nodes = [gene.target for gene in tight.genotype.cells["normal"]]
    assert sorted(nodes) == [2, 2, 3, 3, 4, 4, 5, 5]


def test_without_a_size_it_is_the_search_size():
    space = nasprune.supernet_space("nasbench201")
    net = space.supernet(nasprune.Size(channels=4, layers=1))
    supernet = nasprune.Supernet.from_model(net, torch.randn(2, 3, 32, 32), space=space)
    found = supernet.discretise(scorer="alpha")
    assert found.counts == count_module(found.model, space.sizes["search"].input_shape)


def test_a_foreign_supernet_is_discretised_in_place():
    net = Toy().eval()
    supernet = nasprune.Supernet.from_model(
        net, images(), group=lambda place: f"edge/{place.index}", weights=lambda place: net.alphas[place.index]
    )
    found = supernet.discretise("80%")
    assert set(found.ops) == {"edge/0", "edge/1", "edge/2"}
    assert found.counts == count_module(found.model, (1, 1, 8, 8)) != Counts()
    with pytest.raises(InputError, match="have genotypes to build from"):
        found.build()


def test_a_discrete_net_is_no_supernet():
    with pytest.raises(InputError, match="no mixed operations were found"):
        nasprune.Supernet.from_model(torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU()), images())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"choices": ["layers.*"]}, "names 'layers.\\*'"),
        ({"op_names": ["a", "b"]}, "4 distinct names"),
        ({"weights": lambda place: torch.zeros(2)}, "must give a tensor of 4 numbers"),
        ({"weights": lambda place: 1 / 0}, "`weights` failed on .* ZeroDivisionError"),
        ({"group": lambda place: None}, "`group` must give a name"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        nasprune.Supernet.from_model(Toy().eval(), images(), **arguments)


def test_one_image_is_not_enough():
    with pytest.raises(InputError, match="n of at least 2"):
        nasprune.Supernet.from_model(Toy().eval(), images(1))


def test_only_some_choices_can_be_asked_for():
    supernet = nasprune.Supernet.from_model(Toy().eval(), images(), choices=["cells.0.edges.*"])
    assert len(supernet.choices) == 3
    small = supernet.keep({supernet.choices[0].name: ["Identity"]})
    assert small.counts == count_module(small.net, (1, 1, 8, 8))


class PartialNet(foreign.PartialNet):
    names = ("none", "skip", "sep3")


def test_weights_of_edges_as_in_pc_darts():
    torch.manual_seed(0)
    net = PartialNet(8, 3).eval()

    def betas(edge):
        return edge.net.betas_reduce if edge.cell.reduction else edge.net.betas_normal

    def share(edge):
        node = next(node for node in ((0, 2), (2, 5), (5, 9), (9, 14)) if edge.index < node[1])
        return betas(edge)[slice(*node)].softmax(0)[edge.index - node[0]]

    def alphas(edge):
        return (edge.net.alphas_reduce if edge.cell.reduction else edge.net.alphas_normal)[edge.index]

    supernet = nasprune.Supernet.from_model(
        net,
        torch.randn(2, 3, 8, 8),
        group=lambda edge: f"{'reduce' if edge.cell.reduction else 'normal'}/{edge.index}",
        weights=alphas,
        edge_weights=share,
        space=nasprune.supernet_space(DARTS),
    )
    found = supernet.score("alpha(rule=alpha_beta)")
    ninth = net.alphas_reduce[9].softmax(0) * net.betas_reduce[9:14].softmax(0)[0]
    assert list(found["reduce/9"].values()) == pytest.approx(ninth.tolist(), rel=1e-5)

    # Each node of the genotype takes the two edges whose best candidate has the greatest product.
    chosen = supernet.discretise(rule="alpha_beta", size=SMALL).genotype
    last = {edge: max(v for k, v in found[f"normal/{edge}"].items() if k != "none") for edge in range(9, 14)}
    best = sorted(last, key=last.__getitem__)[-2:]
    sources = [gene.source for gene in chosen.cells["normal"] if gene.target == 5]
    assert sorted(sources) == sorted(edge - 9 for edge in best)

    small = supernet.keep({"reduce/9": [1, 2]})
    with torch.no_grad():
        small.net.betas_reduce[9] += 3
    share_now = small.net.betas_reduce[9:14].softmax(0)[0].item()
    assert sum(small.score("alpha(rule=alpha_beta)")["reduce/9"].values()) == pytest.approx(share_now, rel=1e-4)
    assert supernet.score("alpha(rule=alpha_beta)") == found


@pytest.mark.parametrize("given", [lambda edge: 0.0, lambda edge: edge.net.alphas, lambda edge: float("nan")])
def test_weights_of_edges_that_are_none(given):
    with pytest.raises(InputError, match="edge_weights"):
        nasprune.Supernet.from_model(Toy().eval(), images(), edge_weights=given)


class DartsNet(foreign.DartsNet):
    names = ("none", "max", "skip")


def test_a_genotype_needs_the_operations_of_its_space():
    net = DartsNet(4, 3).eval()
    space = nasprune.supernet_space("darts")
    supernet = nasprune.Supernet.from_model(net, torch.randn(2, 3, 8, 8), op_names=DartsNet.names, space=space)
    with pytest.raises(InputError, match=r"candidate 'max'.*sep_conv_3x3.*op_names"):
        supernet.discretise(scorer="random")


def test_arguments_that_say_the_same_twice_are_refused(nb201):
    with pytest.raises(InputError, match="`schedule` and `keep_max`"):
        nb201.trim("50%", "flops_order", keep_max=3, schedule="threshold(share=0.5)")
    with pytest.raises(InputError, match="`rule` and `scorer`"):
        nb201.discretise(rule="darts", scorer="flops_order")


def test_arguments_without_effect_are_refused(nb201):
    with pytest.raises(InputError, match="trains between its stages; give data"):
        nb201.trim("50%", "flops_order", schedule="progressive(stages=[4, 3], epochs=1)")
    with pytest.raises(InputError, match="`size` is of a space's network"):
        nasprune.Supernet.from_model(Toy().eval(), images()).discretise(scorer="flops_order", size=SMALL)
