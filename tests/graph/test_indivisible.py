"""Groups of which nothing smaller can stay say so, instead of passing for free."""

from __future__ import annotations

import torch
from torch import nn

import nasprune


class Shuffled(nn.Module):
    """A quarter of the channels is worked on, then all are shuffled, which ties every channel to every other."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.quarter = channels // 4
        self.op = nn.Conv2d(self.quarter, self.quarter, 3, padding=1)

    def forward(self, x):
        y = torch.cat([self.op(x[:, : self.quarter]), x[:, self.quarter :]], 1)
        return x + y.unflatten(1, (4, -1)).transpose(1, 2).flatten(1, 2)


def test_channels_tied_into_one_unit_are_frozen_with_the_reason():
    net = nn.Sequential(nn.Conv2d(3, 16, 3), Shuffled(16), Shuffled(16), nn.ReLU(), nn.Conv2d(16, 4, 1))
    group = nasprune.trace(net, torch.randn(1, 3, 8, 8)).group("0")
    assert group.width == 1
    assert group.frozen_because is not None
    assert "ties its 16 channels into one unit" in group.frozen_because
