"""The two networks for MNIST that methods for sparse weights are measured on.

LeCun, Bottou, Bengio, Haffner 1998, "Gradient-based learning applied to document recognition", in the form that this
literature uses, which is Caffe's (Jia et al. 2014, arXiv:1408.5093): nothing but pooling between convolutions, ReLU in
front of the last layer.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class LeNet300(nn.Module):
    """784 - 300 - 100 - 10, fully connected. Input (N, 1, 28, 28), output (N, 10)."""

    input_shape = (1, 28, 28)

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(784, 300)
        self.fc2 = nn.Linear(300, 100)
        self.fc3 = nn.Linear(100, 10)

    def forward(self, x: Tensor) -> Tensor:
        hidden = functional.relu(self.fc2(functional.relu(self.fc1(x.flatten(1)))))
        logits: Tensor = self.fc3(hidden)
        return logits


class LeNet5(nn.Module):
    """Two 5×5 convolutions with 20 and 50 channels, each with a pooling, 800 - 500 - 10. As `LeNet300`."""

    input_shape = (1, 28, 28)

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.fc1 = nn.Linear(800, 500)
        self.fc2 = nn.Linear(500, 10)

    def forward(self, x: Tensor) -> Tensor:
        out = functional.max_pool2d(self.conv2(functional.max_pool2d(self.conv1(x), 2)), 2)
        logits: Tensor = self.fc2(functional.relu(self.fc1(out.flatten(1))))
        return logits


def lenet_300_100() -> LeNet300:
    """LeNet-300-100: input (N, 1, 28, 28), 10 classes, 266,610 parameters."""
    return LeNet300()


def lenet_5() -> LeNet5:
    """LeNet-5 as in Caffe: input (N, 1, 28, 28), 10 classes, 431,080 parameters."""
    return LeNet5()
