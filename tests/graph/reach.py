"""Tiny nets whose channels have a clear meaning that is spread over the code. `free`: groups that must be free.

Registered like the structures, and put to the same tests.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from tests.graph.structure import Net, Structure, conv, into

REACH: list[Structure] = []
TOKENS = (1, 6, 12)


reach = into(REACH)


class Normed(Net):
    """A convolution, `norm`, a convolution."""

    def __init__(self) -> None:
        super().__init__(6)
        self.a, self.b = conv(3, 8), conv(8, 6)
        self.scale, self.shift = nn.Parameter(torch.ones(8, 1, 1)), nn.Parameter(torch.zeros(8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.b(self.scale * self.norm(self.a(x)) + self.shift))

    def norm(self, x: Tensor) -> Tensor:
        raise NotImplementedError


@reach(free=2)
class ChannelsFirstNorm(Normed):
    def norm(self, x: Tensor) -> Tensor:
        centred = x - x.mean(1, keepdim=True)
        return centred / (centred.square().mean(1, keepdim=True) + 1e-6).sqrt()


@reach(free=2)
class VarianceNorm(Normed):
    def norm(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, 1, correction=0, keepdim=True)
        return (x - mean) * (variance + 1e-5).rsqrt() / (1 + x.std(dim=1, keepdim=True))


@reach(free=2)
class RootMeanSquare(Normed):
    def norm(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-5)


@reach(free=2)
class UnitLength(Normed):
    def norm(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=1) + x / x.norm(1, dim=1, keepdim=True) + x / x.norm(p=float("inf"), dim=1)[:, None]


@reach(free=2)
class GlobalResponse(Normed):
    def norm(self, x: Tensor) -> Tensor:
        energy = x.norm(p=2, dim=(2, 3), keepdim=True)
        return x * (energy / (energy.mean(1, keepdim=True) + 1e-6)) + x


@reach(free=2)
class OverEverything(Normed):
    def norm(self, x: Tensor) -> Tensor:
        centred = x - x.mean((1, 2, 3), keepdim=True)
        return centred / (centred.square().mean((1, 2, 3), keepdim=True) + 1e-8).sqrt()


@reach(free=2)
class SpatialGate(Normed):
    """CBAM: mean and maximum over channels say where to look."""

    def norm(self, x: Tensor) -> Tensor:
        return x * (x.amax(1, keepdim=True) - x.max(1, keepdim=True)[0] + x.min(1, keepdim=True)[0]).sigmoid()


@reach(free=2)
class MeanBySum(Normed):
    """The number of channels is read off the tensor and divided by."""

    def norm(self, x: Tensor) -> Tensor:
        return x - x.sum(1, keepdim=True) / x.shape[1]


@reach(free=2)
class Cosine(Normed):
    def norm(self, x: Tensor) -> Tensor:
        return x * F.cosine_similarity(x, x.relu() + 1, dim=1)[:, None]


@reach(free=1, reason="mixes")
class PlaceOfLargest(Normed):
    def norm(self, x: Tensor) -> Tensor:
        return x * x.argmax(1, keepdim=True)


@reach(free=2, shape=TOKENS)
class SplitByStoredSizes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.sizes = [8, 4, 4]
        self.a, self.b, self.c, self.d = nn.Linear(12, 16), nn.Linear(8, 8), nn.Linear(8, 10), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        gate, left, right = self.a(x).split(self.sizes, -1)
        return self.d(self.c(self.b(gate) * torch.cat([left, right], -1)).relu())


@reach(free=2)
class SizeOfAnother(Net):
    """The width of the input gives a shape to what a convolution makes: both keep the same share."""

    def __init__(self) -> None:
        super().__init__(6)
        self.a, self.b, self.norm, self.c = conv(3, 8), conv(8, 8), nn.LayerNorm(8), nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).relu()
        n, c, h, w = x.shape
        y = self.c(self.norm(self.b(x).reshape(n, c, h * w).transpose(1, 2)))
        return self.head(y.mean(1))


@reach(free=2)
class ChecksItsInput(Net):
    """A layer that insists on the width that it stores."""

    def __init__(self) -> None:
        super().__init__(6)
        self.a, self.b = conv(3, 8), _Checking(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.b(self.a(x).relu()))


class _Checking(nn.Module):
    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.width, self.conv = width, conv(width, out)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] != self.width:
            raise ValueError(f"expected {self.width} channels, got {x.shape[1]}")
        return self.conv(x)


@reach(free=4)
class SlicedLists(Net):
    """Parts of a Sequential and of a ModuleList whose layers share an activation."""

    def __init__(self) -> None:
        super().__init__(6)
        act = nn.ReLU()
        self.body = nn.Sequential(nn.Sequential(conv(3, 8), act), nn.Sequential(conv(8, 10), nn.BatchNorm2d(10), act))
        self.more = nn.ModuleList([nn.Sequential(conv(9, 9), act), nn.Sequential(conv(10, 12), act), conv(12, 6)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.body[1:](self.body[:1](x))
        for layer in self.more[1:]:
            x = layer(x)
        return self.classify(x)


@reach(free=2)
class FallsBack(Net):
    """Layers are tried with an argument that they do not take."""

    def __init__(self) -> None:
        super().__init__(6)
        self.layers = nn.ModuleList([conv(3, 8), nn.ReLU(), conv(8, 6)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            try:
                x = layer(x, lengths=None)
            except TypeError:
                x = layer(x)
        return self.classify(x)


class Weighted(Net):
    """Three convolutions under a normalisation of their weights."""

    def __init__(self, wrap: Callable[[nn.Module], nn.Module]) -> None:
        super().__init__(6)
        self.a, self.b, self.c = wrap(conv(3, 8)), wrap(conv(8, 10, bias=False)), wrap(conv(10, 6))

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.c(self.b(self.a(x).relu()).relu()))


@reach(free=3)
class WeightNorm(Weighted):
    def __init__(self) -> None:
        super().__init__(parametrizations.weight_norm)


@reach(free=0, reason="spectral norm")
class SpectralNorm(Weighted):
    def __init__(self) -> None:
        super().__init__(parametrizations.spectral_norm)


@reach(free=1)
class BestTokens(Net):
    """The best tokens go on; their features are those of all."""

    def __init__(self) -> None:
        super().__init__(6)
        self.a, self.score = conv(3, 6), nn.Linear(6, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).flatten(2).transpose(1, 2)
        best = self.score(x).squeeze(-1).topk(5, 1)[1]
        return self.head(x.gather(1, best.unsqueeze(-1).expand(-1, -1, x.shape[-1])).mean(1))


@reach(free=0, reason="by their values")
class BestChannels(Net):
    def __init__(self) -> None:
        super().__init__(4)
        self.a = conv(3, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.a(x).topk(4, 1)[0])


@reach(free=2, shape=TOKENS)
class SizeOfAConfiguration(nn.Module):
    """As models with a configuration object do; its other numbers of that size mean something else."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(hidden_sizes=[10, 8], num_labels=8, image_size=6)
        self.a, self.b, self.c = nn.Linear(12, 10), nn.Linear(10, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.a(x).relu()).relu()
        x = x.reshape(x.shape[0], -1, self.config.hidden_sizes[-1])
        return self.c(x.mean(1))
