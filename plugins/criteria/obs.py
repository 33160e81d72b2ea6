"""Optimal brain surgeon on channels: Hassibi and Stork 1993; on layers' inputs Frantar and Alistarh 2022,
arXiv:2208.11580 (exact greedy removal with the inverse Hessian), lifted from weights to channels.

Greedily removes the unit whose loss changes the next layer's output least once the layer's weights on the remaining
units have been refitted. With H the second moments of what the layer reads and W its weights, removing unit j costs
tr(W_j [H^-1]_jj^-1 W_j^T); the refitted weights and the inverse of what remains follow in closed form. A unit's score
is the squared change done up to and with its removal.

Departures: moments are taken about the mean, as the bias (or the batch norm behind) is refitted with the weights;
`damp` times the mean of H's diagonal is added to it. Where several layers read the channel, what its removal costs each
is combined by the option `reduce`, and all of them are refitted.
"""

from typing import ClassVar

import torch

from nasprune import ConsumerGram, CoupledGroup, Criterion, InputError, ScoreContext, removal_scores

EXACT = 1024  # features up to which float64 is used


class OBS(Criterion):
    """Squared change of the next layers' outputs after refitting, up to and with the unit's removal. damp: above 0."""

    needs_data: ClassVar[bool] = True

    def __init__(self, *, damp: float = 0.01) -> None:
        if not damp > 0:
            raise InputError(f"`damp` must be above 0, got {damp}")
        self._damp = damp

    def score(self, group: CoupledGroup, context: ScoreContext) -> torch.Tensor:
        layers = [_Remaining(gram, self._damp) for gram in context.grams(group)]
        if not layers:
            return torch.zeros(group.width)
        order: list[int] = []
        damage: list[float] = []
        for _ in range(group.width):
            cost = context.combine((layer.costs() for layer in layers), group)
            unit = int(cost.argmin())
            order.append(unit)
            damage.append(float(cost[unit]))
            for layer in layers:
                layer.remove(unit)
        return removal_scores(order, damage)


class _Remaining:
    """One layer on the units that are left: inverse moments (units * k, units * k) and weights (out, units * k)."""

    def __init__(self, gram: ConsumerGram, damp: float) -> None:
        out, self._width, self._k = gram.weight.shape
        kind = torch.float64 if self._width * self._k <= EXACT else torch.float32
        moments = gram.covariance.to(kind, copy=True)
        moments.diagonal().add_(damp * moments.diagonal().mean().clamp(min=1e-8))
        self._inverse = torch.cholesky_inverse(torch.linalg.cholesky(moments))
        self._weight = gram.weight.reshape(out, -1).to(kind)
        self._units = torch.arange(self._width)  # which unit each block of k features is
        self._left = torch.ones(self._width, dtype=torch.bool)

    def costs(self) -> torch.Tensor:
        """(width,), infinite for those that are gone."""
        count, k = len(self._units), self._k
        blocks = self._inverse.reshape(count, k, count, k).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
        gone = ~self._left[self._units]
        blocks = torch.where(gone[:, None, None], torch.eye(k, dtype=blocks.dtype), blocks)
        if k == 1:
            squares = self._weight.square().sum(dim=0).reshape(count, 1, 1)  # many times as fast as the product
        else:
            weight = self._weight.reshape(-1, count, k).transpose(0, 1)
            squares = weight.transpose(1, 2) @ weight
        costs = (torch.linalg.inv(blocks) * squares).sum(dim=(1, 2), dtype=torch.float64)
        found = torch.full((self._width,), torch.inf, dtype=torch.float64)
        found[self._units] = torch.where(gone, torch.inf, costs)
        return found

    def remove(self, unit: int) -> None:
        place = int((self._units == unit).nonzero()) * self._k
        own = slice(place, place + self._k)
        across = torch.linalg.solve(self._inverse[own, own], self._inverse[own])
        self._weight -= self._weight[:, own] @ across
        self._inverse.addmm_(self._inverse[:, own].clone(), across, alpha=-1)
        self._left[unit] = False
        if int(self._left.sum()) <= 0.8 * len(self._units):
            stay = self._left[self._units]
            features = stay.repeat_interleave(self._k).nonzero().flatten()
            self._inverse = self._inverse[features][:, features]
            self._weight = self._weight[:, features]
            self._units = self._units[stay]
