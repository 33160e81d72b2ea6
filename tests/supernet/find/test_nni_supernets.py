"""NNI's own spaces, as they come and as its DARTS strategy changes them."""

import warnings

import pytest
import torch

from nasprune.supernet.find.mixed_ops import find_mixed_ops

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    try:
        from nni.nas.hub.pytorch import DARTS, NasBench201
        from nni.nas.strategy import DARTS as Differentiable
    except Exception as error:
        pytest.skip(f"nni.nas cannot be imported: {error}", allow_module_level=True)

IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def mutated(space, spread=0.5):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = Differentiable().mutate_model(space)
    for name, value in net.named_parameters():
        if "_arch_alpha" in name:
            torch.nn.init.normal_(value, std=spread)
    return net


def test_darts_as_it_comes_runs_one_operation_of_each_choice():
    net = DARTS(width=4, num_cells=3, dataset="cifar")
    found = find_mixed_ops(net, IMAGES).mixed
    assert len(found) == 3 * 8
    assert {one.single_path for one in found} == {True}
    assert {one.weights for one in found} == {None}
    assert {len(one.names) for one in found} == {7}
    assert len({one.label for one in found}) == 16
    assert found[0].label == "normal/op_2_0"
    assert found[0].names[:2] == ("max_pool_3x3", "avg_pool_3x3")
    assert [one.index for one in found[:8]] == list(range(8))
    assert len({one.cell for one in found}) == 3


def test_darts_mutated_has_a_mixture_on_every_edge():
    net = mutated(DARTS(width=4, num_cells=3, dataset="cifar"))
    found = find_mixed_ops(net, IMAGES)
    assert len(found.mixed) == 42
    assert len({one.label for one in found.mixed}) == 28
    for one in found.mixed:
        cell = net.get_submodule(one.cell)
        assert one.names == tuple(cell.op_names)
        expected = cell._arch_alpha[one.label].detach().softmax(0)[:-1]
        torch.testing.assert_close(torch.tensor(one.weights), expected / expected.sum())
    assert all("preprocessor" in path or "blocks" in path for path in found.rejected)


def test_nasbench201_as_it_comes():
    found = find_mixed_ops(NasBench201(4, 1), IMAGES).mixed
    assert len(found) == 18
    assert {one.label for one in found} == {f"cell/{i}_{j}" for j in range(4) for i in range(j)}
    assert found[0].names == ("none", "skip_connect", "conv_1x1", "conv_3x3", "avg_pool_3x3")


def test_nasbench201_mutated():
    net = mutated(NasBench201(4, 1))
    found = find_mixed_ops(net, IMAGES).mixed
    assert len(found) == 18
    for one in found:
        layer = net.get_submodule(one.path)
        assert (one.label, one.names) == (layer.label, tuple(layer.names))
        torch.testing.assert_close(torch.tensor(one.weights), layer._arch_alpha.detach().softmax(0))
