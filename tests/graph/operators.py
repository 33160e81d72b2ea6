"""Nets around one operator each that two convolutions feed: `a` and `b` become one tensor, which a third reads."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from tests.graph.structure import Net, Structure, conv

Joins = Callable[[Tensor, Tensor], Tensor]


class Joined(Net):
    def __init__(self, join: Joins) -> None:
        super().__init__(6)
        self.a, self.b, self.c = conv(3, 8), conv(3, 8), conv(8, 6)
        self.join = join

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.c(self.join(self.a(x), self.b(x))).relu())


def _pixels(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)


def _unpooled(a: Tensor, b: Tensor) -> Tensor:
    values, places = F.max_pool2d(a, 2, return_indices=True)
    return F.max_unpool2d(values, places, 2) + b


FREE: dict[str, Joins] = {
    "maximum": torch.maximum,
    "max of two": lambda a, b: torch.max(a, b) - torch.min(a, b),
    "broadcast tensors": lambda a, b: torch.mul(*torch.broadcast_tensors(a, b.mean((2, 3), keepdim=True))),
    "by torch's tag": lambda a, b: torch.copysign(torch.sinc(a), torch.frac(b)) * (~torch.isnan(b)),
    "pair of results": lambda a, b: torch.frexp(a)[0] + b,
    "complex": lambda a, b: (torch.complex(a, b) * torch.polar(a.abs(), b).conj()).imag + torch.complex(b, a).angle(),
    "complex views": lambda a, b: torch.view_as_real(torch.view_as_complex(torch.stack([a, b], -1)) ** 2).sum(-1),
    "fourier": lambda a, b: torch.fft.irfft2(torch.fft.rfft2(a, norm="ortho"), a.shape[-2:], norm="ortho") + b,
    "shifted spectrum": lambda a, b: torch.fft.ifft2(torch.fft.fftshift(torch.fft.fft2(a), dim=(2, 3))).real + b,
    "unpooled": _unpooled,
    "cdist": lambda a, b: torch.cdist(_pixels(a), _pixels(b)).mean(2).reshape(-1, 1, 8, 8) * a,
    "pairwise distance": lambda a, b: F.pairwise_distance(a.movedim(1, 3), b.movedim(1, 3)).unsqueeze(1) * a,
    "matrix norm": lambda a, b: torch.linalg.norm(a, dim=(1, 2), keepdim=True) * b + a,
    "triangle": lambda a, b: torch.tril(a) + b,
}

STAYS: dict[str, tuple[Joins, str]] = {
    "fourier over channels": (lambda a, b: torch.fft.fft(a, dim=1).real + b, "`fft_fft` at operators.py"),
    "channels as pairs": (
        lambda a, b: (
            torch.view_as_complex(a.movedim(1, 3).unflatten(3, (4, 2)).contiguous()).abs().mean(3).unsqueeze(1) * b + a
        ),
        "`view_as_complex` at operators.py",
    ),
    "counted differences": (
        lambda a, b: torch.cdist(_pixels(a), _pixels(b), p=0.0).mean(2).reshape(-1, 1, 8, 8) * a,
        "`cdist` at operators.py",
    ),
    "inverse": (lambda a, b: torch.linalg.inv(a @ a.mT + torch.eye(8)) + b, "`linalg_inv` at operators.py"),
}


class Deformed(Net):
    """The channels of a deformable convolution follow; those that say where it looks stay."""

    def __init__(self) -> None:
        super().__init__(6)
        self.a, self.offset = conv(3, 8), conv(8, 2 * 2 * 9)
        self.deform = torchvision.ops.DeformConv2d(8, 10, 3, padding=1)
        self.c = conv(10, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).relu()
        return self.classify(self.c(self.deform(x, self.offset(x)).relu()))


class FilteredSpectrum(Net):
    """As global filter networks have it: every channel's spectrum times one of its own."""

    def __init__(self) -> None:
        super().__init__(6)
        self.a, self.c = conv(3, 8), conv(8, 6)
        self.filter = nn.Parameter(torch.randn(8, 8, 5, 2))

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft2(self.a(x), norm="ortho") * torch.view_as_complex(self.filter)
        return self.classify(self.c(torch.fft.irfft2(spectrum, (8, 8), norm="ortho")).relu())


OPERATORS = [
    *(Structure(name, lambda join=join: Joined(join), 2) for name, join in FREE.items()),
    *(Structure(name, lambda join=join: Joined(join), 1, reason=reason) for name, (join, reason) in STAYS.items()),
    Structure("deformable", Deformed, 3),
    Structure("filtered spectrum", FilteredSpectrum, 2),
]
