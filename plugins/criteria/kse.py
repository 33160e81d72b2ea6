"""Kernel sparsity and entropy: Li et al. 2019, arXiv:1812.04368.

For each input channel of a layer: sparsity s, the absolute sum of the kernels that read it; entropy e of the density
of these kernels, where a kernel's density is the sum of its distances to its `neighbours` nearest ones; and the
indicator sqrt(s / (1 + alpha e)), s and e scaled to [0, 1] within the layer (the paper's equations 4 to 7). A channel
that is read weakly, or by kernels that are all alike, can go.

Departures: channels with a low indicator are removed, where the paper clusters their kernels, as
`nasprune.share_kernels` does; in layers with more than 128 outputs and spatial kernels the nearest kernels are sought
among 128 evenly spaced ones.
"""

from functools import partial

import torch

from nasprune import CoupledGroup, Criterion, InputError, ScoreContext, kernel_indicator


class KSE(Criterion):
    """The indicator, in [0, 1]. alpha: weight of the entropy, at least 0. neighbours: at least 1."""

    def __init__(self, *, alpha: float = 1.0, neighbours: int = 5) -> None:
        if not alpha >= 0 or not neighbours >= 1:
            raise InputError(f"`alpha` must be at least 0 and `neighbours` at least 1, got {alpha} and {neighbours}")
        self._alpha, self._neighbours = alpha, int(neighbours)

    def score(self, group: CoupledGroup, context: ScoreContext) -> torch.Tensor:
        indicator = partial(kernel_indicator, alpha=self._alpha, neighbours=self._neighbours)
        return context.combine(map(indicator, context.kernels(group)), group)
