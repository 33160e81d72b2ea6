"""Small networks for point clouds: PointNet and PointNet++.

Qi, Su, Mo, Guibas 2017, "PointNet: deep learning on point sets for 3D classification and segmentation",
arXiv:1612.00593; Qi, Yi, Su, Guibas 2017, "PointNet++: deep hierarchical feature learning on point sets in a metric
space", arXiv:1706.02413. Departures: narrower; PointNet without its two transforming networks, which is the paper's
"vanilla"; PointNet++ with one scale a level, groups of the nearest points and not of those within a radius.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class SharedMLP(nn.Module):
    """The same layers for every point: 1×1 convolution, norm, ReLU. (N, C, ...) -> (N, widths[-1], ...)."""

    def __init__(self, inputs: int, widths: Sequence[int], *, grouped: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in widths:
            layers.append(nn.Conv2d(inputs, width, 1) if grouped else nn.Conv1d(inputs, width, 1))
            layers += [nn.BatchNorm2d(width) if grouped else nn.BatchNorm1d(width), nn.ReLU()]
            inputs = width
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out


class Head(nn.Module):
    """Two layers on the features of a whole cloud. (N, C) -> (N, classes)."""

    def __init__(self, inputs: int, hidden: int, num_classes: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(inputs, hidden)
        self.bn1 = nn.BatchNorm1d(hidden)
        self.fc2 = nn.Linear(hidden, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc2(functional.relu(self.bn1(self.fc1(x))))
        return logits


class PointNet(nn.Module):
    """Features of every point, the largest over all of them, layers. Input (N, 3, points), output (N, num_classes)."""

    def __init__(
        self, *, points: int, widths: Sequence[int] = (64, 64, 128, 512), hidden: int = 256, num_classes: int = 10
    ) -> None:
        super().__init__()
        self.input_shape = (3, points)
        self.mlp = SharedMLP(3, widths)
        self.head = Head(widths[-1], hidden, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.mlp(x).amax(2))
        return logits


class SetAbstraction(nn.Module):
    """Some points, chosen far from each other, each with features of the nearest points around it.

    Positions (N, 3, P) and features (N, C, P) -> positions (N, 3, centres) and features (N, widths[-1], centres).
    """

    def __init__(self, inputs: int, widths: Sequence[int], *, centres: int, neighbours: int) -> None:
        super().__init__()
        self.centres, self.neighbours = centres, neighbours
        self.mlp = SharedMLP(3 + inputs, widths, grouped=True)

    def forward(self, positions: Tensor, features: Tensor | None) -> tuple[Tensor, Tensor]:
        centres = _gathered(positions, _spread(positions, self.centres)[:, None])[:, :, 0]
        distances = torch.cdist(centres.transpose(1, 2), positions.transpose(1, 2))
        near = distances.topk(self.neighbours, dim=2, largest=False).indices
        around = _gathered(positions, near) - centres[..., None]
        if features is not None:
            around = torch.cat([around, _gathered(features, near)], dim=1)
        return centres, self.mlp(around).amax(3)


class PointNet2(nn.Module):
    """Two levels of set abstraction, and a PointNet on what is left. Input (N, 3, points), output (N, num_classes)."""

    def __init__(self, *, points: int, num_classes: int = 10) -> None:
        super().__init__()
        self.input_shape = (3, points)
        self.level1 = SetAbstraction(0, (32, 32, 64), centres=64, neighbours=16)
        self.level2 = SetAbstraction(64, (64, 64, 128), centres=16, neighbours=16)
        self.mlp = SharedMLP(3 + 128, (128, 256))
        self.head = Head(256, 128, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        positions, features = self.level2(*self.level1(x, None))
        logits: Tensor = self.head(self.mlp(torch.cat([positions, features], dim=1)).amax(2))
        return logits


def pointnet() -> PointNet:
    """A small PointNet: input (N, 3, 256), 10 classes, 0.21 M parameters."""
    return PointNet(points=256)


def pointnet2() -> PointNet2:
    """A small PointNet++: input (N, 3, 256), 10 classes, 0.11 M parameters."""
    return PointNet2(points=256)


def _spread(positions: Tensor, count: int) -> Tensor:
    """Numbers (N, count) of points far from each other: the first, then always the one farthest from those chosen."""
    with torch.no_grad():
        chosen = [torch.zeros_like(positions[:, 0, :1], dtype=torch.long)]
        far = torch.full_like(positions[:, 0], torch.inf)
        for _ in range(count - 1):
            last = positions.gather(2, chosen[-1][:, None].expand(-1, 3, -1))
            far = torch.minimum(far, (positions - last).square().sum(1))
            chosen.append(far.argmax(1, keepdim=True))
        return torch.cat(chosen, dim=1)


def _gathered(features: Tensor, numbers: Tensor) -> Tensor:
    """Features (N, C, P) of points by number (N, a, b): (N, C, a, b)."""
    flat = numbers.flatten(1)[:, None].expand(-1, features.shape[1], -1)
    return features.gather(2, flat).reshape(*features.shape[:2], *numbers.shape[1:])
