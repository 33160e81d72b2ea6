"""Filter pruning via geometric median: He et al. 2019, arXiv:1811.00250.

A filter near the geometric median of its layer can be represented by the others, so it is the first to go. As in the
paper's equation 8, a filter's score is the sum of its Euclidean distances to all filters of the layer.
"""

import torch

from nasprune import CoupledGroup, Criterion, ScoreContext


class FPGM(Criterion):
    """Sum of distances to the other filters: far from all others = keep."""

    def score(self, group: CoupledGroup, context: ScoreContext) -> torch.Tensor:
        return context.combine((_distances(rows.double()).sum(dim=1) for rows in context.rows(group)), group)


def _distances(rows: torch.Tensor) -> torch.Tensor:
    """Pairwise Euclidean distances, (width, k) -> (width, width), by one matrix product."""
    squares = rows.square().sum(dim=1)
    return (squares[:, None] + squares[None, :] - 2 * rows @ rows.T).clamp(min=0).sqrt()
