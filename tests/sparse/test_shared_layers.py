"""Zeros in layers that run on several inputs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import nasprune
from nasprune.calibration.layers import is_layer, row_count
from nasprune.cost.flops import measure
from nasprune.data import ArrayDataset, DataSplits
from tests.refit.test_shared_layers import Irregular, Siamese


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


def noise() -> DataSplits:
    parts = {
        part: ArrayDataset(torch.randn(32, 6, 8, 8), torch.randint(4, (32,)))
        for part in ("train", "calibration", "validation", "test")
    }
    return DataSplits("noise", num_classes=4, input_shape=(6, 8, 8), **parts)


@pytest.mark.parametrize("budget", ["40%NNZ", "40%NNZFLOPs"])
def test_zeros_come_into_them_and_every_run_is_counted(budget: str) -> None:
    torch.manual_seed(0)
    model = Siamese().eval()
    result = nasprune.search(model, torch.zeros(1, 6, 8, 8), budget, data=noise(), evaluator="kl")
    assert {"encoder.stem.weight", "encoder.body.weight"} <= set(result.plan.masks)
    x = torch.randn(1, 6, 8, 8)
    if budget == "40%NNZ":
        left = sum(int(value.count_nonzero()) for value in result.model.parameters())
        assert left <= 0.4 * sum(value.numel() for value in model.parameters())
    else:
        others = measure(model, x).flops - products(model, x, nonzero=False)
        assert products(result.model, x, nonzero=True) + others <= 0.4 * measure(model, x).flops


class ByTheBatch(Siamese):
    """Without a program of several items."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x)
        return y[:, :3] if len(x) > 1 and x.max() > 1e6 else y


class TwoOutputs(nn.Module):
    """Two heads; what the second one gives is not what harms are measured on."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.second = nn.Conv2d(6, 16, 3), nn.Conv2d(16, 4, 3), nn.Conv2d(16, 8, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.stem(x).relu()
        return self.first(x).mean((2, 3)), self.second(x).mean((2, 3))


@pytest.mark.parametrize(
    ("kind", "whole"),
    [
        (Irregular, {"often.weight", "dead.weight"}),
        (ByTheBatch, {"encoder.stem.weight", "encoder.body.weight"}),
        (TwoOutputs, set()),
    ],
)
def test_what_cannot_be_refitted_is_left_whole(kind: type[nn.Module], whole: set[str]) -> None:
    torch.manual_seed(0)
    model = kind().eval()
    size = sum(value.numel() for value in model.parameters())
    fixed = sum(value.numel() for name, value in model.named_parameters() if name in whole or value.ndim == 1)
    limit = fixed + int(0.8 * (size - fixed))
    result = nasprune.search(model, torch.zeros(1, 6, 8, 8), f"{limit}NNZ", data=noise(), evaluator="kl")
    assert not whole & set(result.plan.masks)
    assert sum(int(value.count_nonzero()) for value in result.model.parameters()) <= limit
