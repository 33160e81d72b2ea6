"""The Optimal Brain Surgeon, weight by weight: in which order a layer's weights go, and what each costs.

Hassibi, Stork 1993: of a quadratic loss with Hessian H, removing weight q costs w_q^2 / (2 [H^-1]_qq), and the others
move by -w_q / [H^-1]_qq * H^-1 e_q. For one layer H is the same for every output (Dong, Chen, Pan 2017,
arXiv:1705.07565), so each output is a problem of its own, which Frantar, Alistarh 2022, arXiv:2208.11580, solve exactly
by taking the removed row and column out of H^-1; units of several weights go together, and N:M patterns spare what they
must keep. Losses that do not rise are raised to the highest before, as when the cheapest next weight of all outputs is
taken. Departures: several weights of an output may go at a time, exactly for the set that goes; and where the inverses
of all outputs would be too much work, weights go in stages at first, by w_q^2 / [H^-1]_qq with the whole inverse and
weights that are refitted after each (SparseGPT, Frantar, Alistarh 2023, arXiv:2301.00774, lets only later columns make
good what earlier ones lose; here all do), until the inverses of what is left are little enough work.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nasprune.sparse.patterns import Pattern
from nasprune.sparse.restricted import picked, restricted

MEMORY = 2**26
"""Numbers in the inverses that are held at a time."""
WORK = 10**11
"""Multiply-adds that the inverses of all outputs may take; above, weights go in stages at first."""
REST = 3 * 10**10
"""Those that the inverses of what stages leave may take."""
TOGETHER = 64
"""Into how many steps the removal of all weights of an output is cut."""
SHRINK = 0.55
STEPS = 4
"""Of gradients between stages, where outputs are not solved exactly."""
STAGES = tuple(0.9**stage for stage in range(1, 45))


def losses(weights: Tensor, hessian: Tensor, pattern: Pattern, kernel: int, *, exact: bool = False) -> Tensor:
    """What each weight costs at its turn, in the order of the surgeon, (groups, F, O); more is removed later.

    Args:
        weights, hessian, pattern, kernel: as of a `SparseLayer`. exact: one unit of an output at a time, whatever the
            work.
    """
    groups, features, outputs = weights.shape
    units = pattern.units(features, kernel)
    found, mask = torch.zeros_like(weights), torch.ones_like(weights, dtype=torch.bool)
    if not exact and groups * outputs * features**3 // 3 > WORK:
        found, mask = _in_stages(weights, hessian, pattern, kernel)
        if pattern.m:
            return found
    together = 1 if exact else max(1, len(units) // TOGETHER)
    before = found.max()
    worths = [
        _one_by_one(own, matrix, stays, units, pattern, together)
        for own, matrix, stays in zip(weights, hessian, mask, strict=True)
    ]
    return torch.where(mask, before + torch.stack(worths), found)


def _one_by_one(
    weights: Tensor, hessian: Tensor, mask: Tensor, units: Tensor, pattern: Pattern, together: int
) -> Tensor:
    """Of one group: what the weights that the mask (F, O) left cost at their turn, (F, O); of others any number."""
    found, size = torch.zeros_like(weights), units.shape[1]
    wanted, left = hessian @ weights, mask[units[:, 0]]  # (F, O), (U, O)
    counts = left.sum(0)
    whole = torch.cholesky_inverse(torch.linalg.cholesky(hessian)) if bool(left.all()) else None
    order, start = counts.argsort(), 0
    while start < len(order):
        end = start + 1
        while end < len(order) and (end + 1 - start) * (int(counts[order[end]]) * size) ** 2 <= MEMORY:
            end += 1
        rows, most = order[start:end], int(counts[order[end - 1]])
        start = end
        if not most:
            continue
        places = left[:, rows].T.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :most]
        there = left[:, rows].T.gather(1, places)  # others fill up, alone and at zero, so that they cost nothing
        own, stays = units[places].flatten(1), there.repeat_interleave(size, 1)
        if whole is None:
            inverse = _inverses(hessian, own, stays)
            now = (inverse @ (wanted[own, rows[:, None]] * stays)[:, :, None])[:, :, 0]
        else:
            inverse, now = whole[own[0]][:, own[0]].expand(len(rows), -1, -1), weights[own, rows[:, None]]
        worth = _Rows(now, inverse, size, pattern).removed(together)
        found[own, rows[:, None]] = worth.repeat_interleave(size, 1)
    return found


def _inverses(hessian: Tensor, own: Tensor, stays: Tensor) -> Tensor:
    """Of the Hessian (F, F) on the features (R, n) that stay of each output; one where others fill up, (R, n, n)."""
    matrix = picked(hessian.expand(len(own), -1, -1), own)
    matrix *= stays[:, :, None] & stays[:, None, :]
    matrix.diagonal(dim1=1, dim2=2).add_((~stays).to(matrix))
    return torch.cholesky_inverse(torch.linalg.cholesky(matrix))


class _Rows:
    """Some outputs of one group, each with its own inverse on the units that it has left.

    What a removal takes out of the inverses is held as factors, and taken out of what is left when the inverses shrink:
    until then only the rows of what is removed next and the diagonal blocks of the units are needed.
    """

    def __init__(self, weights: Tensor, inverse: Tensor, size: int, pattern: Pattern) -> None:
        """weights: (R, F), overwritten, features in the order of units of `size`. inverse: (R, F, F)."""
        rows, units = len(weights), weights.shape[1] // size
        self._size, self._pattern, self._weights, self._inverse = size, pattern, weights, inverse
        self._units = torch.arange(units, device="cpu").expand(rows, -1).clone()  # which ones are held
        self._left = torch.ones(rows, units, dtype=torch.bool, device="cpu")  # of those, which still stay
        self._worth = weights.new_full((rows, units), torch.inf)
        self._highest = weights.new_zeros(rows, 1)
        self._numbers = torch.arange(rows, device="cpu")[:, None]
        self._gone = weights.new_zeros(rows, units // pattern.m) if pattern.m else None
        self._begin()

    def _begin(self) -> None:
        """Nothing is taken out of the inverses as they are now."""
        rows, units, k = *self._units.shape, self._size
        blocks = self._inverse.reshape(rows, units, k, units, k).diagonal(dim1=1, dim2=3)
        self._blocks = blocks.permute(0, 3, 1, 2).contiguous()  # (R, U, k, k)
        self._out = self._weights.new_empty(rows, 0, units * k)
        self._taken = 0

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
            costs = self._weights.square() / (2 * self._blocks[:, :, 0, 0])
        else:
            k = self._size
            one = torch.eye(k, dtype=self._blocks.dtype, device="cpu")
            blocks = torch.where(self._left[:, :, None, None], self._blocks, one)
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
        if self._taken:
            out = self._out[:, : self._taken]
            theirs = out.gather(2, own[:, None, :].expand(-1, self._taken, -1))
            across.baddbmm_(theirs.transpose(1, 2), out, alpha=-1)
        factor = torch.linalg.cholesky(across.gather(2, own[:, None, :].expand(-1, own.shape[1], -1)))
        lost = torch.linalg.solve_triangular(factor, self._weights.gather(1, own)[:, :, None], upper=False)
        costs = lost.square().reshape(rows, -1, k).sum(2) / 2
        costs = torch.maximum(costs.cummax(1).values, self._highest)
        self._highest = costs[:, -1:]
        self._worth.scatter_(1, self._units.gather(1, places), costs)
        half = torch.linalg.solve_triangular(factor, across, upper=False)
        self._weights -= (half.transpose(1, 2) @ lost)[:, :, 0]
        self._take_out(half)
        self._weights.scatter_(1, own, 0.0)
        self._left.scatter_(1, places, value=False)
        if self._gone is not None:
            stretch = self._units.gather(1, places) // self._pattern.m
            self._gone.scatter_add_(1, stretch, torch.ones_like(stretch, dtype=self._gone.dtype))

    def _take_out(self, half: Tensor) -> None:
        """half: (R, n, F), whose products with themselves are what the inverses lose."""
        rows, count, features = half.shape
        if self._taken + count > self._out.shape[1]:
            room = half.new_empty(rows, self._taken + int((1 - SHRINK) * features) + count, features)
            room[:, : self._taken] = self._out[:, : self._taken]
            self._out = room
        self._out[:, self._taken : self._taken + count] = half
        self._taken += count
        by_unit = half.view(rows, count, -1, self._size).permute(0, 2, 3, 1)  # (R, U, k, n)
        self._blocks -= by_unit @ by_unit.transpose(2, 3) if self._size > 1 else half.square().sum(1)[:, :, None, None]

    def _shrink(self) -> None:
        """Drops what is gone from the inverses."""
        rows, k, count = len(self._left), self._size, int(self._left[0].sum())
        stay = self._left.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :count]
        own = (stay[:, :, None] * k + torch.arange(k, device="cpu")).reshape(rows, -1)
        self._weights = self._weights.gather(1, own)
        out = self._out[:, : self._taken].gather(2, own[:, None, :].expand(-1, self._taken, -1))
        self._inverse = picked(self._inverse, own).baddbmm_(out.transpose(1, 2), out, alpha=-1)
        self._units = self._units.gather(1, stay)
        self._left = torch.ones_like(stay, dtype=torch.bool)
        self._begin()


def _in_stages(weights: Tensor, hessian: Tensor, pattern: Pattern, kernel: int) -> tuple[Tensor, Tensor]:
    """Scores whose order is that in which weights go, within a stage by what they cost; and the mask of those left.

    An N:M pattern has one stage, in which all are scored.
    """
    inverse = torch.stack([torch.cholesky_inverse(torch.linalg.cholesky(one)) for one in hessian])
    scale = 2 * inverse.diagonal(dim1=1, dim2=2)[:, :, None]
    del inverse
    now, mask = weights, torch.ones_like(weights, dtype=torch.bool)
    if pattern.m:
        return now.square() / scale, mask
    found = torch.zeros_like(weights)
    highest = weights.new_zeros(())
    for share in STAGES:
        costs = torch.where(mask, now.square() / scale, 0.0)
        stays = pattern.mask(torch.where(mask, costs + 1e-30, 0.0), int(share * weights.numel()), kernel)
        goes = mask & ~stays
        found = torch.where(goes, torch.maximum(costs, highest), found)
        highest = torch.maximum(highest, found.amax())
        mask = mask & stays
        if float(mask.sum(1).double().pow(3).sum()) <= REST:
            break
        now = restricted(hessian, weights, mask, start=now, steps=STEPS)
    return found, mask
