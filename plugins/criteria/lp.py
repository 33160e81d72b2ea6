"""Lp norm of the weights that produce a channel, for any p above 0: Li et al. 2017 (arXiv:1608.08710) have p = 1 and 2.

Small p counts weights rather than their size; `p=inf` takes the largest.
"""

import torch

from nasprune import CoupledGroup, Criterion, InputError, ScoreContext


class Lp(Criterion):
    """(sum |w|^p)^(1/p) over each unit's filter. p: above 0; "inf" for the largest absolute weight."""

    def __init__(self, *, p: float | str = 0.5) -> None:
        try:
            self._p = float(p)
        except ValueError:
            raise InputError(f"`p` must be a number above 0 or inf, got {p!r}") from None
        if not self._p > 0:
            raise InputError(f"`p` must be above 0, got {p}")

    def score(self, group: CoupledGroup, context: ScoreContext) -> torch.Tensor:
        norms = (torch.linalg.vector_norm(rows.double(), self._p, dim=1) for rows in context.rows(group))
        return context.combine(norms, group)
