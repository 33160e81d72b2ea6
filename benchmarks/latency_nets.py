"""Networks whose time is a budget: five of torchvision's, and one built like a YOLO detector."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.exports import disturbed
from nasprune.models.loading import load_model

NETS = ("resnet18", "resnet50", "mobilenet_v2", "efficientnet_b0", "convnext_tiny", "yolo")
SIDE = 224


class Conv(nn.Module):
    """Convolution, norm and SiLU."""

    def __init__(self, reads: int, makes: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(reads, makes, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(makes)

    def forward(self, x: Tensor) -> Tensor:
        return functional.silu(self.norm(self.conv(x)))


class Split(nn.Module):
    """Half of the channels pass residual pairs of convolutions; whatever each gives is concatenated."""

    def __init__(self, reads: int, makes: int, pairs: int) -> None:
        super().__init__()
        half = makes // 2
        self.first, self.last = Conv(reads, makes), Conv((2 + pairs) * half, makes)
        self.pairs = nn.ModuleList(nn.Sequential(Conv(half, half, 3), Conv(half, half, 3)) for _ in range(pairs))

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.first(x).chunk(2, 1))
        for pair in self.pairs:
            parts.append(parts[-1] + pair(parts[-1]))
        return self.last(torch.cat(parts, 1))


class Yolo(nn.Module):
    """A backbone of three scales, a way up and down between them, a head on each. (N, 3, H, W) -> three maps."""

    def __init__(self, width: int = 16, classes: int = 80) -> None:
        super().__init__()
        w = width
        self.stem = nn.Sequential(Conv(3, w, 3, 2), Conv(w, 2 * w, 3, 2), Split(2 * w, 2 * w, 1))
        self.small = nn.Sequential(Conv(2 * w, 4 * w, 3, 2), Split(4 * w, 4 * w, 2))
        self.middle = nn.Sequential(Conv(4 * w, 8 * w, 3, 2), Split(8 * w, 8 * w, 2))
        self.large = nn.Sequential(Conv(8 * w, 16 * w, 3, 2), Split(16 * w, 16 * w, 1))
        self.up_middle, self.up_small = Split(24 * w, 8 * w, 1), Split(12 * w, 4 * w, 1)
        self.down = Conv(4 * w, 4 * w, 3, 2)
        self.down_middle = Split(12 * w, 8 * w, 1)
        self.heads = nn.ModuleList(
            nn.Sequential(Conv(size, size, 3), nn.Conv2d(size, classes + 64, 1)) for size in (4 * w, 8 * w, 16 * w)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        small = self.small(self.stem(x))
        middle = self.middle(small)
        large = self.large(middle)
        middle = self.up_middle(torch.cat([functional.interpolate(large, scale_factor=2.0), middle], 1))
        small = self.up_small(torch.cat([functional.interpolate(middle, scale_factor=2.0), small], 1))
        middle = self.down_middle(torch.cat([self.down(small), middle], 1))
        return tuple(head(scale) for head, scale in zip(self.heads, (small, middle, large), strict=True))


def net_of(name: str) -> nn.Module:
    """The network, untrained, with weights and norms such that its inputs reach its outputs, in eval mode."""
    torch.manual_seed(0)
    model = Yolo() if name == "yolo" else load_model(f"torchvision:{name}").model
    disturbed(model)
    return model.eval()


def images() -> Tensor:
    """One image."""
    return torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
