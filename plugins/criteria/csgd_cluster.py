"""Clustered filters, of which one is kept: Ding et al. 2019 (centripetal SGD), arXiv:1904.03837.

Filters of a layer are clustered, filters of a cluster are made equal by training, and one of each is kept. Here the
clusters alone are used, as a score: for every k, the k best units are one of each of k clusters.

Departures: no centripetal training comes before; Ward's hierarchy takes the place of k-means, as it lowers the same
objective (the squared distances to the centres) and its clusters for k - 1 are those for k with two joined, so that one
score serves every k. Where two clusters join, the unit that is nearer to their common centre stays.
"""

import numpy as np
import torch
from scipy.cluster.hierarchy import linkage

from nasprune import CoupledGroup, Criterion, ScoreContext, removal_scores


class CSGDCluster(Criterion):
    """How far apart the clusters are whose joining costs the unit its place, summed over all joins before."""

    def score(self, group: CoupledGroup, context: ScoreContext) -> torch.Tensor:
        if group.width == 1:
            return torch.ones(1, device="cpu")
        return context.combine((_scores(rows.double()) for rows in context.rows(group)), group)


def _scores(rows: torch.Tensor) -> torch.Tensor:
    """(width, k) -> (width,)."""
    width = len(rows)
    squares = rows.square().sum(dim=1)
    distances = (squares[:, None] + squares[None, :] - 2 * rows @ rows.T).clamp(min=0).sqrt().numpy()
    joins = linkage(distances[np.triu_indices(width, 1)], method="ward")
    centre, size = list(rows), [1] * width
    standing = list(range(width))
    order = []
    for left, right in joins[:, :2].astype(int):
        size.append(size[left] + size[right])
        centre.append((centre[left] * size[left] + centre[right] * size[right]) / size[-1])
        one, other = sorted((standing[left], standing[right]))
        far = (rows[one] - centre[-1]).norm() > (rows[other] - centre[-1]).norm()
        standing.append(other if far else one)
        order.append(one if far else other)
    return removal_scores([*order, standing[-1]], [*joins[:, 2], joins[-1, 2]])
