"""The candidate operations of cells, under the names that papers and genotypes use.

Separable and dilated convolutions, pools and factorised reductions: DARTS (Liu, Simonyan & Yang 2019,
arXiv:1806.09055), after NASNet (Zoph et al. 2018, arXiv:1707.07012). `nor_conv_*`: NAS-Bench-201 (Dong & Yang 2020,
arXiv:2001.00326). `noise`: RobustDARTS (Zela et al. 2020, arXiv:1909.09656). Parameters are named as in the DARTS
authors' code, so that its checkpoints load. One departure: a factorised reduction pads odd images instead of refusing
them, as NNI does; even ones give the same output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional


class ReLUConvBN(nn.Module):
    """ReLU, a convolution that keeps the image or divides it by `stride`, batch norm."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, *, affine: bool = True) -> None:
        super().__init__()
        self.op = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(outputs, affine=affine),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) -> (n, outputs, ceil(h / stride), ceil(w / stride))."""
        y: Tensor = self.op(x)
        return y


class DepthwiseConv(nn.Module):
    """ReLU, depthwise and pointwise convolution, batch norm; `times` over, the stride in the first."""

    def __init__(
        self, channels: int, kernel: int, stride: int, *, dilation: int = 1, times: int = 1, affine: bool = True
    ) -> None:
        super().__init__()
        padding = dilation * (kernel // 2)
        layers: list[nn.Module] = []
        for number in range(times):
            step = 1 if number else stride
            depthwise = nn.Conv2d(channels, channels, kernel, step, padding, dilation, groups=channels, bias=False)
            pointwise = nn.Conv2d(channels, channels, 1, bias=False)
            layers += [nn.ReLU(), depthwise, pointwise, nn.BatchNorm2d(channels, affine=affine)]
        self.op = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, h, w) -> (n, channels, ceil(h / stride), ceil(w / stride))."""
        y: Tensor = self.op(x)
        return y


class FactorizedReduce(nn.Module):
    """Halves the image by two 1x1 convolutions, the second one pixel further; odd sizes are rounded up."""

    def __init__(self, inputs: int, outputs: int, *, affine: bool = True) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(inputs, (outputs + 1) // 2, 1, stride=2, bias=False)
        self.conv_2 = nn.Conv2d(inputs, outputs // 2, 1, stride=2, bias=False)
        self.bn = nn.BatchNorm2d(outputs, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) -> (n, outputs, ceil(h / 2), ceil(w / 2))."""
        x = functional.relu(x)
        height, width = x.shape[-2:]
        shifted = functional.pad(x, (0, width % 2, 0, height % 2))[:, :, 1:, 1:]
        y: Tensor = self.bn(torch.cat([self.conv_1(x), self.conv_2(shifted)], dim=1))
        return y


class Zero(nn.Module):
    """No connection: zeros of the right shape."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, :: self.stride, :: self.stride].mul(0.0)


class Noise(Zero):
    """Standard normal noise whatever the input, in evaluation too: a search that keeps it cannot be trusted."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.randn_like(x[:, :, :: self.stride, :: self.stride])


Factory = Callable[[int, int, bool], nn.Module]


def _skip(channels: int, stride: int, affine: bool) -> nn.Module:
    return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels, affine=affine)


def _plain(kernel: int) -> Factory:
    return lambda channels, stride, affine: ReLUConvBN(channels, channels, kernel, stride, affine=affine)


def _separable(kernel: int) -> Factory:
    return lambda channels, stride, affine: DepthwiseConv(channels, kernel, stride, times=2, affine=affine)


def _dilated(kernel: int) -> Factory:
    return lambda channels, stride, affine: DepthwiseConv(channels, kernel, stride, dilation=2, affine=affine)


OPERATIONS: Mapping[str, Factory] = MappingProxyType(
    {
        "none": lambda channels, stride, affine: Zero(stride),
        "max_pool_3x3": lambda channels, stride, affine: nn.MaxPool2d(3, stride, 1),
        "avg_pool_3x3": lambda channels, stride, affine: nn.AvgPool2d(3, stride, 1, count_include_pad=False),
        "skip_connect": _skip,
        "sep_conv_3x3": _separable(3),
        "sep_conv_5x5": _separable(5),
        "sep_conv_7x7": _separable(7),
        "dil_conv_3x3": _dilated(3),
        "dil_conv_5x5": _dilated(5),
        "nor_conv_1x1": _plain(1),
        "nor_conv_3x3": _plain(3),
        "noise": lambda channels, stride, affine: Noise(stride),
    }
)
"""Name -> (channels, stride, whether batch norms have scale and shift) -> a module that keeps the channels."""
