"""Optimal brain damage: LeCun, Denker and Solla 1990 (NIPS 2).

At a minimum of the loss, removing weights changes it by half the sum of h w^2 over them, h being the diagonal of the
Hessian (the paper's equation 5). Departures: summed over the weights of a filter, as channels are removed; h is the
diagonal of the empirical Fisher matrix, the mean over images of the squared derivative, instead of the paper's
back-propagated second derivatives. The two agree in expectation where the model's probabilities are right.
"""

from typing import ClassVar

import torch

from nasprune import CoupledGroup, Criterion, ScoreContext


class OBD(Criterion):
    """Half the sum over a filter of its squared weights times their curvature."""

    needs_data: ClassVar[bool] = True

    def score(self, group: CoupledGroup, context: ScoreContext) -> torch.Tensor:
        both = zip(context.rows(group), context.fisher(group), strict=True)
        return context.combine((0.5 * (rows.square() * fisher).double().sum(dim=1) for rows, fisher in both), group)
