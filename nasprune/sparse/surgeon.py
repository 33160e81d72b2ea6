"""The Optimal Brain Surgeon, weight by weight: in which order a layer's weights go, and what each costs.

Hassibi, Stork 1993: of a quadratic loss with Hessian H, removing weight q costs w_q^2 / (2 [H^-1]_qq), and the others
move by -w_q / [H^-1]_qq * H^-1 e_q. For one layer H is the same for every output (Dong, Chen, Pan 2017,
arXiv:1705.07565), so each output is a problem of its own, which Frantar, Alistarh 2022, arXiv:2208.11580, solve exactly
by taking the removed row and column out of H^-1; units of several weights go together, and N:M patterns spare what they
must keep. Losses that do not rise are raised to the highest before, as when the cheapest next weight of all outputs is
taken. Departures: several weights of an output may go at a time, exactly for the set that goes; and where the inverses
of all outputs would be too much work, weights go in stages, by w_q^2 / [H^-1]_qq with the whole inverse and weights
that are refitted after each (SparseGPT, Frantar, Alistarh 2023, arXiv:2301.00774, lets only later columns make good
what earlier ones lose; here all do).
"""

from __future__ import annotations

import torch
from torch import Tensor

from nasprune.sparse.patterns import Pattern
from nasprune.sparse.restricted import restricted

MEMORY = 2**26
"""Numbers in the inverses that are held at a time."""
WORK = 10**11
"""Multiply-adds that the inverses of all outputs may take; above, weights go in stages."""
TOGETHER = 64
"""Into how many steps the removal of all weights of an output is cut."""
SHRINK = 0.8
QUICK = 8
"""Steps of gradients between stages, where outputs are not solved exactly."""
STAGES = tuple(0.66**stage for stage in range(1, 12))


