"""The DARTS networks have the published counts, and the price list is exact."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nasprune import Gene, Genotype, Size
from nasprune.errors import InputError, UnknownNameError
from nasprune.supernet.genotype.operations import Noise
from nasprune.supernet.price.counting import Counts, count_module
from search_spaces.darts import EDGES, PRIMITIVES, Darts, drop_path
from tests.supernet.genotypes import PUBLISHED, darts

SPACE = Darts()
CIFAR, IMAGENET = SPACE.sizes["cifar"], SPACE.sizes["imagenet"]
TINY = Size(4, 3, channels_in=1, resolution=8)
V2 = PUBLISHED["darts_v2"]

CIFAR_COUNTS = {
    "darts_v1": Counts(500_987_520, 510_977_664, 3_169_414),
    "darts_v2": Counts(528_359_040, 539_123_328, 3_349_342),
    "pdarts": Counts(532_174_464, 542_606_976, 3_433_798),
    "pc_darts_cifar": Counts(556_670_592, 567_434_880, 3_634_678),
    "pc_darts_image": Counts(570_466_944, 581_894_784, 3_721_510),
}
IMAGENET_COUNTS = {
    "darts_v1": Counts(505_864_704, 513_616_896, 4_510_432),
    "darts_v2": Counts(529_911_552, 538_190_592, 4_718_752),
    "pdarts": Counts(542_819_328, 551_023_104, 4_944_352),
    "pc_darts_cifar": Counts(571_137_408, 579_679_872, 5_270_560),
    "pc_darts_image": Counts(581_627_328, 590_583_744, 5_342_464),
}
CIFAR_PRODUCTS = {
    "snas": (422_218_368, 2_661_382),
    "gdas_v1": (519_428_736, 3_368_782),
    "mdenas": (599_110_272, 3_783_286),
}
CIFAR_PARAMS = {
    "darts_pt_s5": (2_851_246, 3_053_206, 2_658_142, 3_328_174),
    "blank_pt_s5": (3_039_598, 3_148_030, 2_581_894, 3_404_854),
}


def params(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def size_of(genotype: Genotype, size: Size = CIFAR, **options: bool) -> int:
    """Parameters of the network, which is made without numbers, and without drawing them."""
    with torch.device("meta"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.Conv2d, "reset_parameters", lambda layer: None)
        return params(SPACE.network(genotype, size, **options))


def predicted(genotype: Genotype, size: Size, space: Darts = SPACE) -> Counts:
    return Counts(*(space.costs(size, counter).total(genotype) for counter in ("macs", "fvcore", "params")))


OFTEN = ("darts_v2",)
"""Counted in every run; the others among the slow tests, while their predictions are checked in every run."""


def some(names):
    return [name if name in OFTEN else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", CIFAR_COUNTS)
def test_predictions_are_the_published_counts(name):
    assert predicted(PUBLISHED[name], CIFAR) == CIFAR_COUNTS[name]
    assert predicted(PUBLISHED[name], IMAGENET) == IMAGENET_COUNTS[name]
    assert size_of(PUBLISHED[name]) == CIFAR_COUNTS[name].params
    assert size_of(PUBLISHED[name], IMAGENET) == IMAGENET_COUNTS[name].params


@pytest.mark.parametrize("name", some(CIFAR_COUNTS))
def test_published_cifar_networks(name):
    built = count_module(SPACE.network(PUBLISHED[name]), CIFAR.input_shape)
    assert built == CIFAR_COUNTS[name] == predicted(PUBLISHED[name], CIFAR)


@pytest.mark.parametrize("name", some(IMAGENET_COUNTS))
def test_published_imagenet_networks(name):
    built = count_module(SPACE.network(PUBLISHED[name], IMAGENET), IMAGENET.input_shape)
    assert built == IMAGENET_COUNTS[name] == predicted(PUBLISHED[name], IMAGENET)


@pytest.mark.parametrize("name", CIFAR_PRODUCTS)
def test_more_published_cifar_networks(name):
    counts = predicted(PUBLISHED[name], CIFAR)
    assert (counts.macs, counts.params) == CIFAR_PRODUCTS[name]
    assert size_of(PUBLISHED[name]) == counts.params


@pytest.mark.parametrize(("name", "number"), [*itertools.product(CIFAR_PARAMS, range(4))])
def test_published_parameters(name, number):
    genotype = PUBLISHED[f"{name}_{number}"]
    assert size_of(genotype) == CIFAR_PARAMS[name][number] == predicted(genotype, CIFAR).params


def test_the_price_list_of_cifar():
    costs = {counter: SPACE.costs(CIFAR, counter) for counter in ("macs", "params")}
    assert (costs["macs"].base, costs["params"].base) == (227_272_320, 1_370_134)
    expected = {
        ("normal", "sep_conv_3x3"): (54_743_040, 359_856),
        ("normal", "sep_conv_5x5"): (67_129_344, 408_240),
        ("normal", "dil_conv_3x3"): (27_371_520, 179_928),
        ("normal", "dil_conv_5x5"): (33_564_672, 204_120),
        ("reduce", "sep_conv_3x3"): (5_806_080, 56_592),
        ("reduce", "sep_conv_5x5"): (6_690_816, 63_504),
        ("reduce", "dil_conv_3x3"): (2_903_040, 28_296),
        ("reduce", "dil_conv_5x5"): (3_345_408, 31_752),
    }
    check_prices(costs, expected, reducing_skip=(2_654_208, 26_352))


def test_the_price_list_of_imagenet():
    costs = {counter: SPACE.costs(IMAGENET, counter) for counter in ("macs", "params")}
    assert (costs["macs"].base, costs["params"].base) == (265_396_224, 2_427_232)
    expected = {
        ("normal", "sep_conv_3x3"): (48_093_696, 416_640),
        ("normal", "sep_conv_5x5"): (56_523_264, 459_648),
        ("normal", "dil_conv_3x3"): (24_046_848, 208_320),
        ("normal", "dil_conv_5x5"): (28_261_632, 229_824),
        ("reduce", "sep_conv_3x3"): (7_733_376, 98_496),
        ("reduce", "sep_conv_5x5"): (8_636_544, 107_712),
        ("reduce", "dil_conv_3x3"): (3_866_688, 49_248),
        ("reduce", "dil_conv_5x5"): (4_318_272, 53_856),
    }
    check_prices(costs, expected, reducing_skip=(3_612_672, 46_656))


def check_prices(costs, expected, reducing_skip):
    for kind, (source, target), op in itertools.product(("normal", "reduce"), EDGES, PRIMITIVES):
        free = reducing_skip if (kind, op) == ("reduce", "skip_connect") and source < 2 else (0, 0)
        gene = Gene(op, source, target)
        found = tuple(costs[counter][kind, gene] for counter in ("macs", "params"))
        assert found == expected.get((kind, op), free), (kind, gene)


@pytest.mark.parametrize("size", [CIFAR, IMAGENET], ids=["cifar", "imagenet"])
def test_an_operation_is_counted_once_for_each_shape_and_never_again(size, monkeypatch):
    counted = []

    def counting(module, shape):
        counted.append(shape)
        return Counts(len(counted), 2 * len(counted), 3 * len(counted))

    monkeypatch.setattr("nasprune.supernet.genotype.spaces.count_once", counting)
    space = Darts()
    first = space.costs(size)
    shapes = {(site.channels, site.stride, site.resolution) for site in space.sites(size)}
    assert len(shapes) < 9
    assert len(counted) == 1 + len(shapes) * len(PRIMITIVES), "the network without operations, and each of them"
    assert space.costs(size) == first
    assert space.costs(size, "params") != first
    assert len(counted) == 1 + len(shapes) * len(PRIMITIVES)


OPS = st.sampled_from(sorted(PRIMITIVES))
PAIRS = [list(itertools.combinations(range(target), 2)) for target in (2, 3, 4, 5)]


@st.composite
def cell(draw):
    pairs = [draw(st.sampled_from(choices)) for choices in PAIRS]
    return tuple(Gene(draw(OPS), source, target) for target, pair in enumerate(pairs, start=2) for source in pair)


@given(cell(), cell(), st.sampled_from([TINY, Size(3, 4, 7, 3, 9), Size(5, 2, 10, 1, 33, imagenet=True)]))
@settings(max_examples=15)
def test_prediction_equals_the_count_of_the_built_network(normal, reduce, size):
    genotype = Genotype({"normal": normal, "reduce": reduce})
    assert count_module(SPACE.network(genotype, size), size.input_shape) == predicted(genotype, size)


@pytest.mark.parametrize("genes", [(), (Gene("sep_conv_3x3", 0, 2),), (Gene("dil_conv_5x5", 4, 5),)])
def test_nodes_without_operations_are_zero_and_free(genes):
    genotype = Genotype({"normal": genes, "reduce": genes})
    net = SPACE.network(genotype, TINY)
    assert count_module(net, TINY.input_shape) == predicted(genotype, TINY)
    assert net(torch.randn(2, 1, 8, 8)).shape == (2, 10)


def test_fewer_nodes_may_be_concatenated_and_an_edge_may_have_two_operations():
    genes = (Gene("sep_conv_3x3", 0, 2), Gene("skip_connect", 0, 2), Gene("max_pool_3x3", 1, 3))
    net = SPACE.network(Genotype({"normal": genes, "reduce": genes}, {"normal": (2, 3, 4)}), TINY)
    assert net.cells[0](torch.randn(2, 12, 8, 8), torch.randn(2, 12, 8, 8)).shape == (2, 12, 8, 8)
    assert net(torch.randn(2, 1, 8, 8)).shape == (2, 10)


def test_the_search_network():
    net = SPACE.supernet()
    alphas = net.alphas_normal.numel() + net.alphas_reduce.numel()
    assert params(net) - alphas == 1_930_618
    assert {name for name in net.state_dict() if "alphas" in name} == {"alphas_normal", "alphas_reduce"}
    assert net.alphas_normal.shape == (14, 8)
    assert [number for number, c in enumerate(net.cells) if c.reduction] == [2, 5]
    mixed = net.get_submodule("cells.3._ops.5._ops")
    assert [type(op).__name__ for op in mixed] == [
        *("Zero", "Sequential", "Sequential", "Identity"),
        *["DepthwiseConv"] * 4,
    ]
    norms = [module for module in net.cells.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert not any(norm.affine for norm in norms)


@pytest.mark.slow
def test_the_multiply_adds_of_the_search_network():
    assert count_module(SPACE.supernet(), (1, 3, 32, 32)).macs == 300_255_744


def test_the_search_network_mixes_by_softmax():
    net = SPACE.supernet(TINY).eval()
    x = torch.randn(2, 4, 8, 8)
    edge = net.cells[0]._ops[0]
    weights = torch.randn(8).softmax(0)
    expected = sum(weight * op(x) for weight, op in zip(weights, edge._ops, strict=True))
    assert torch.allclose(edge(x, weights), expected, atol=1e-6)
    with torch.no_grad():
        net.alphas_normal.fill_(-1e4)[:, 3] = 1.0
        net.alphas_reduce.fill_(-1e4)[:, 0] = 1.0
    before, last = net.begin(torch.randn(2, 1, 8, 8))
    only_skips = net.cells[0](before, last, net.alphas_normal.softmax(-1))
    inputs = net.cells[0].preprocess0(before) + net.cells[0].preprocess1(last)
    assert torch.allclose(only_skips[:, :4], inputs, atol=1e-6)
    assert torch.allclose(only_skips[:, 4:8], 2 * inputs, atol=1e-5)


@pytest.mark.parametrize("size", [TINY, Size(3, 5, 10, 3, 9), Size(4, 1, 2, 1, 5), Size(4, 3, 5, 3, 37, imagenet=True)])
def test_odd_and_tiny_sizes_run_in_both_networks(size):
    x = torch.randn(2, size.channels_in, size.resolution, size.resolution)
    for net in (SPACE.supernet(size), SPACE.network(V2, size)):
        logits = net(x)
        assert logits.shape == (2, size.classes)
        logits.sum().backward()


@pytest.mark.parametrize(("size", "extra"), [(CIFAR, 476_426), (IMAGENET, 1_260_776)])
def test_auxiliary_heads(size, extra):
    assert size_of(V2, size, auxiliary=True) - size_of(V2, size) == extra


def test_the_auxiliary_head_of_nni_has_a_second_norm_for_imagenet():
    theirs = SPACE.network(V2, IMAGENET, auxiliary=True, second_norm=True)
    assert params(theirs) - size_of(V2, IMAGENET) == 1_260_776 + 2 * 768


def test_auxiliary_logits_come_in_training_only():
    size = Size(4, 4, 10, 1, 32)
    net = SPACE.network(V2, size, auxiliary=True)
    logits, extra = net(torch.randn(2, 1, 32, 32))
    assert logits.shape == extra.shape == (2, 10)
    assert net.eval()(torch.randn(2, 1, 32, 32)).shape == (2, 10)
    with pytest.raises(InputError, match="reads images of 8 to 10 pixels, here they have 2"):
        SPACE.network(V2, TINY, auxiliary=True)


def test_drop_path_is_off_until_set_and_in_training_only():
    torch.manual_seed(0)
    net = SPACE.network(darts("s3@0 s3@1 " + "s3@0 s3@1 " * 3, "mp@0 mp@1 " * 4), TINY)
    x = torch.randn(8, 1, 8, 8)
    assert net.drop_path_prob == 0.0
    assert torch.equal(net(x), net(x))
    net.drop_path_prob = 0.5
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))


def test_dropped_items_are_whole_and_the_rest_is_scaled():
    torch.manual_seed(0)
    kept = drop_path(torch.ones(1000, 2, 3, 3), 0.25)
    assert kept.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert torch.equal(kept.amin((1, 2, 3)), kept.amax((1, 2, 3)))
    assert kept[:, 0, 0, 0].mean() == pytest.approx(1, abs=0.1)


def test_weights_are_inherited_where_the_search_has_them():
    torch.manual_seed(0)
    supernet, net = SPACE.supernet(TINY), SPACE.network(V2, TINY)
    supernet(torch.randn(16, 1, 8, 8))
    left = SPACE.inherit(net, supernet, V2)
    assert left
    assert all(name.startswith("cells.") and name.endswith((".weight", ".bias")) for name in left)
    assert not any(isinstance(net.get_submodule(name.rpartition(".")[0]), nn.Conv2d) for name in left)
    ours, theirs = net.cells[0]._ops[0].op, supernet.cells[0]._ops[0]._ops[4].op
    assert torch.equal(ours[1].weight, theirs[1].weight)
    assert torch.equal(ours[3].running_mean, theirs[3].running_mean)
    assert torch.equal(ours[3].weight, torch.ones(4))
    with torch.no_grad():  # one operation on every edge that the genotype has, none elsewhere
        for alphas, kind in ((supernet.alphas_normal, "normal"), (supernet.alphas_reduce, "reduce")):
            alphas.fill_(-1e4)[:, 0] = 1e4
            for gene in V2.cells[kind]:
                row = alphas[EDGES.index((gene.source, gene.target))].fill_(-1e4)
                row[PRIMITIVES.index(gene.op)] = 1e4
    for module in supernet.modules():  # the pools of the search have a norm that the final ones lack
        if isinstance(module, nn.Sequential) and isinstance(module[0], nn.MaxPool2d | nn.AvgPool2d):
            module[1] = nn.Identity()
    x = torch.randn(4, 1, 8, 8)
    assert torch.allclose(supernet.eval()(x), net.eval()(x), atol=1e-5)


def test_another_size_inherits_what_fits():
    supernet, net = SPACE.supernet(TINY), SPACE.network(V2, Size(4, 6, channels_in=1, resolution=8))
    before = net.cells[1]._ops[0].op[1].weight.clone()
    left = SPACE.inherit(net, supernet, V2)
    assert "cells.1._ops.0.op.1.weight" in left  # a reduction cell there, a normal one here
    assert torch.equal(before, net.cells[1]._ops[0].op[1].weight)
    assert "stem.0.weight" not in left


def test_decisions_are_tied_by_kind_of_cell():
    net = SPACE.supernet(TINY)
    normal, reduce = net.cells[0], net.cells[1]
    assert SPACE.group(normal, 3) == SPACE.group(normal._ops, 3) == "normal/3"
    assert SPACE.group(reduce._ops, 13) == "reduce/13"
    assert torch.equal(SPACE.weights(net, reduce._ops, 13), net.alphas_reduce[13])
    with pytest.raises(InputError, match="of no kind"):
        SPACE.group(net.stem, 0)


def test_toy_spaces():
    space = Darts(("noise", "sep_conv_3x3"))
    net = space.supernet(TINY)
    assert net.alphas_normal.shape == (14, 2)
    assert isinstance(net.cells[0]._ops[0]._ops[0], Noise)
    assert net(torch.randn(2, 1, 8, 8)).shape == (2, 10)
    genotype = Genotype({kind: (Gene("noise", 0, 2),) for kind in ("normal", "reduce")})
    assert predicted(genotype, TINY, space) == count_module(space.network(genotype, TINY), TINY.input_shape)


def test_what_does_not_fit_is_named():
    with pytest.raises(UnknownNameError, match="sep_conv_3x3"):
        Darts(("sep_conv_3",))
    with pytest.raises(InputError, match="different operations"):
        Darts(("none", "none"))
    with pytest.raises(InputError, match="at least 1"):
        Size(layers=0)
    with pytest.raises(InputError, match="lacks"):
        SPACE.network(Genotype({"normal": ()}))
    with pytest.raises(InputError, match="no edge 2 -> 6"):
        SPACE.network(Genotype({"normal": (Gene("none", 2, 6),), "reduce": ()}))
    with pytest.raises(InputError, match="cannot concatenate"):
        SPACE.network(Genotype({"normal": (), "reduce": ()}, {"normal": (7,)}))
    with pytest.raises(InputError, match="a genotype of the space"):
        SPACE.costs(TINY).total(Genotype({"normal": (Gene("noise", 0, 2),), "reduce": ()}))
    with pytest.raises(InputError, match="drop path"):
        SPACE.network(V2, TINY, drop_path=1.0)
