"""Kernels that are shared: for each input channel a few kernels, and for each output the number of its own.

Li et al. 2019, "Exploiting Kernel Sparsity and Entropy for Interpretable CNN Compression", arXiv:1812.04368: an input
channel's kernel sparsity and entropy make one indicator v in [0, 1] (`nasprune.calibration.kernel_entropy`). A channel
of N kernels then keeps none where floor(v G) = 0, all where ceil(v G) = G, and else ceil(N / 2^(G - ceil(v G) + T)),
the centres of a k-means clustering of its kernels; each output stores which one it uses. G is how finely channels are
told apart, T how much is compressed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nasprune.errors import InputError

ROUNDS = 50
FLOAT_BITS = 32


@dataclass(frozen=True)
class SharedKernels:
    """A layer's kernels, shared within each input channel.

    centres: for each input channel (q, k), q from 0 to the number of outputs. indices: (channels, outputs), which
    centre an output uses; -1 where the channel has none.
    """

    centres: tuple[Tensor, ...]
    indices: Tensor

    def expanded(self) -> Tensor:
        """The kernels that the layer then has, (outputs, channels, k); zero where a channel has no centre."""
        k = max((own.shape[1] for own in self.centres), default=1)
        rows = []
        for own, index in zip(self.centres, self.indices, strict=True):
            rows.append(own[index] if len(own) else own.new_zeros(len(index), k))
        return torch.stack(rows, dim=1)

    @property
    def bits(self) -> int:
        """What centres, as single-precision numbers, and indices take together."""
        numbers = sum(own.numel() for own in self.centres)
        steps = [math.ceil(math.log2(len(own))) if len(own) > 1 else 0 for own in self.centres]
        return FLOAT_BITS * numbers + sum(steps) * self.indices.shape[1]


def centre_counts(indicator: Tensor, outputs: int, fineness: int, compression: int) -> list[int]:
    """How many centres each channel gets.

    Args:
        indicator: (channels,), in [0, 1]. outputs: kernels of a channel. fineness: the paper's G, at least 1.
        compression: the paper's T, at least 0.

    Raises:
        InputError: a number is out of range.
    """
    if fineness < 1 or compression < 0:
        raise InputError(f"`fineness` must be at least 1 and `compression` at least 0, got {fineness}, {compression}")
    if not bool(((indicator >= 0) & (indicator <= 1)).all()):
        raise InputError("the indicator of a channel must be in [0, 1]; give what kernel_indicator gives")
    found = []
    for value in indicator.tolist():
        if math.floor(value * fineness) == 0:
            found.append(0)
        elif math.ceil(value * fineness) == fineness:
            found.append(outputs)
        else:
            found.append(math.ceil(outputs / 2 ** (fineness - math.ceil(value * fineness) + compression)))
    return found


def shared_kernels(kernels: Tensor, counts: list[int], *, seed: int = 0) -> SharedKernels:
    """The kernels of each input channel clustered to its number of centres.

    Args:
        kernels: (outputs, channels, k). counts: for each channel, from 0 to the number of outputs. seed: of the start.
    """
    generator = torch.Generator().manual_seed(seed)
    centres, indices = [], []
    for channel, count in enumerate(counts):
        own = kernels[:, channel]
        if count == 0:
            centres.append(own[:0])
            indices.append(torch.full((len(own),), -1, device="cpu"))
        elif count >= len(own):
            centres.append(own.clone())
            indices.append(torch.arange(len(own), device="cpu"))
        else:
            middle, index = _clustered(own, count, generator)
            centres.append(middle)
            indices.append(index)
    return SharedKernels(tuple(centres), torch.stack(indices))


def _clustered(points: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """K-means (Lloyd), started as k-means++ does: centres (count, k), and the nearest one of each point."""
    first = int(torch.randint(len(points), (1,), generator=generator, device="cpu"))
    chosen = [first]
    for _ in range(count - 1):
        near = torch.cdist(points, points[chosen]).amin(1).square()
        weights = near if bool(near.sum() > 0) else torch.ones_like(near)
        chosen.append(int(torch.multinomial(weights, 1, generator=generator)))
    centres = points[chosen].clone()
    index = torch.cdist(points, centres).argmin(1)
    for _ in range(ROUNDS):
        for number in range(count):
            if bool((index == number).any()):
                centres[number] = points[index == number].mean(0)
        again = torch.cdist(points, centres).argmin(1)
        if torch.equal(again, index):
            break
        index = again
    return centres, index
