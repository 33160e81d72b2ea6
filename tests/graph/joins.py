"""Tiny nets whose channels meet: sums, concatenations, splits, products and reshapes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.graph.structure import Net, Structure, conv, into

JOINS: list[Structure] = []
structure = into(JOINS)


@structure(free=3)
class ResidualChain(Net):
    def __init__(self) -> None:
        super().__init__(8)
        self.stem, self.a, self.b = conv(3, 8), conv(8, 12), conv(12, 8)
        self.c, self.d = conv(8, 10), conv(10, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = x + self.b(self.a(x).relu())
        return self.classify(x + self.d(self.c(x).relu()))


@structure(free=4)
class NestedConcat(Net):
    def __init__(self) -> None:
        super().__init__(20)
        self.a, self.b, self.c = conv(3, 4), conv(4, 6), conv(10, 8)
        self.bn, self.mix = nn.BatchNorm2d(18), conv(18, 20)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        ab = torch.cat([a, self.b(a)], 1)
        return self.classify(self.mix(self.bn(torch.cat([self.c(ab), ab], 1)).relu()))


@structure(free=3)
class ConcatTwice(Net):
    def __init__(self) -> None:
        super().__init__(7)
        self.a, self.b, self.c = conv(3, 4), conv(3, 6), conv(14, 7)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x).relu()
        return self.classify(self.c(torch.cat([a, a, self.b(x)], 1)))


@structure(free=3)
class AddOfConcats(Net):
    """4 + 8 meets 8 + 4: three runs of four channels that are tied across branches."""

    def __init__(self) -> None:
        super().__init__(12)
        self.a, self.b, self.c, self.d = conv(3, 4), conv(3, 8), conv(3, 8), conv(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(torch.cat([self.a(x), self.b(x)], 1) + torch.cat([self.c(x), self.d(x)], 1))


@structure(free=5)
class C2f(Net):
    """YOLOv8's block: chunk, a chain of bottlenecks, one concat of everything."""

    def __init__(self) -> None:
        super().__init__(16)
        self.stem, self.cv1 = conv(3, 8), conv(8, 16, 1)
        self.m1, self.m2 = nn.Sequential(conv(8, 6), nn.ReLU(), conv(6, 8)), nn.Sequential(conv(8, 8))
        self.cv2 = conv(32, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = list(self.cv1(self.stem(x)).chunk(2, 1))
        y.append(y[-1] + self.m1(y[-1]))
        y.append(self.m2(y[-1]))
        return self.classify(self.cv2(torch.cat(y, 1)))


@structure(free=2)
class SplitGetitem(Net):
    """`split` by a computed size: both halves shrink equally."""

    def __init__(self) -> None:
        super().__init__(12)
        self.a, self.b = conv(3, 16), conv(8, 12)
        self.c = conv(8, 12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        left, right = x.split(x.shape[1] // 2, 1)
        return self.classify(self.b(left).relu() + self.c(right))


@structure(free=1, reason="fixed")
class BakedSplit(Net):
    def __init__(self) -> None:
        super().__init__(12)
        self.a, self.b = conv(3, 16), conv(8, 12)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.a(x).split([8, 8], 1)
        return self.classify(self.b(left) + self.b(right))


@structure(free=1)
class ChannelShuffle(Net):
    def __init__(self) -> None:
        super().__init__(8)
        self.a, self.b = conv(3, 8), conv(8, 8, groups=2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.classify(self.b(x) + x)


@structure(free=3)
class SqueezeExcite(Net):
    def __init__(self) -> None:
        super().__init__(6)
        self.a, self.b = conv(3, 16), conv(16, 6)
        self.down, self.up = nn.Linear(16, 4), nn.Linear(4, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        n, c, _, _ = x.shape
        gate = self.up(self.down(F.adaptive_avg_pool2d(x, 1).view(n, c)).relu()).sigmoid().view(n, c, 1, 1)
        return self.classify(self.b(x * gate))


@structure(free=2)
class Glu(Net):
    def __init__(self) -> None:
        super().__init__(6)
        self.a, self.b = conv(3, 16), conv(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.b(F.glu(self.a(x), 1)))


@structure(free=2)
class PixelShuffle(Net):
    def __init__(self) -> None:
        super().__init__(6)
        self.a, self.shuffle, self.b = conv(3, 16), nn.PixelShuffle(2), conv(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.b(self.shuffle(self.a(x))))


@structure(free=2)
class PadShortcut(Net):
    """Option A of He et al.: the un-padded channels stay free."""

    def __init__(self) -> None:
        super().__init__(16)
        self.stem, self.a, self.b = conv(3, 8), conv(8, 12), conv(12, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        return self.classify(self.b(self.a(x).relu()) + F.pad(x, (0, 0, 0, 0, 4, 4)))


@structure(free=2)
class MeanOverChannels(Net):
    def __init__(self) -> None:
        super().__init__(6)
        self.a, self.b = conv(3, 8), conv(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.classify(self.b(x * x.mean(1, keepdim=True)))


@structure(free=1)
class UnusedBranch(Net):
    def __init__(self) -> None:
        super().__init__(6)
        self.a, self.unused = conv(3, 6), conv(6, 9)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        self.unused(x)
        return self.classify(x)


@structure(free=1, reason="returns")
class DictAndTuple(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 8), conv(8, 4), conv(8, 3)
        self.d = conv(4, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor | tuple[Tensor, Tensor]]:
        x = self.a(x)
        b = self.b(x)
        return {"one": b, "two": (self.c(x), self.d(b))}


@structure(free=2)
class LayerScale(Net):
    def __init__(self) -> None:
        super().__init__(8)
        self.a, self.b = conv(3, 8), conv(8, 12)
        self.c = conv(12, 8)
        self.gamma = nn.Parameter(torch.full((8, 1, 1), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.classify(x + self.gamma * self.c(self.b(x).relu()))


@structure(free=4)
class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(3, 6), conv(6, 10)
        self.up, self.c, self.out = nn.ConvTranspose2d(10, 6, 2, 2), conv(12, 8), conv(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x).relu()
        b = self.b(F.max_pool2d(a, 2)).relu()
        return self.out(self.c(torch.cat([a, self.up(b)], 1)).relu())


@structure(free=2)
class Interpolated(Net):
    def __init__(self) -> None:
        super().__init__(6)
        self.a, self.b, self.c = conv(3, 8), nn.Conv2d(8, 8, 3, 2, 1), conv(8, 6)
        self.d = conv(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        b = F.interpolate(self.b(a), scale_factor=2, mode="bilinear")
        return self.classify(self.d(self.c(a + b)) + F.interpolate(self.c(a), size=(8, 8)))


@structure(free=3)
class SplitAttention(Net):
    """ResNeSt: a radix axis made by reshape, summed, soft-maxed and multiplied back."""

    def __init__(self) -> None:
        super().__init__(6)
        self.a, self.fc1, self.fc2 = conv(3, 16), conv(8, 5, 1), conv(5, 16, 1)
        self.b = conv(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        n, c, h, w = x.shape
        x = x.reshape(n, 2, c // 2, h, w)
        gate = self.fc2(self.fc1(x.sum(1).mean((2, 3), keepdim=True)).relu())
        gate = gate.view(n, 1, 2, -1).transpose(1, 2).softmax(1).reshape(n, -1)
        return self.classify(self.b((x * gate.reshape(n, 2, c // 2, 1, 1)).sum(1)))


@structure(free=1, reason="across")
class ChannelAttention(Net):
    def __init__(self) -> None:
        super().__init__(6)
        self.a, self.b = conv(3, 8), conv(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        flat = x.flatten(2)
        gram = (flat @ flat.transpose(1, 2)).softmax(-1)
        return self.classify(self.b((gram @ flat).reshape(x.shape)))


@structure(free=1, reason="splits off a single channel")
class FocalModulation(Net):
    """Queries, contexts and three gates in one projection: the gates are single channels, and stay."""

    def __init__(self) -> None:
        super().__init__(8)
        self.stem, self.mix, self.out = conv(3, 8), conv(8, 8), conv(8, 8)
        self.project = conv(8, 8 + 8 + 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        width = x.shape[1]
        queries, context, gates = torch.split(self.project(x), (width, width, 3), 1)
        found = sum(context * gates[:, level : level + 1].sigmoid() for level in range(3))
        return self.classify(x + self.out(queries * self.mix(found)).relu())


@structure(free=2, reason="splits off a single channel")
class FirstChannelGates(Net):
    def __init__(self) -> None:
        super().__init__(6)
        self.a, self.b = conv(3, 9), conv(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.classify(self.b(x[:, 1:].relu() * x[:, :1].sigmoid()))


@structure(free=1, reason="splits off a single channel")
class LastChannelGates(Net):
    """The code counts the channels before the last one, which it may not: the place of the last one would change."""

    def __init__(self) -> None:
        super().__init__(6)
        self.a, self.b = conv(3, 9), conv(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.classify(self.b(x[:, :8].relu() * x[:, 8:9].sigmoid()))
