"""The indicator of kernel sparsity and entropy: Li et al. 2019, arXiv:1812.04368, equations 4 to 7.

For each input channel of a layer: sparsity s, the absolute sum of the kernels that read it; entropy e of the density
of these kernels, where a kernel's density is the sum of its distances to its nearest ones; and sqrt(s / (1 + alpha e)),
s and e scaled to [0, 1] within the layer. Departure: in layers with more than 128 outputs and spatial kernels the
nearest kernels are sought among 128 evenly spaced ones.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

CANDIDATES = 128
AT_A_TIME = 2**24  # distances
NEIGHBOURS = 5


def kernel_indicator(kernels: Tensor, *, alpha: float = 1.0, neighbours: int = NEIGHBOURS) -> Tensor:
    """The indicator of each input channel, in [0, 1]; high where its kernels matter. (channels,), float64.

    Args:
        kernels: (channels, outputs, k). alpha: weight of the entropy. neighbours: nearest kernels that count.
    """
    sparsity = kernels.abs().sum(dim=(1, 2)).double()
    density = _densities(kernels, neighbours).double()
    share = density / density.sum(dim=1, keepdim=True).clamp(min=1e-300)
    entropy = -(share * share.clamp(min=1e-300).log2()).sum(dim=1)
    return (_scaled(sparsity) / (1 + alpha * _scaled(entropy))).sqrt()


def _scaled(values: Tensor) -> Tensor:
    """To [0, 1]; ones where all are equal."""
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else torch.ones_like(values)


def _densities(kernels: Tensor, neighbours: int) -> Tensor:
    """The sums of each kernel's distances to the nearest others, in any order; (width, out, k) -> (width, out)."""
    width, out, k = kernels.shape
    near = min(neighbours, out - 1)
    if near < 1:
        return torch.ones(width, out, device="cpu")
    if k == 1:
        return _nearest_in_line(kernels[:, :, 0], near)
    step = -(-out // CANDIDATES)
    others = kernels[:, ::step]
    near = min(near, others.shape[1] - 1)
    found = []
    for some in torch.split(torch.arange(width, device="cpu"), max(AT_A_TIME // (out * others.shape[1]), 1)):
        distances = torch.cdist(kernels[some], others[some])
        for place, own in enumerate(range(0, out, step)):
            distances[:, own, place] = torch.inf
        nearest = np.partition(distances.numpy(), near - 1, axis=2)[:, :, :near]  # several times as fast as topk
        found.append(torch.from_numpy(nearest).sum(dim=2))
    return torch.cat(found)


def _nearest_in_line(values: Tensor, near: int) -> Tensor:
    """The same for kernels of one weight, in rising order of them: the nearest are the best stretch around each."""
    line = torch.from_numpy(np.sort(values.numpy(), axis=1))
    sides = []
    for sign in (1, -1):  # sums of the distances to the next 0, 1, ..., `near` on this side, infinite past the end
        sums = [torch.zeros_like(values)]
        for shift in range(1, near + 1):
            gap = (line[:, shift:] - line[:, :-shift]).abs()
            wall = gap.new_full((gap.shape[0], shift), torch.inf)
            sums.append(sums[-1] + torch.cat([gap, wall] if sign > 0 else [wall, gap], dim=1))
        sides.append(sums)
    best = torch.full_like(values, torch.inf)
    for left in range(near + 1):
        best = torch.minimum(best, sides[0][left] + sides[1][near - left])
    return best
