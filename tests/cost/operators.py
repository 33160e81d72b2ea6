"""Small networks around one operator each, with their multiply-adds by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log2
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional


class Calls(nn.Module):
    """A function of the inputs and of modules or tensors kept by name."""

    def __init__(self, function: Callable[..., Any], **parts: nn.Module | Tensor) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, nn.Parameter(part) if isinstance(part, Tensor) else part)

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(self, *inputs)


@dataclass(frozen=True)
class Operator:
    """flops: by hand. seen_by_torch: whether torch's own counter knows the operator, at twice as many."""

    name: str
    make: Callable[[], nn.Module]
    inputs: tuple[Tensor, ...]
    flops: int
    seen_by_torch: bool = True


class Covariance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        unused = x.bmm(x.transpose(1, 2))  # noqa: F841
        return x.bmm(x.transpose(1, 2)) / x.shape[2]


class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return Covariance.apply(x) @ Covariance.apply(x)


def call(function: Callable[..., Any]) -> Callable[[], nn.Module]:
    """A network that is one function of its inputs."""
    return lambda: Calls(lambda _, *inputs: function(*inputs))


def recurrent(kind: type[nn.RNNBase], **options: Any) -> Callable[[], nn.Module]:
    return lambda: kind(8, 6, **options)


def attention(**options: bool) -> Callable[[], nn.Module]:
    return lambda: Calls(
        lambda self, x: self.attention(x, x, x, **options)[0],
        attention=nn.MultiheadAttention(8, 2, batch_first=True),
    )


SEQUENCE = torch.randn(2, 5, 8)
ROWS, ONE, VECTOR = torch.randn(5, 8), torch.randn(1, 5, 8), torch.randn(8)
IMAGE = torch.randn(1, 4, 8, 8)
HEADS = torch.randn(2, 4, 5, 8)
ATTENTION = 4 * 2 * 5 * 8 * 8 + 2 * 2 * 5 * 5 * 8  # four projections; scores and mixtures of both heads
FEED_FORWARD = 2 * 2 * 5 * 8 * 16 + 2 * 5 * 2 * 5 * 8  # and two layer norms

