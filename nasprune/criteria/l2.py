"""L2 norm of the weights that produce a channel, as used by He et al. 2018 (soft filter pruning), arXiv:1808.06866.

Departure: where several layers produce the same channel (residual additions), their norms are combined by the option
`reduce`.
"""

from __future__ import annotations

from torch import Tensor

from nasprune.base import Criterion, ScoreContext
from nasprune.graph.model import CoupledGroup


class L2(Criterion):
    """Euclidean norm of each unit's filters."""

    def score(self, group: CoupledGroup, context: ScoreContext) -> Tensor:
        return context.combine((rows.norm(dim=1) for rows in context.rows(group)), group)
