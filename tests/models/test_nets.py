"""The bundled networks compute what their public weights expect."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

import nasprune
from nasprune.data import load_data
from nasprune.models import lenet_5, lenet_300_100, pointnet, pointnet2
from nasprune.models.nets import digits_net, resnet20, resnet32, resnet44, resnet56
from tests.assets import ASSETS, needs_assets


@pytest.mark.parametrize(
    ("factory", "params"), [(resnet20, 269_722), (resnet32, 464_154), (resnet44, 658_586), (resnet56, 853_018)]
)
def test_parameter_counts(factory, params):
    assert sum(parameter.numel() for parameter in factory().parameters()) == params


@needs_assets
@pytest.mark.parametrize(("factory", "depth", "accuracy"), [(resnet20, 20, 0.912), (resnet56, 56, 0.941)])
def test_trained_weights_score_what_they_scored(factory, depth, accuracy):
    model = factory().eval()
    loaded = model.load_state_dict(load_file(ASSETS / f"cifar10_resnet{depth}.safetensors"), strict=False)
    assert not loaded.unexpected_keys
    assert all(key.endswith("num_batches_tracked") for key in loaded.missing_keys)
    test = load_data(f"cifar10:{ASSETS}").test
    with torch.no_grad():
        right = (model(test.images).argmax(1) == test.labels).float().mean().item()
    assert right == pytest.approx(accuracy, abs=0.0005)


def test_digits_net_shape():
    assert digits_net()(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize(
    ("factory", "params"),
    [(lenet_300_100, 266_610), (lenet_5, 431_080), (pointnet, 214_730), (pointnet2, 106_026)],
)
def test_small_nets_for_digits_and_points(factory, params):
    model = factory().eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == params
    assert model(torch.randn(2, *model.input_shape)).shape == (2, 10)


def test_networks_for_points_do_not_see_their_order():
    cloud = torch.randn(1, 3, 256)
    behind = 1 + torch.randperm(255, generator=torch.Generator().manual_seed(0))
    order = torch.cat([torch.zeros(1, dtype=torch.long), behind])  # PointNet++ begins at the first point
    for model in (pointnet().eval(), pointnet2().eval()):
        with torch.no_grad():
            assert torch.allclose(model(cloud), model(cloud[:, :, order]), atol=1e-5)


def test_every_channel_of_pointnet2_can_be_cut():
    model = pointnet2().eval()
    graph = nasprune.trace(model, torch.randn(1, 3, 256))
    assert [group.name for group in graph.groups if not group.free] == ["head.fc2"]
    plan = nasprune.PrunePlan(
        graph.signature, {group.name: tuple(range(0, group.width, 2)) for group in graph.free_groups}
    )
    small = nasprune.build(model, graph, plan)
    assert nasprune.verify(model, small, graph, plan).ok
