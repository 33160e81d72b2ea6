"""Batch-norm scales as importance (network slimming): Liu et al. 2017, arXiv:1708.06519.

Departures: no sparsity-inducing training comes before; a group without a batch norm is scored by the L2 norm of its
filters.
"""

import torch

from nasprune import CoupledGroup, Criterion, ScoreContext


class BatchNormScale(Criterion):
    """Absolute scale that batch norm gives the channel."""

    def score(self, group: CoupledGroup, context: ScoreContext) -> torch.Tensor:
        found = list(context.scales(group)) or list(context.rows(group))
        return context.combine((rows.norm(dim=1) for rows in found), group)
