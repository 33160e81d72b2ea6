"""Average percentage of zeros: Hu et al. 2016, arXiv:1607.03250.

A channel that is zero for most inputs and positions is the first to go. Measured where the channels are read, after
activation and normalisation. Departures: the score is the share of non-zeros (one minus the paper's), so that higher
means keep; for activations without exact zeros, such as SiLU, `threshold` says what counts as zero.
"""

from typing import ClassVar

import torch

from nasprune import CoupledGroup, Criterion, InputError, ScoreContext


class APoZ(Criterion):
    """Share of positions in [0, 1] at which the channel is above `threshold` in absolute value."""

    needs_data: ClassVar[bool] = True

    def __init__(self, *, threshold: float = 0.0) -> None:
        if not threshold >= 0:
            raise InputError(f"`threshold` must be at least 0, got {threshold}")
        self._threshold = threshold

    def score(self, group: CoupledGroup, context: ScoreContext) -> torch.Tensor:
        shares = ((read.abs() > self._threshold).double().mean(dim=0) for read in context.activations(group))
        return context.combine(shares, group)
