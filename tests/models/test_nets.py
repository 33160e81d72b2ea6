"""The bundled networks compute what their public weights expect."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from nasprune.data import load_data
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
