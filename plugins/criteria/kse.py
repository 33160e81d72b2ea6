"""Kernel sparsity and entropy: Li et al. 2019, arXiv:1812.04368.

For each input channel of a layer: sparsity s, the absolute sum of the kernels that read it; entropy e of the density
of these kernels, where a kernel's density is the sum of its distances to its `neighbours` nearest ones; and the
indicator sqrt(s / (1 + alpha e)), s and e scaled to [0, 1] within the layer (the paper's equations 4 to 7). A channel
that is read weakly, or by kernels that are all alike, can go.

Departures: channels with a low indicator are removed, where the paper clusters their kernels; in layers with more than
128 outputs and spatial kernels the nearest kernels are sought among 128 evenly spaced ones.
"""

import numpy as np
import torch

from nasprune import CoupledGroup, Criterion, InputError, ScoreContext

CANDIDATES = 128
AT_A_TIME = 2**24  # distances


class KSE(Criterion):
    """The indicator, in [0, 1]. alpha: weight of the entropy, at least 0. neighbours: at least 1."""

    def __init__(self, *, alpha: float = 1.0, neighbours: int = 5) -> None:
        if not alpha >= 0 or not neighbours >= 1:
            raise InputError(f"`alpha` must be at least 0 and `neighbours` at least 1, got {alpha} and {neighbours}")
        self._alpha, self._neighbours = alpha, int(neighbours)

    def score(self, group: CoupledGroup, context: ScoreContext) -> torch.Tensor:
        return context.combine(map(self._indicator, context.kernels(group)), group)

    def _indicator(self, kernels: torch.Tensor) -> torch.Tensor:
        """kernels: (width, out, k) -> (width,)."""
        sparsity = kernels.abs().sum(dim=(1, 2)).double()
        density = _densities(kernels, self._neighbours).double()
        share = density / density.sum(dim=1, keepdim=True).clamp(min=1e-300)
        entropy = -(share * share.clamp(min=1e-300).log2()).sum(dim=1)
        return (_scaled(sparsity) / (1 + self._alpha * _scaled(entropy))).sqrt()


def _scaled(values: torch.Tensor) -> torch.Tensor:
    """To [0, 1]; ones where all are equal."""
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else torch.ones_like(values)


def _densities(kernels: torch.Tensor, neighbours: int) -> torch.Tensor:
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
    for some in torch.arange(width, device="cpu").split(max(AT_A_TIME // (out * others.shape[1]), 1)):
        distances = torch.cdist(kernels[some], others[some])
        for place, own in enumerate(range(0, out, step)):
            distances[:, own, place] = torch.inf
        nearest = np.partition(distances.numpy(), near - 1, axis=2)[:, :, :near]  # several times as fast as topk
        found.append(torch.from_numpy(nearest).sum(dim=2))
    return torch.cat(found)


def _nearest_in_line(values: torch.Tensor, near: int) -> torch.Tensor:
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
