"""Tiny trained-looking networks for tests that need a real graph."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """A residual block of two convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))).relu()


class TinyResNet(nn.Module):
    """Stem, residual blocks, mean over pixels, linear; (N, 3, H, W) -> (N, 4). Statistics are made random."""

    def __init__(self, width: int = 16, depth: int = 2, *, seed: int = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(depth)))
        self.head = nn.Linear(width, 4)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for value in self.state_dict().values():
                if value.is_floating_point():
                    value.copy_(
                        torch.rand(value.shape, generator=generator) + 0.5
                        if value.ndim == 1
                        else torch.randn(value.shape, generator=generator) * 0.2
                    )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.bn(self.conv(x)).relu()).mean((2, 3)))


EXAMPLE = torch.zeros(1, 3, 8, 8)


def images(count: int = 60, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random images (count, 3, 8, 8) with labels (count,) in four classes."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, 8, 8, generator=generator), torch.arange(count) % 4
