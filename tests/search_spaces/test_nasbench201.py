"""The NAS-Bench-201 networks have the published counts, and the price list is exact."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nasprune import Gene, Genotype, Size
from nasprune.errors import InputError
from nasprune.supernet.genotype.codecs import from_nb201
from nasprune.supernet.price.counting import Counts, count_module
from search_spaces.nasbench201 import EDGES, PRIMITIVES, NasBench201

SPACE = NasBench201()
TINY = Size(4, 1, channels_in=1, resolution=8)


def uniform(op: str) -> Genotype:
    return from_nb201([PRIMITIVES.index(op)] * 6)


def predicted(genotype: Genotype, size: Size) -> Counts:
    return Counts(*(SPACE.costs(size, counter).total(genotype) for counter in ("macs", "fvcore", "params")))


@pytest.mark.parametrize(
    ("size", "op", "flops", "params"),
    [
        ("cifar10", "none", 7_783_050, 73_306),
        ("cifar10", "skip_connect", 7_783_050, 73_306),
        ("cifar10", "avg_pool_3x3", 7_783_050, 73_306),
        ("cifar10", "nor_conv_1x1", 7_783_050 + 6 * 3_932_160, 73_306 + 6 * 28_000),
        ("cifar10", "nor_conv_3x3", 220_119_690, 1_531_546),
        ("cifar100", "nor_conv_3x3", 220_125_540, 1_531_546 + 5_850),
        ("imagenet16", "nor_conv_3x3", 55_037_560, 1_538_696),
    ],
)
def test_published_counts(size, op, flops, params):
    """The authors' counter adds the bias of the classifier to the products."""
    size = SPACE.sizes[size]
    built = count_module(SPACE.network(uniform(op), size), size.input_shape)
    assert (built.macs + size.classes, built.params) == (flops, params)
    assert built == predicted(uniform(op), size)


def test_the_best_cell():
    best = from_nb201("|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|")
    assert SPACE.costs().total(best) + 10 == 153_272_970


def test_prices_of_one_edge():
    costs, params = SPACE.costs(), SPACE.costs(counter="params")
    for source, target in EDGES:
        assert costs["cell", Gene("nor_conv_3x3", source, target)] == 35_389_440
        assert params["cell", Gene("nor_conv_3x3", source, target)] == 243_040
        assert params["cell", Gene("nor_conv_1x1", source, target)] == 28_000


@given(st.lists(st.integers(0, 4), min_size=6, max_size=6), st.sampled_from([TINY, Size(3, 2, 7, 3, 9)]))
@settings(max_examples=15)
def test_prediction_equals_the_count_of_the_built_network(numbers, size):
    genotype = from_nb201(numbers)
    assert count_module(SPACE.network(genotype, size), size.input_shape) == predicted(genotype, size)


def test_edges_that_are_left_out_connect_nothing():
    genotype = Genotype({"cell": (Gene("nor_conv_3x3", 0, 3),)})
    net = SPACE.network(genotype, TINY)
    assert [gene.op for gene in net.cells[0].genes] == ["none", "none", "none", "nor_conv_3x3", "none", "none"]
    assert count_module(net, TINY.input_shape) == predicted(genotype, TINY)


def test_the_search_network():
    net = SPACE.supernet()
    assert net.alphas.shape == (6, 5)
    assert "alphas" in net.state_dict()
    assert len(net.cells) == 17
    assert list(net.cells[0].edges) == ["1<-0", "2<-0", "2<-1", "3<-0", "3<-1", "3<-2"]
    assert [len(ops) for ops in net.cells[0].edges.values()] == [5] * 6
    norms = [module for module in net.cells[0].modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert not any(norm.affine for norm in norms)


def test_candidates_may_go_without_running_statistics():
    net = SPACE.supernet(TINY, track_running_stats=False).eval()
    assert not [name for name in net.state_dict() if "running" in name and "edges" in name]
    assert "stem.1.running_mean" in net.state_dict()
    assert net(torch.randn(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize("size", [TINY, Size(3, 1, 10, 3, 9), Size(2, 2, 2, 1, 5)])
def test_odd_and_tiny_sizes_run_in_both_networks(size):
    x = torch.randn(2, size.channels_in, size.resolution, size.resolution)
    for net in (SPACE.supernet(size), SPACE.network(uniform("nor_conv_3x3"), size)):
        logits = net(x)
        assert logits.shape == (2, size.classes)
        logits.sum().backward()


@given(st.lists(st.integers(0, 4), min_size=6, max_size=6))
@settings(max_examples=10)
def test_a_decided_supernet_computes_what_the_inheriting_network_does(numbers):
    torch.manual_seed(0)
    genotype, supernet = from_nb201(numbers), SPACE.supernet(TINY)
    supernet(torch.randn(16, 1, 8, 8))
    net = SPACE.network(genotype, TINY)
    left = SPACE.inherit(net, supernet, genotype)
    assert all(".op.2." in name for name in left)  # scale and shift of norms
    with torch.no_grad():
        supernet.alphas.fill_(-1e4)
        for row, number in zip(supernet.alphas, numbers, strict=True):
            row[number] = 1e4
    x = torch.randn(4, 1, 8, 8)
    assert torch.allclose(supernet.eval()(x), net.eval()(x), atol=1e-5)


def test_all_cells_share_their_decisions():
    net = SPACE.supernet(TINY)
    assert SPACE.group(net.cells[2], 4) == "cell/4"
    assert torch.equal(SPACE.weights(net, net.cells[2], 4), net.alphas[4])


def test_there_is_no_stem_for_large_images():
    with pytest.raises(InputError, match="imagenet"):
        SPACE.supernet(Size(imagenet=True))
