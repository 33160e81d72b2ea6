"""Binary weights and inputs, as a baseline: LeNet-5 with its inner layers in XNOR-Net's form.

Rastegari, Ordonez, Redmon, Farhadi 2016, "XNOR-Net: ImageNet classification using binary convolutional neural
networks", arXiv:1603.05279: a block is norm, sign, binary layer; outputs are multiplied by the mean absolute weight of
each filter and by the mean absolute input around each position; gradients pass signs where the input lies in [-1, 1].
First and last layer stay as they are. Products are computed in floating point: this measures error and size, not speed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class _Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.where(x < 0, -1.0, 1.0)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradient * (x.abs() <= 1)


class BinaryConv2d(nn.Conv2d):
    """A convolution of signs with signs, without a bias."""

    def forward(self, x: Tensor) -> Tensor:
        around = torch.full((1, 1, *self.kernel_size), 1 / (self.kernel_size[0] * self.kernel_size[1]))
        size = functional.conv2d(x.abs().mean(1, keepdim=True), around, None, self.stride, self.padding)
        signs = functional.conv2d(_Sign.apply(x), _signs(self.weight), None, self.stride, self.padding)
        return signs * size * self.weight.abs().mean((1, 2, 3)).view(1, -1, 1, 1)


class BinaryLinear(nn.Linear):
    """Signs times signs, without a bias."""

    def forward(self, x: Tensor) -> Tensor:
        size = x.abs().mean(1, keepdim=True)
        return functional.linear(_Sign.apply(x), _signs(self.weight)) * size * self.weight.abs().mean(1)


class BinaryLeNet5(nn.Module):
    """Input (N, 1, 28, 28), output (N, 10)."""

    input_shape = (1, 28, 28)

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 20, 5), nn.BatchNorm2d(20)
        self.conv2, self.bn2 = BinaryConv2d(20, 50, 5, bias=False), nn.BatchNorm2d(50)
        self.fc1, self.bn3 = BinaryLinear(800, 500, bias=False), nn.BatchNorm1d(500)
        self.fc2 = nn.Linear(500, 10)

    def forward(self, x: Tensor) -> Tensor:
        out = functional.max_pool2d(self.conv1(x), 2)
        out = functional.max_pool2d(self.conv2(self.bn1(out)), 2)
        return self.fc2(functional.relu(self.bn3(self.fc1(self.bn2(out).flatten(1)))))


def packed_bytes(model: nn.Module) -> int:
    """With one bit for each binary weight, a scale of 32 bits for each filter, and everything else as it is."""
    binary = [layer.weight for layer in model.modules() if isinstance(layer, BinaryConv2d | BinaryLinear)]
    bits = sum(weight.numel() + 32 * len(weight) for weight in binary)
    rest = sum(value.numel() for value in model.parameters()) - sum(weight.numel() for weight in binary)
    return -(-bits // 8) + 4 * rest


def _signs(weight: Tensor) -> Tensor:
    """Signs whose gradient is that of the weights, which are small."""
    return weight + (torch.where(weight < 0, -1.0, 1.0) - weight).detach()