OPERATORS = [
    Operator("mm", call(lambda x: x @ x.t()), (ROWS,), 5 * 8 * 5),
    Operator(
        "matmul of matrices and a vector", call(lambda x, v: x @ v), (SEQUENCE, VECTOR), 2 * 5 * 8, seen_by_torch=False
    ),
    Operator("matmul of a vector and a matrix", call(lambda v, x: v @ x.t()), (VECTOR, ROWS), 5 * 8),
    Operator("matmul of one matrix and many", call(lambda a, x: a.t() @ x), (ROWS, SEQUENCE), 2 * 8 * 5 * 8),
    Operator("matmul that broadcasts", call(lambda x: x[:, None] @ x.mT[None]), (SEQUENCE,), 4 * 5 * 8 * 5),
    Operator("baddbmm", call(lambda x: torch.baddbmm(torch.zeros(2, 5, 5), x, x.mT)), (SEQUENCE,), 2 * 5 * 8 * 5),
    Operator(
        "in place",
        call(lambda x: torch.zeros(2, 5, 5).baddbmm_(x, x.mT)),
        (SEQUENCE,),
        2 * 5 * 8 * 5,
        seen_by_torch=False,
    ),
    Operator(
        "addbmm",
        call(lambda x: torch.addbmm(torch.zeros(5, 5), x, x.mT)),
        (SEQUENCE,),
        2 * 5 * 8 * 5,
        seen_by_torch=False,
    ),
    Operator("mv", call(lambda x, v: x.mv(v)), (ROWS, VECTOR), 5 * 8, seen_by_torch=False),
    Operator("addmv", call(lambda x, v: torch.addmv(x[:, 0], x, v)), (ROWS, VECTOR), 5 * 8, seen_by_torch=False),
    Operator("dot", call(lambda v: v.dot(v)), (VECTOR,), 8, seen_by_torch=False),
    Operator("inner", call(torch.inner), (SEQUENCE, ROWS), 2 * 5 * 8 * 5),
    Operator("outer", call(torch.outer), (VECTOR, VECTOR), 0),
    Operator("tensordot", call(lambda x, y: torch.tensordot(x, y, dims=([2], [1]))), (SEQUENCE, ROWS), 2 * 5 * 8 * 5),
    Operator("cdist", call(torch.cdist), (SEQUENCE, SEQUENCE), 2 * 5 * 5 * 8, seen_by_torch=False),
    Operator(
        "bilinear",
        lambda: Calls(lambda self, x: self.layer(x, x), layer=nn.Bilinear(8, 8, 3)),
        (ROWS,),
        5 * 3 * 8 * 8 + 5 * 3 * 8,
        seen_by_torch=False,
    ),
    Operator("einsum", call(lambda x: torch.einsum("bnc,bmc->bnm", x, x)), (SEQUENCE,), 2 * 5 * 8 * 5),
    Operator("einsum without an arrow", call(lambda x, y: torch.einsum("bnc,mc", x, y)), (SEQUENCE, ROWS), 2 * 25 * 8),
    Operator("einsum of heads", call(lambda x: torch.einsum("...nc, ...mc -> ...nm", x, x)), (HEADS,), 8 * 25 * 8),
    Operator("einsum of an outer product", call(lambda x: torch.einsum("bn,bm->bnm", x, x)), (ROWS,), 0),
    Operator("einsum that only sums", call(lambda x: torch.einsum("bnc->b", x)), (SEQUENCE,), 0),
    Operator(
        "einsum of three",
        call(lambda x: torch.einsum("bnc,bmc,bnk->bmk", x, x, x)),
        (SEQUENCE,),
        2 * 5 * 8 * 5 + 2 * 5 * 5 * 8,
    ),
    Operator(
        "attention, fused",
        call(functional.scaled_dot_product_attention),
        (HEADS, HEADS[:, :, :3], HEADS[:, :, :3]),
        2 * 8 * 5 * 3 * 8,
        seen_by_torch=False,
    ),
    Operator(
        "attention, grouped queries",
        call(lambda q, k: functional.scaled_dot_product_attention(q, k, k, enable_gqa=True)),
        (HEADS, HEADS[:, :2]),
        2 * 8 * 5 * 5 * 8,
        seen_by_torch=False,
    ),
    Operator("attention, composed", call(lambda q: (q @ q.mT).softmax(-1) @ q), (HEADS,), 2 * 8 * 5 * 5 * 8),
    Operator("attention layer", attention(), (SEQUENCE,), ATTENTION, seen_by_torch=False),
    Operator("attention layer, fused", attention(need_weights=False), (SEQUENCE,), ATTENTION, seen_by_torch=False),
    Operator(
        "encoder layer",
        lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
        (SEQUENCE,),
        ATTENTION + FEED_FORWARD,
        seen_by_torch=False,
    ),
    Operator(
        "encoder with a mask",
        lambda: Calls(
            lambda self, x: self.net(x, src_key_padding_mask=x[..., 0] > 9),
            net=nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1),
        ),
        (SEQUENCE,),
        ATTENTION + FEED_FORWARD,
        seen_by_torch=False,
    ),
    Operator("lstm", recurrent(nn.LSTM), (SEQUENCE,), 10 * 4 * 6 * (8 + 6), seen_by_torch=False),
    Operator(
        "lstm of two layers and directions, projected",
        recurrent(nn.LSTM, num_layers=2, bidirectional=True, proj_size=3, batch_first=True, bias=False),
        (SEQUENCE,),
        10 * 2 * (4 * 6 * (8 + 3) + 3 * 6 + 4 * 6 * (6 + 3) + 3 * 6),
    ),
    Operator("gru", recurrent(nn.GRU, batch_first=True), (SEQUENCE,), 10 * 3 * 6 * (8 + 6)),
    Operator("rnn", recurrent(nn.RNN, nonlinearity="relu"), (ROWS,), 5 * 6 * (8 + 6)),
    Operator("lstm cell", lambda: nn.LSTMCell(8, 6), (ROWS,), 5 * 4 * 6 * (8 + 6)),
    Operator("gru cell", lambda: nn.GRUCell(8, 6), (ROWS,), 5 * 3 * 6 * (8 + 6)),
    Operator("rnn cell", lambda: nn.RNNCell(8, 6), (ROWS,), 5 * 6 * (8 + 6)),
    Operator("convolution, same", lambda: nn.Conv2d(4, 6, 3, padding="same", groups=2), (IMAGE,), 64 * 6 * 2 * 9),
    Operator("convolution, valid", lambda: nn.Conv1d(5, 4, 3, padding="valid"), (SEQUENCE,), 2 * 6 * 5 * 4 * 3),
    Operator("convolution without a batch", lambda: nn.Conv2d(4, 6, 3), (IMAGE[0],), 36 * 4 * 6 * 9),
    Operator("transposed convolution", lambda: nn.ConvTranspose2d(4, 6, 2, stride=2), (IMAGE,), 64 * 4 * 6 * 4),
    Operator(
        "deformable convolution",
        lambda: Calls(
            lambda self, x: torchvision.ops.deform_conv2d(x, self.offset(x), self.weight, padding=1),
            offset=nn.Conv2d(4, 18, 1),
            weight=torch.randn(6, 4, 3, 3),
        ),
        (IMAGE,),
        64 * 4 * 18 + 64 * 4 * 6 * 9,
        seen_by_torch=False,
    ),
    Operator(
        "embedding bag",
        lambda: nn.EmbeddingBag(9, 4),
        (torch.tensor([[1, 2, 3], [3, 4, 5]]),),
        2 * 3 * 4,
        seen_by_torch=False,
    ),
    Operator(
        "fft",
        call(lambda x: torch.fft.fft(x, dim=1).abs()),
        (torch.randn(2, 8, 3),),
        6 * 2 * 8 * 3,
        seen_by_torch=False,
    ),
    Operator(
        "rfft2 and back",
        call(lambda x: torch.fft.irfft2(torch.fft.rfft2(x), s=(8, 8))),
        (IMAGE,),
        2 * 4 * 64 * 6,
        seen_by_torch=False,
    ),
    Operator("rfft, padded", call(lambda x: torch.fft.rfft(x, n=16).abs()), (ROWS,), 5 * 16 * 4, seen_by_torch=False),
    Operator(
        "fftn", call(lambda x: torch.fft.fftn(x).real), (ROWS,), round(2 * 40 * (log2(5) + 3)), seen_by_torch=False
    ),
    Operator(
        "stft",
        call(lambda x: torch.stft(x, 4, 2, center=False, window=torch.ones(4), return_complex=True).abs()),
        (ROWS,),
        5 * 3 * 4 * 2,
        seen_by_torch=False,
    ),
    Operator(
        "a function with its own gradient", call(Covariance.apply), (SEQUENCE,), 2 * 5 * 8 * 5, seen_by_torch=False
    ),
    Operator(
        "such a function inside another",
        call(Twice.apply),
        (SEQUENCE,),
        2 * 2 * 5 * 8 * 5 + 2 * 5 * 5 * 5,
        seen_by_torch=False,
    ),
    Operator(
        "checkpointed",
        lambda: Calls(
            lambda self, x: torch.utils.checkpoint.checkpoint(self.layer, x, use_reentrant=True), layer=nn.Linear(8, 4)
        ),
        (ROWS,),
        5 * 8 * 4,
    ),
    Operator(
        "a dictionary of results",
        lambda: Calls(lambda self, x: {"a": [self.layer(x), None]}, layer=nn.Linear(8, 4)),
        (ROWS,),
        5 * 8 * 4,
    ),
]
