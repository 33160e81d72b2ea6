"""Optimal brain surgeon on channels: Hassibi and Stork 1993; on layers' inputs Frantar and Alistarh 2022,
arXiv:2208.11580 (exact greedy removal with the inverse Hessian), lifted from weights to channels.

Greedily removes the unit whose loss changes the next layer's output least once the layer's weights on the remaining
units have been refitted. With H the second moments of what the layer reads and W its weights, removing unit j costs
tr(W_j [H^-1]_jj^-1 W_j^T); the refitted weights and the inverse of what remains follow in closed form. A unit's score
is the squared change done up to and with its removal.

Departures: moments are taken about the mean, as the bias (or the batch norm behind) is refitted with the weights;
`damp` times the mean of H's diagonal is added to it. Where several layers read the channel, what its removal costs each
is combined by the option `reduce`, and all of them are refitted.

Wide groups are worked off in batches. From a pool of the cheapest units, units are removed one by one at their exact
costs, as long as they are cheaper than all units outside of the pool were when it was chosen; then everything else is
updated for all of them at once. As in lazy greedy search (Minoux 1978), the order is that of removing single units
wherever a removal makes no other unit cheaper; in groups of more than 64 units it is not quite, as at least every 32nd
of all units goes at a time. A group that fits into one pool is worked off unit by unit anyhow. Units that no layer
reads, as where a convolution is called as a function, are scored by the squared norms of their own weights.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from nasprune import ConsumerGram, CoupledGroup, Criterion, InputError, ScoreContext, removal_scores

EXACT = 1024  # features up to which float64 is used
POOL = 576  # features, and
POOL_UNITS = 128  # units, in a pool at most
STEPS = 32  # in which all units of a group go, at most


class OBS(Criterion):
    """Squared change of the next layers' outputs after refitting, up to and with the unit's removal. damp: above 0."""

    needs_data: ClassVar[bool] = True

    def __init__(self, *, damp: float = 0.01) -> None:
        if not damp > 0:
            raise InputError(f"`damp` must be above 0, got {damp}")
        self._damp = damp

    def score(self, group: CoupledGroup, context: ScoreContext) -> Tensor:
        layers = [_Remaining.of(gram, self._damp) for gram in context.grams(group)]
        if not layers:
            return context.combine((rows.square().sum(dim=1) for rows in context.rows(group)), group)

        def combined(some: Sequence[_Remaining]) -> Tensor:
            return context.combine((layer.costs() for layer in some), group)

        size = max(1, min(POOL_UNITS, POOL // max(layer.k for layer in layers)))
        least = max(1, min(size, group.width // STEPS))
        order: list[int] = []
        damage: list[float] = []
        while len(order) < group.width:
            if group.width - len(order) <= size:
                pool, fence = torch.arange(group.width, device="cpu"), torch.inf
                gone, costs = _one_by_one(layers, combined, fence, 1)
            else:
                found = combined(layers)
                cheapest = found.argsort(stable=True)
                pool, fence = cheapest[:size].sort().values, float(found[cheapest[size]])
                gone, costs = _one_by_one([layer.only(pool) for layer in layers], combined, fence, least)
                for layer in layers:
                    layer.remove(pool[gone])
            order += pool[gone].tolist()
            damage += costs
        return removal_scores(order, damage)


def _one_by_one(
    layers: Sequence["_Remaining"], combined: Callable[[Sequence["_Remaining"]], Tensor], fence: float, least: int
) -> tuple[list[int], list[float]]:
    """Removes the cheapest unit, `least` times, then while it costs no more than `fence`: which, and their costs."""
    gone: list[int] = []
    paid: list[float] = []
    for _ in range(layers[0].left):
        costs = combined(layers)
        unit = int(costs.argmin())
        if len(gone) >= least and float(costs[unit]) > fence:
            break
        gone.append(unit)
        paid.append(float(costs[unit]))
        for layer in layers:
            layer.remove(torch.tensor([unit], device="cpu"))
    return gone, paid


class _Remaining:
    """One layer on the units that are left: inverse moments (units * k, units * k) and weights (out, units * k)."""

    def __init__(self, inverse: Tensor, weight: Tensor, k: int) -> None:
        self._inverse, self._weight, self.k = inverse, weight, k
        self._width = len(inverse) // k
        # of each unit among those that are still held, -1 for the others
        self._place = torch.arange(self._width, device="cpu")
        self._left = torch.ones(self._width, dtype=torch.bool, device="cpu")

    @property
    def left(self) -> int:
        return int(self._left.sum())

    @classmethod
    def of(cls, gram: ConsumerGram, damp: float) -> "_Remaining":
        out, width, k = gram.weight.shape
        kind = torch.float64 if width * k <= EXACT else torch.float32
        moments = gram.covariance.to(kind, copy=True)
        moments.diagonal().add_(damp * moments.diagonal().mean().clamp(min=1e-8))
        factor = torch.linalg.cholesky(moments, out=moments)
        return cls(torch.cholesky_inverse(factor), gram.weight.reshape(out, -1).to(kind, copy=True), k)

    def costs(self) -> Tensor:
        """(width,), float64, infinite for units that are gone."""
        k, count = self.k, len(self._inverse) // self.k
        if k == 1:  # many times as fast as products and inverses
            costs = (self._weight.square().sum(dim=0) / self._inverse.diagonal()).double()
        else:
            blocks = self._inverse.reshape(count, k, count, k).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
            if self.left < count:
                gone = torch.ones(count, dtype=torch.bool, device="cpu")
                gone[self._place[self._left]] = False
                blocks = torch.where(gone[:, None, None], torch.eye(k, dtype=blocks.dtype, device="cpu"), blocks)
            weight = self._weight.reshape(-1, count, k).transpose(0, 1)
            costs = (torch.linalg.inv(blocks) * (weight.transpose(1, 2) @ weight)).sum(dim=(1, 2), dtype=torch.float64)
        return torch.where(self._left, costs[self._place], torch.inf)

    def only(self, units: Tensor) -> "_Remaining":
        """Those units, whose costs are still those in the company of the others."""
        features = self._features(units)
        weight = self._weight[:, features]
        if len(weight) > len(features):  # costs depend on the products of the weights only, which its factor shares
            weight = torch.linalg.qr(weight, mode="r").R
        return _Remaining(self._inverse[features][:, features], weight, self.k)

    def remove(self, units: Tensor) -> None:
        """Takes the units away and refits the weights on the others."""
        own = self._features(units)
        rows = self._inverse[own]
        across = torch.linalg.solve(rows[:, own], rows)
        self._weight.addmm_(self._weight[:, own], across, alpha=-1)
        self._inverse.addmm_(rows.T, across, alpha=-1)
        self._left[units] = False
        if 0 < self.left <= 0.8 * len(self._inverse) // self.k:
            stay = self._left.nonzero().flatten()
            features = self._features(stay)
            self._inverse, self._weight = self._inverse[features][:, features], self._weight[:, features]
            self._place = torch.full_like(self._place, -1)
            self._place[stay] = torch.arange(len(stay), device="cpu")

    def _features(self, units: Tensor) -> Tensor:
        return (self._place[units][:, None] * self.k + torch.arange(self.k, device="cpu")).flatten()
