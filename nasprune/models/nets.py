"""Small networks that come with the package: CIFAR ResNets and a residual net for 8×8 digits.

He, Zhang, Ren, Sun 2016, "Deep residual learning for image recognition", arXiv:1512.03385, section 4.2: depth 6n + 2,
widths 16, 32, 64, and option-A shortcuts (every second pixel, zeros for the new channels), so that a shortcut has no
parameters. Parameters are named `conv1`, `bn1`, `layer{1..3}.{i}.conv{1,2}`, `layer{1..3}.{i}.bn{1,2}`, `linear`.
Departure: the new zero channels stand on both sides of the old ones, as in the public weights, not only behind them.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional


class PadShortcut(nn.Module):
    """Every `stride`-th pixel, and `pad` zero channels on either side. (N, C, H, W) -> (N, C + 2·pad, H/s, W/s)."""

    def __init__(self, pad: int, stride: int) -> None:
        super().__init__()
        self.pad = pad
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.pad, self.pad))


class BasicBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut without parameters."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        plain = stride == 1 and inputs == outputs
        self.shortcut: nn.Module = nn.Identity() if plain else PadShortcut((outputs - inputs) // 2, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class ResidualNet(nn.Module):
    """A 3×3 stem, stages of basic blocks that halve the image from the second on, mean over pixels, linear.

    input_shape: of one image, (channels, H, W). widths: one per stage. blocks: per stage.
    Input (N, *input_shape), output (N, num_classes).
    """

    def __init__(
        self, *, input_shape: tuple[int, int, int], widths: Sequence[int], blocks: int, num_classes: int
    ) -> None:
        super().__init__()
        self.input_shape = input_shape
        self.conv1 = nn.Conv2d(input_shape[0], widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.stages = tuple(f"layer{number}" for number in range(1, len(widths) + 1))
        inputs = widths[0]
        for stage, width in zip(self.stages, widths, strict=True):
            stride = 1 if stage == "layer1" else 2
            first = BasicBlock(inputs, width, stride)
            self.add_module(stage, nn.Sequential(first, *(BasicBlock(width, width, 1) for _ in range(blocks - 1))))
            inputs = width
        self.linear = nn.Linear(inputs, num_classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.bn1(self.conv1(x)))
        for stage in self.stages:
            out = self.get_submodule(stage)(out)
        logits: Tensor = self.linear(out.mean((2, 3)))
        return logits


def _cifar_resnet(depth: int) -> ResidualNet:
    return ResidualNet(input_shape=(3, 32, 32), widths=(16, 32, 64), blocks=(depth - 2) // 6, num_classes=10)


def resnet20() -> ResidualNet:
    """CIFAR ResNet-20: input (N, 3, 32, 32), 10 classes, 0.27 M parameters (the paper's table 6)."""
    return _cifar_resnet(20)


def resnet32() -> ResidualNet:
    """CIFAR ResNet-32: input (N, 3, 32, 32), 10 classes, 0.46 M parameters."""
    return _cifar_resnet(32)


def resnet44() -> ResidualNet:
    """CIFAR ResNet-44: input (N, 3, 32, 32), 10 classes, 0.66 M parameters."""
    return _cifar_resnet(44)


def resnet56() -> ResidualNet:
    """CIFAR ResNet-56: input (N, 3, 32, 32), 10 classes, 0.85 M parameters."""
    return _cifar_resnet(56)


def digits_net() -> ResidualNet:
    """A residual net for scikit-learn's digits: input (N, 1, 8, 8), 10 classes, two stages of three blocks."""
    return ResidualNet(input_shape=(1, 8, 8), widths=(24, 48), blocks=3, num_classes=10)