def losses(weights: Tensor, hessian: Tensor, pattern: Pattern, kernel: int, *, exact: bool = False) -> Tensor:
    """What each weight costs at its turn, in the order of the surgeon, (groups, F, O); more is removed later.

    Args:
        weights, hessian, pattern, kernel: as of a `SparseLayer`. exact: one unit of an output at a time, whatever the
            work.
    """
    groups, features, outputs = weights.shape
    units = pattern.units(features, kernel)
    if not exact and groups * outputs * features**2 * TOGETHER > WORK:
        return _in_stages(weights, hessian, pattern, kernel)
    together = 1 if exact else max(1, len(units) // TOGETHER)
    found = torch.empty_like(weights)
    for group, own in enumerate(weights):
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian[group]))
        for rows in torch.split(torch.arange(outputs, device="cpu"), max(1, MEMORY // features**2)):
            worth = _Rows(own[:, rows].T, inverse, units, pattern).removed(together)
            found[group, units.reshape(-1)[:, None], rows] = worth.T.repeat_interleave(units.shape[1], 0)
    return found


class _Rows:
    """Some outputs of one group, each with its own inverse on the units that it has left."""

    def __init__(self, weights: Tensor, inverse: Tensor, units: Tensor, pattern: Pattern) -> None:
        """weights: (R, F). inverse: (F, F). units: (U, size)."""
        self._size, self._pattern = units.shape[1], pattern
        flat = units.reshape(-1)
        self._weights = weights[:, flat].clone()  # features in the order of units
        self._inverse = inverse[flat][:, flat].expand(len(weights), -1, -1).clone()
        self._units = torch.arange(len(units), device="cpu").expand(len(weights), -1).clone()  # which ones are held
        self._left = torch.ones(len(weights), len(units), dtype=torch.bool, device="cpu")  # of those, which still stay
        self._worth = weights.new_full((len(weights), len(units)), torch.inf)
        self._highest = weights.new_zeros(len(weights), 1)
        self._numbers = torch.arange(len(weights), device="cpu")[:, None]
        self._gone = weights.new_zeros(len(weights), len(units) // pattern.m) if pattern.m else None

    def removed(self, together: int) -> Tensor:
        """Removes all that may go, `together` units of each output at a time; (R, U), what each cost at its turn."""
        units = self._worth.shape[1]
        go = units - units // self._pattern.m * self._pattern.n if self._pattern.m else units
        while go:
            count = min(together if self._gone is None else 1, go)
            self._remove(self._costs().topk(count, dim=1, largest=False).indices)
            go -= count
            if go and int(self._left[0].sum()) <= SHRINK * self._left.shape[1]:
                self._shrink()
        last = self._worth.masked_fill(self._worth.isinf(), 0).amax()
        return self._worth.masked_fill(self._worth.isinf(), 2 * float(last) + 1e-12)

    def _costs(self) -> Tensor:
        """(R, held units), infinite for those that are gone or must stay."""
        rows, held = self._left.shape
        if self._size == 1:
            costs = self._weights.square() / (2 * self._inverse.diagonal(dim1=1, dim2=2))
        else:
            k = self._size
            blocks = self._inverse.reshape(rows, held, k, held, k).diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)
            blocks = torch.where(self._left[:, :, None, None], blocks, torch.eye(k, dtype=blocks.dtype, device="cpu"))
            own = self._weights.reshape(rows, held, k, 1)
            costs = (own * torch.linalg.solve(blocks, own)).sum((2, 3)) / 2
        may = self._left
        if self._gone is not None:
            full = self._gone == self._pattern.m - self._pattern.n
            may = may & ~full.gather(1, self._units // self._pattern.m)
        return torch.where(may, costs, torch.inf)

    def _remove(self, places: Tensor) -> None:
        """places: (R, count), among the held units, the cheapest first."""
        rows, k = len(places), self._size
        own = (places[:, :, None] * k + torch.arange(k, device="cpu")).reshape(rows, -1)
        across = self._inverse[self._numbers, own]
        factor = torch.linalg.cholesky(across.gather(2, own[:, None, :].expand(-1, own.shape[1], -1)))
        lost = torch.linalg.solve_triangular(factor, self._weights.gather(1, own)[:, :, None], upper=False)
        costs = lost.square().reshape(rows, -1, k).sum(2) / 2
        costs = torch.maximum(costs.cummax(1).values, self._highest)
        self._highest = costs[:, -1:]
        self._worth.scatter_(1, self._units.gather(1, places), costs)
        half = torch.linalg.solve_triangular(factor, across, upper=False)
        self._weights -= (half.transpose(1, 2) @ lost)[:, :, 0]
        self._inverse.baddbmm_(half.transpose(1, 2), half, alpha=-1)
        self._weights.scatter_(1, own, 0.0)
        self._left.scatter_(1, places, value=False)
        if self._gone is not None:
            stretch = self._units.gather(1, places) // self._pattern.m
            self._gone.scatter_add_(1, stretch, torch.ones_like(stretch, dtype=self._gone.dtype))

    def _shrink(self) -> None:
        """Drops what is gone from the inverses."""
        rows, k, count = len(self._left), self._size, int(self._left[0].sum())
        stay = self._left.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :count]
        own = (stay[:, :, None] * k + torch.arange(k, device="cpu")).reshape(rows, -1)
        self._weights = self._weights.gather(1, own)
        self._inverse = self._inverse[self._numbers[:, :, None], own[:, :, None], own[:, None, :]]
        self._units = self._units.gather(1, stay)
        self._left = torch.ones_like(stay, dtype=torch.bool)


def _in_stages(weights: Tensor, hessian: Tensor, pattern: Pattern, kernel: int) -> Tensor:
    """Scores whose order is that in which weights go; within a stage by what they cost."""
    inverse = torch.stack([torch.cholesky_inverse(torch.linalg.cholesky(one)) for one in hessian])
    scale = 2 * inverse.diagonal(dim1=1, dim2=2)[:, :, None]
    del inverse
    now, mask = weights, torch.ones_like(weights, dtype=torch.bool)
    found = torch.zeros_like(weights)
    highest = weights.new_zeros(())
    for share in (1.0,) if pattern.m else STAGES:
        costs = torch.where(mask, now.square() / scale, 0.0)
        stays = pattern.mask(torch.where(mask, costs + 1e-30, 0.0), int(share * weights.numel()), kernel)
        goes = mask & ~stays
        found = torch.where(goes, torch.maximum(costs, highest), found)
        highest = torch.maximum(highest, found.amax())
        mask = mask & stays
        now = restricted(hessian, weights, mask, start=now, steps=QUICK)
    return torch.where(mask, highest + now.square() / scale, found)
