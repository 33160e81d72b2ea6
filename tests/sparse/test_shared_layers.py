"""Zeros in layers that run on several inputs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import nasprune
from nasprune.calibration.layers import is_layer, row_count
from nasprune.cost.flops import measure
from nasprune.data import ArrayDataset, DataSplits
from tests.refit.test_shared_layers import Siamese


def products(net: nn.Module, x: torch.Tensor, *, nonzero: bool) -> int:
    """Multiply-adds of all runs of all layers, or those with weights that are not zero."""
    counts: list[int] = []

    def count(layer: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        weight = layer.weight
        assert isinstance(weight, torch.Tensor)
        counts.append(row_count(layer, args[0]) * int(weight.count_nonzero() if nonzero else weight.numel()))

    handles = [layer.register_forward_pre_hook(count) for layer in net.modules() if is_layer(layer)]
    with torch.no_grad():
        net(x)
    for handle in handles:
        handle.remove()
    return sum(counts)


@pytest.mark.parametrize("budget", ["40%NNZ", "40%NNZFLOPs"])
def test_zeros_come_into_them_and_every_run_is_counted(budget: str) -> None:
    torch.manual_seed(0)
    model = Siamese().eval()
    parts = {
        part: ArrayDataset(torch.randn(32, 6, 8, 8), torch.randint(4, (32,)))
        for part in ("train", "calibration", "validation", "test")
    }
    data = DataSplits("noise", num_classes=4, input_shape=(6, 8, 8), **parts)
    result = nasprune.search(model, torch.zeros(1, 6, 8, 8), budget, data=data, evaluator="kl")
    assert {"encoder.stem.weight", "encoder.body.weight"} <= set(result.plan.masks)
    x = torch.randn(1, 6, 8, 8)
    if budget == "40%NNZ":
        left = sum(int(value.count_nonzero()) for value in result.model.parameters())
        assert left <= 0.4 * sum(value.numel() for value in model.parameters())
    else:
        others = measure(model, x).flops - products(model, x, nonzero=False)
        assert products(result.model, x, nonzero=True) + others <= 0.4 * measure(model, x).flops
