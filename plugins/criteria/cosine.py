"""Redundancy by cosine similarity: after Ayinde and Zurada 2018, arXiv:1802.07653.

Of the two remaining filters with the greatest cosine similarity, the one with the smaller norm goes; and so on. The
paper clusters filters whose similarity is above a threshold and keeps one of each cluster. Departure: greedy and
without a threshold, so that one score serves every kept count.
"""

import torch

from nasprune import CoupledGroup, Criterion, ScoreContext, removal_scores


class Cosine(Criterion):
    """One minus the similarity to the nearest remaining filter at removal, summed over all removals before."""

    def score(self, group: CoupledGroup, context: ScoreContext) -> torch.Tensor:
        return context.combine((_scores(rows.double()) for rows in context.rows(group)), group)


def _scores(rows: torch.Tensor) -> torch.Tensor:
    """(width, k) -> (width,)."""
    norms = rows.norm(dim=1)
    unit = rows / norms.clamp(min=1e-300)[:, None]
    similar = unit @ unit.T
    similar.fill_diagonal_(-torch.inf)
    best = similar.max(dim=1)
    value, nearest = best.values, best.indices
    order, damage = [], []
    for _ in range(len(rows) - 1):
        one = int(value.argmax())
        other = int(nearest[one])
        damage.append(1 - float(value[one]))
        gone = one if (float(norms[one]), -one) < (float(norms[other]), -other) else other
        order.append(gone)
        similar[:, gone] = -torch.inf
        value[gone] = -torch.inf
        stale = torch.nonzero((nearest == gone) & torch.isfinite(value)).flatten()
        value[stale], nearest[stale] = similar[stale].max(dim=1)
    last = ({*range(len(rows))} - {*order}).pop()
    return removal_scores([*order, last], [*damage, 1.0])
