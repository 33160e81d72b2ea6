"""Tiny attention nets, and recurrent ones: heads or their features can go. `free`: groups that must be free."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.graph.reach import TOKENS
from tests.graph.structure import Structure, into

ATTENTION: list[Structure] = []
attends = into(ATTENTION)


class Attends(nn.Module):
    """An embedding of the tokens, one attention layer, a classifier."""

    def __init__(self, width: int = 16, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.size, self.inner = heads, width // heads, width
        self.scale = self.size**-0.5
        self.embed, self.out, self.head = nn.Linear(12, 10), nn.Linear(width, 10), nn.Linear(10, 3)
        self.q, self.k, self.v = (nn.Linear(10, width) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return self.head(x + self.out(self.attend(x))).mean(1)

    def attend(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def parts(self, x: Tensor, heads: int, size: int) -> list[Tensor]:
        return [layer(x).view(*x.shape[:2], heads, size).transpose(1, 2) for layer in (self.q, self.k, self.v)]


@attends(free=3, shape=TOKENS)
class ProductsPerHead(Attends):
    def attend(self, x: Tensor) -> Tensor:
        q, k, v = self.parts(x, self.heads, -1)
        return ((q @ k.transpose(-2, -1) * self.scale).softmax(-1) @ v).transpose(1, 2).flatten(2)


@attends(free=2, shape=TOKENS)
class HeadsLeftOpen(Attends):
    def attend(self, x: Tensor) -> Tensor:
        q, k, v = self.parts(x, -1, self.size)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(*x.shape[:2], -1)


@attends(free=2, shape=TOKENS)
class AllSizesStored(Attends):
    def attend(self, x: Tensor) -> Tensor:
        q, k, v = self.parts(x, self.heads, self.size)
        y = (torch.einsum("bhid,bhjd->bhij", q, k) * self.scale).softmax(-1)
        return torch.einsum("bhij,bhjd->bihd", y, v).reshape(*x.shape[:2], self.inner)


@attends(free=3, shape=TOKENS)
class ScaleOfTheTensor(Attends):
    """The number of heads stands in the code; the scale is computed from the features that there are."""

    def attend(self, x: Tensor) -> Tensor:
        q, k, v = self.parts(x, 4, -1)
        weights = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        return (weights.softmax(-1) @ v).transpose(1, 2).flatten(2)


class _Block(nn.Module):
    """Everything is computed from the width of the input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm, self.fc1, self.fc2 = nn.LayerNorm(width), nn.Linear(width, 20), nn.Linear(20, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        y = ((q * (c // self.heads) ** -0.5) @ k.transpose(-2, -1)).softmax(-1) @ v
        x = x + self.out(y.transpose(1, 2).reshape(b, n, c))
        return x + self.fc2(self.fc1(x).relu())


@attends(free=3, shape=TOKENS)
class WidthsOfTheStream(nn.Module):
    """Two layers whose heads are as wide as the stream: one number for all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(12, 16), nn.Linear(16, 3)
        self.place = nn.Parameter(torch.randn(1, 7, 16))
        self.first = nn.Parameter(torch.randn(1, 1, 16))
        self.a, self.b = _Block(16, 4), _Block(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.first.expand(x.shape[0], -1, -1), self.embed(x)], 1) + self.place
        return self.head(self.b(self.a(x))[:, 0])


@attends(free=2, shape=TOKENS)
class TorchLayer(nn.Module):
    """torch's own encoder layer asserts that its attention is as wide as its input."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(12, 16), nn.Linear(16, 3)
        self.layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.embed(x))).mean(1)


@attends(free=3, shape=TOKENS)
class WholeTransformer(nn.Module):
    """Encoder, decoder and a check of the width that stands in neither."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(12, 8), nn.Linear(8, 3)
        self.layers = nn.Transformer(8, 2, 1, 1, 12, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return self.head(self.layers(x, x)).mean(1)


@attends(free=1, shape=TOKENS)
class ChannelCovariance(nn.Module):
    """Attention between channels: its softmax runs over the features of a head, so that only heads can go."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.embed, self.head = 4, nn.Linear(12, 16), nn.Linear(16, 3)
        self.qkv, self.out, self.heat = nn.Linear(16, 48), nn.Linear(16, 16), nn.Parameter(torch.ones(4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 4, 1).unbind(0)
        y = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * self.heat).softmax(-1) @ v
        return self.head(x + self.out(y.permute(0, 3, 1, 2).reshape(b, n, c))).mean(1)


@attends(free=2, shape=TOKENS)
class SharedKeys(Attends):
    """Two queries' heads share a key's and a value's: heads go in pairs."""

    def __init__(self) -> None:
        super().__init__()
        self.k, self.v = nn.Linear(10, 8), nn.Linear(10, 8)

    def attend(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).view(*x.shape[:2], -1, self.size).transpose(1, 2) for layer in (self.q, self.k, self.v))
        k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


@attends(free=3, shape=TOKENS)
class Looked(nn.Module):
    """Embeddings of tokens and of places."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places, self.norm = nn.Embedding(30, 8), nn.Embedding(12, 8), nn.LayerNorm(8)
        self.fc1, self.fc2, self.fc3 = nn.Linear(8, 12), nn.Linear(12, 8), nn.Linear(8, 6)
        self.bag, self.head = nn.EmbeddingBag(30, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        ids = (x[..., 0] * 3).long() % 30
        x = self.norm(self.words(ids) + self.places(torch.arange(ids.shape[1])))
        return self.head(self.fc3((x + self.fc2(self.fc1(x).relu())).mean(1)) + self.bag(ids))


class _Recurrent(nn.Module):
    def __init__(self, layer: nn.Module, width: int) -> None:
        super().__init__()
        self.embed, self.layer, self.head = nn.Linear(12, 10), layer, nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.embed(x))[0][:, -1])


@attends(free=2, shape=TOKENS)
class DeepLstm(_Recurrent):
    def __init__(self) -> None:
        super().__init__(nn.LSTM(10, 8, num_layers=2, bidirectional=True, batch_first=True), 16)


@attends(free=2, shape=TOKENS)
class OneGru(_Recurrent):
    def __init__(self) -> None:
        super().__init__(nn.GRU(10, 8, batch_first=True), 8)


@attends(free=0, shape=TOKENS, reason="projected states")
class ProjectedLstm(_Recurrent):
    def __init__(self) -> None:
        super().__init__(nn.LSTM(10, 12, proj_size=8, batch_first=True), 8)


@attends(free=2, shape=TOKENS)
class EncoderDecoder(nn.Module):
    """The last state of one layer starts the other."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(12, 10), nn.Linear(8, 3)
        self.reads, self.writes = nn.LSTM(10, 8, batch_first=True), nn.LSTM(10, 8, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return self.head(self.writes(x, self.reads(x)[1])[0][:, -1])


class _Reduced(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.kv, self.proj = nn.Linear(16, 16), nn.Linear(16, 32), nn.Linear(16, 16)
        self.smaller, self.norm = nn.Conv2d(16, 16, 2, 2), nn.LayerNorm(16)

    def forward(self, x: Tensor, h: int, w: int) -> Tensor:
        n, t, c = x.shape
        q = self.q(x).reshape(n, t, 2, c // 2).permute(0, 2, 1, 3)
        y = self.smaller(x.permute(0, 2, 1).reshape(n, c, h, w)).reshape(n, c, -1).permute(0, 2, 1)
        k, v = self.kv(self.norm(y)).reshape(n, -1, 2, 2, c // 2).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, c))


@attends(free=1, shape=(1, 3, 8, 8))
class SpatialReduction(nn.Module):
    """Queries, and keys of a smaller image, take the width of the stream: halves of all of them would hide it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm, self.attend, self.head = (
            nn.Conv2d(3, 16, 1),
            nn.LayerNorm(16),
            _Reduced(),
            nn.Linear(16, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        h, w = x.shape[2:]
        x = x.flatten(2).transpose(1, 2)
        return self.head(x + self.attend(self.norm(x), h, w)).mean(1)
