"""L1 norm of the weights that produce a channel: Li et al. 2017, arXiv:1608.08710.

Departure: where several layers produce the same channel (residual additions), their norms are combined by the option
`reduce`; the paper takes the norm of the shortcut's projection alone.
"""

from __future__ import annotations

from torch import Tensor

from nasprune.base import Criterion, ScoreContext
from nasprune.graph.model import CoupledGroup


class L1(Criterion):
    """Sum of absolute weights of each unit's filters."""

    def score(self, group: CoupledGroup, context: ScoreContext) -> Tensor:
        return context.combine((rows.abs().sum(dim=1) for rows in context.rows(group)), group)
