"""Predicted costs of random decisions, and the count on what they build, where fvcore alone would count too little."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from nasprune.cost.flops import CostModel, measure
from nasprune.cut.plan import PrunePlan
from nasprune.cut.surgery import build
from nasprune.run.trace import trace
from tests.cost.operators import Covariance
from tests.cost.test_flops import random_keep


class Net(nn.Module):
    """A convolution in front, what a subclass does with its 12 channels, and a classifier."""

    features = 12

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 12, 3, padding="same"), nn.BatchNorm2d(12), nn.ReLU())
        self.head = nn.Sequential(nn.Linear(self.features, 10), nn.ReLU(), nn.Linear(10, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(self.stem(x)))

    def middle(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class Attention(Net):
    """Queries, keys and values by hand, fused or by einsum, with a feed-forward layer."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(12, 36), nn.Linear(12, 12)
        self.inner, self.outer = nn.Linear(12, 20), nn.Linear(20, 12)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(q, k, v)

    def middle(self, x: Tensor) -> Tensor:
        x = x.flatten(2).transpose(1, 2)
        q, k, v = (part.unflatten(-1, (3, 4)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        x = x + self.out(self.mix(q, k, v).transpose(1, 2).flatten(2))
        return (x + self.outer(self.inner(x).relu())).mean(1)


class EinsumAttention(Attention):
    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights = torch.einsum("bhnd,bhmd->bhnm", q, k).softmax(-1)
        return torch.einsum("bhnm,bhmd->bhnd", weights, v)


class Layer(Net):
    """torch's own encoder layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(12, 3, 20, batch_first=True)

    def middle(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(2).transpose(1, 2)).mean(1)


class Recurrent(Net):
    features = 10

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(12, 5, num_layers=2, bidirectional=True, batch_first=True)
        self.cell = nn.GRUCell(12, 10)

    def middle(self, x: Tensor) -> Tensor:
        x = x.flatten(2).transpose(1, 2)
        return self.lstm(x)[0][:, -1] + self.cell(x[:, 0])


class Deformable(Net):
    def __init__(self) -> None:
        super().__init__()
        self.offset = nn.Conv2d(12, 18, 1)
        self.deform = torchvision.ops.DeformConv2d(12, 12, 3, padding=1)

    def middle(self, x: Tensor) -> Tensor:
        return self.deform(x, self.offset(x)).mean((2, 3))


class Unused(Net):
    """Branches that run and that nothing reads: changed in place, written into a view, or kept in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Conv2d(12, 12, 3), nn.Conv2d(12, 12, 3)
        self.register_buffer("last", torch.zeros(12))

    def middle(self, x: Tensor) -> Tensor:
        exits = [self.unused(x).relu_(), self.used(x).relu_()]
        kept = torch.zeros(1, 24, 6, 6)
        kept[:, :12] = self.unused(x)
        self.last = self.unused(x).mean((0, 2, 3))
        return exits[-1].mean((2, 3))


class Written(Net):
    """Changes in place that a result does read, through views."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(12, 12, 1), nn.Conv2d(12, 12, 1)

    def middle(self, x: Tensor) -> Tensor:
        y = self.one(x)
        y.view(1, 12, -1)[:, :, :10].mul_(self.other(x).flatten(2)[:, :, :10])
        return y.mean((2, 3))


class OwnGradient(Net):
    """A product in an autograd function."""

    features = 144

    def middle(self, x: Tensor) -> Tensor:
        return Covariance.apply(x.flatten(2)).flatten(1)


class Mixing(Net):
    """Shared adjacency: one matrix times many, and a Fourier transform over space."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("adjacency", torch.rand(64, 64))
        self.after = nn.Linear(12, 12)

    def middle(self, x: Tensor) -> Tensor:
        x = torch.fft.irfft2(torch.fft.rfft2(x), s=(8, 8))
        return self.after(self.adjacency @ x.flatten(2).transpose(1, 2)).mean(1)


NETS = [Attention, EinsumAttention, Layer, Recurrent, Deformable, Unused, Written, OwnGradient, Mixing]


@pytest.mark.parametrize("make", NETS)
def test_prediction_equals_the_count_on_the_built_network(make: Callable[[], Net]) -> None:
    torch.manual_seed(1)
    rng = random.Random(make.__name__)
    model = make().eval()
    graph = trace(model, torch.randn(1, 3, 8, 8))
    prices = CostModel(graph)
    assert prices.dense == measure(model, graph.example_inputs)
    assert graph.free_groups
    for _ in range(3):
        keep = {group.name: random_keep(group, rng) for group in graph.free_groups if rng.random() < 0.7}
        plan = PrunePlan(graph.signature, keep)
        assert prices.costs([plan.counts])[0] == measure(build(model, graph, plan), graph.example_inputs)


def test_what_nothing_reads_costs_nothing() -> None:
    model = Unused().eval()
    stem, used, head = 64 * 12 * 27 + 2 * 64 * 12, 36 * 12 * 12 * 9, 12 * 10 + 10 * 4
    assert measure(model, torch.randn(1, 3, 8, 8)).flops == stem + used + head
