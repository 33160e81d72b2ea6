"""L2 norm of the weights that produce a channel, as used by He et al. 2018 (soft filter pruning), arXiv:1808.06866.

Departure: where several layers produce the same channel (residual additions), their norms are combined by `reduce`.
"""

from __future__ import annotations

from torch import Tensor

from nasprune.base import Criterion, ScoreContext
from nasprune.criteria.reduction import Reduction, check_reduction, reduced
from nasprune.graph.model import CoupledGroup


class L2(Criterion):
    """Euclidean norm of each unit's filters. reduce: how coupled producers are combined."""

    def __init__(self, *, reduce: Reduction = "sum") -> None:
        check_reduction(reduce)
        self._reduce: Reduction = reduce

    def score(self, group: CoupledGroup, context: ScoreContext) -> Tensor:
        return reduced((rows.norm(dim=1) for rows in context.rows(group)), self._reduce, group.width)
