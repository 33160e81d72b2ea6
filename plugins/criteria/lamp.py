"""Layer-adaptive magnitude: Lee et al. 2021, arXiv:2010.07611.

The paper scores a weight by its square over the sum of the squares of all weights of its layer that are at least as
large, which makes scores of different layers comparable: the largest one has 1. Departure: lifted from weights to
filters, whose squared norms take the place of the squares.
"""

import torch

from nasprune import CoupledGroup, Criterion, ScoreContext


class Lamp(Criterion):
    """Squared norm of a filter over that of all filters that are not smaller, in [0, 1]."""

    def score(self, group: CoupledGroup, context: ScoreContext) -> torch.Tensor:
        return context.combine((_lamp(rows.double().square().sum(dim=1)) for rows in context.rows(group)), group)


def _lamp(squares: torch.Tensor) -> torch.Tensor:
    """(width,) -> (width,). Of equal filters the one with the lower index counts as larger."""
    falling = squares.sort(descending=True, stable=True)
    scores = torch.zeros_like(squares)
    scores[falling.indices] = falling.values / falling.values.cumsum(dim=0).clamp(min=1e-300)
    return scores
