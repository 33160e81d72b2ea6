"""Tiny nets of layers that tie or spread channels in their own way: groups, norms, flattening, shared weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.graph.structure import Net, Structure, conv, into

LAYERS: list[Structure] = []
structure = into(LAYERS)


@structure(free=2)
class GroupedConv(Net):
    """Grouped convolution with in != out: every group keeps equally many."""

    def __init__(self) -> None:
        super().__init__(16)
        self.a, self.b, self.bn = conv(3, 8), conv(8, 16, groups=4), nn.BatchNorm2d(16)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.bn(self.b(self.a(x).relu())).relu())


@structure(free=2)
class DepthwiseMultiplier(Net):
    def __init__(self) -> None:
        super().__init__(6)
        self.a, self.b, self.c = conv(3, 8), conv(8, 16, groups=8), conv(16, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.c(self.b(self.a(x).relu())))


@structure(free=3)
class GroupedTransposed(Net):
    def __init__(self) -> None:
        super().__init__(6)
        self.a = conv(3, 8)
        self.up = nn.ConvTranspose2d(8, 12, 2, 2, groups=2)
        self.b = conv(12, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.b(self.up(self.a(x).relu()).relu()))


@structure(free=2)
class DepthwiseTransposed(Net):
    def __init__(self) -> None:
        super().__init__(6)
        self.a, self.up, self.b = conv(3, 8), nn.ConvTranspose2d(8, 8, 2, 2, groups=8), conv(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.b(self.up(self.a(x).relu()).relu()))


@structure(free=2)
class PerChannelPReLU(Net):
    def __init__(self) -> None:
        super().__init__(6)
        self.a, self.act, self.b = conv(3, 8), nn.PReLU(8), conv(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.b(self.act(self.a(x))))


@structure(free=2)
class GroupNorms(Net):
    def __init__(self) -> None:
        super().__init__(12)
        self.a, self.gn, self.b, self.one = conv(3, 8), nn.GroupNorm(4, 8), conv(8, 12), nn.GroupNorm(1, 12)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.one(self.b(self.gn(self.a(x)).relu())))


@structure(free=2)
class NormsWithoutParameters(Net):
    def __init__(self) -> None:
        super().__init__(12)
        self.a, self.gn, self.b = conv(3, 8), nn.GroupNorm(2, 8, affine=False), conv(8, 12)
        self.bn = nn.BatchNorm2d(12, affine=False)
        self.ln = nn.LayerNorm(12, elementwise_affine=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.b(self.gn(self.a(x))))
        return self.classify(self.ln(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))


@structure(free=2)
class FlattenLinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.bn, self.fc1, self.fc2 = conv(3, 8), nn.BatchNorm2d(8), nn.Linear(8 * 16, 10), nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.fc1(F.max_pool2d(self.bn(self.a(x)), 2).flatten(1)).relu())


@structure(free=2)
class FlattenChannelsLast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.fc1, self.fc2 = conv(3, 8), nn.Linear(8 * 64, 10), nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.fc1(self.a(x).permute(0, 2, 3, 1).reshape(x.shape[0], -1)).relu())


@structure(free=2, shape=(1, 6))
class LinearViewTransposed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 8 * 4)
        self.up, self.out = nn.ConvTranspose2d(8, 6, 2, 2), conv(6, 3)

    def forward(self, z: Tensor) -> Tensor:
        return self.out(self.up(self.fc(z).view(z.shape[0], -1, 2, 2)).relu())


@structure(free=1)
class CalledTwice(Net):
    def __init__(self) -> None:
        super().__init__(8)
        self.a, self.b = conv(3, 8), conv(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.b(self.b(self.a(x)).relu()))


@structure(free=2)
class TiedWeights(Net):
    def __init__(self) -> None:
        super().__init__(6)
        self.a, self.b, self.c, self.d = conv(3, 8), conv(3, 8), conv(8, 6), conv(8, 6)
        self.b.weight = self.a.weight
        self.d.weight = self.c.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.c(self.a(x)) + self.d(self.b(x).relu()))


@structure(free=1)
class StandardisedWeight(Net):
    """Functional convolution whose weight is normalised over its inputs on the fly."""

    def __init__(self) -> None:
        super().__init__(6)
        self.a = conv(3, 8)
        self.weight, self.gain = nn.Parameter(torch.randn(6, 8, 3, 3)), nn.Parameter(torch.ones(6, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        flat = F.batch_norm(self.weight.reshape(1, 6, -1), None, None, training=True)
        return self.classify(F.conv2d(self.a(x), flat.reshape_as(self.weight) * self.gain, padding=1))


@structure(free=2, shape=(1, 3, 16))
class OneDimensional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.bn, self.b = nn.Conv1d(3, 8, 3, padding=1), nn.BatchNorm1d(8), nn.Conv1d(8, 6, 3)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.max_pool1d(self.b(self.bn(self.a(x)).relu()), 2).mean(2))


@structure(free=2, shape=(1, 3, 6, 6, 6))
class ThreeDimensional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.bn, self.b = nn.Conv3d(3, 8, 3, padding=1), nn.BatchNorm3d(8), nn.Conv3d(8, 6, 3)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.avg_pool3d(self.b(self.bn(self.a(x)).relu()), 2).mean((2, 3, 4)))


@structure(free=2, shape=(1, 12, 6))
class TokenMixer(nn.Module):
    """MLP-Mixer: linear layers over tokens and over channels; the token count is fixed."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.tokens1, self.tokens2 = nn.LayerNorm(6), nn.Linear(12, 9), nn.Linear(9, 12)
        self.fc1, self.fc2 = nn.Linear(6, 10), nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.tokens2(self.tokens1(self.norm(x).transpose(1, 2)).relu()).transpose(1, 2)
        return self.fc2(self.fc1(x).relu()).mean(1)


@structure(free=1, shape=(1, 5, 12), reason="trial cut fails")
class SizesFromElsewhere(nn.Module):
    """Class-attention style: the head size is computed from the input and used on the queries."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.qkv, self.proj = nn.Linear(12, 8), nn.Linear(8, 24), nn.Linear(8, 8)
        self.fc, self.head = nn.Linear(8, 10), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        n, t, c = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, 2, c // 2).permute(2, 0, 3, 1, 4).unbind(0)
        y = ((q @ k.transpose(-2, -1)).softmax(-1) @ v).transpose(1, 2).reshape(n, t, 8)
        return self.head(self.fc(x + self.proj(y)).relu()).mean(1)


@structure(free=2, shape=(1, 5, 6))
class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(6, 8, batch_first=True), nn.Linear(8, 3)
        self.embed = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.gru(self.embed(x))[0][:, -1])


@structure(1, shape=(2, 5, 6))
class StateOfAStoredSize(nn.Module):
    """Zeros to start from, as tutorials write them: the attribute is mended."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden_size = 8
        self.lstm, self.head = nn.LSTM(6, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        start = x.new_zeros(1, len(x), self.hidden_size)
        memory = torch.zeros(1, x.size(0), self.hidden_size).to(x.device)
        return self.head(self.lstm(x, (start, memory.to(x.dtype)))[0][:, -1])


@structure(0, shape=(2, 5, 6), reason="its size seems to be fixed in the code at layers.py")
class StateOfAWrittenSize(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), 8)
        for step in x.unbind(1):
            state = self.cell(step, state)
        return self.head(state)
