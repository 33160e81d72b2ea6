"""The best weights of a layer when some of them are zero: least squares over those that stay, output by output."""

from __future__ import annotations

import torch
from torch import Tensor

EXACT = 2 * 10**9
"""Multiply-adds that factoring the matrices of outputs may take in any case."""
SLOWER = 4
"""Times as long as in a product takes a multiply-add in factoring."""
MEMORY = 2**26
"""Numbers that are factored at a time."""
STEPS = 60
CLOSE = 1e-4


def restricted(
    hessian: Tensor, weights: Tensor, mask: Tensor, *, start: Tensor | None = None, steps: int | None = None
) -> Tensor:
    """The minimum of tr((W - weights)' H (W - weights)) over W that is zero outside of `mask`.

    Exact, by the factor of each output's own matrix of the weights that stay, where that takes little time, or no more
    than the steps; else by conjugate gradients until the gradient has fallen by `CLOSE`.

    Args:
        hessian: (groups, F, F), positive definite. weights, mask: (groups, F, O).
        start: where gradients start, `weights` by default. steps: of those at most.
    """
    groups, features, outputs = weights.shape
    most = steps or STEPS
    if float(mask.sum(1).double().pow(3).sum()) / 3 > max(EXACT, most * groups * outputs * features**2 / SLOWER):
        return _by_gradients(hessian, weights, mask, weights if start is None else start, most)
    return torch.stack([_exact(h, w, m) for h, w, m in zip(hessian, weights, mask, strict=True)])


def _exact(hessian: Tensor, weights: Tensor, mask: Tensor) -> Tensor:
    """One group: (F, F), (F, O), (F, O). Outputs are ordered by how many weights stay, and solved in chunks."""
    wanted = hessian @ weights
    found = torch.zeros_like(weights)
    left = mask.sum(0)
    start, order = 0, left.argsort()
    while start < len(order):
        most = min(len(order), start + max(1, MEMORY // max(1, int(left[order[start]]) + 16) ** 2))
        while most > start + 1 and (most - start) * int(left[order[most - 1]]) ** 2 > MEMORY:
            most = start + (most - start + 1) // 2
        chosen, size = order[start:most], int(left[order[most - 1]])
        start = most
        if size == 0:
            continue
        stays = mask[:, chosen].T
        places = stays.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :size]  # those that stay first
        there = stays.gather(1, places)
        matrix = picked(hessian.expand(len(places), -1, -1), places)
        both = there[:, :, None] & there[:, None, :]
        matrix = torch.where(both, matrix, torch.eye(size, dtype=matrix.dtype, device="cpu"))
        right = torch.where(there, wanted[:, chosen].T.gather(1, places), 0.0)
        solved = torch.cholesky_solve(right[:, :, None], torch.linalg.cholesky(matrix))[:, :, 0]
        found[:, chosen] = torch.zeros_like(stays, dtype=weights.dtype).scatter_(1, places, solved * there).T
    return found


def picked(matrices: Tensor, places: Tensor) -> Tensor:
    """Of each matrix (R, F, F) its own rows and columns (R, n): (R, n, n)."""
    found = matrices.new_empty(len(places), places.shape[1], places.shape[1])
    for matrix, own, part in zip(matrices, places, found, strict=True):
        torch.index_select(matrix.index_select(0, own), 1, own, out=part)
    return found


def _by_gradients(hessian: Tensor, weights: Tensor, mask: Tensor, start: Tensor, steps: int) -> Tensor:
    """Conjugate gradients with the diagonal as preconditioner, each output its own problem, all at once."""
    scale = hessian.diagonal(dim1=1, dim2=2)[:, :, None]
    found = start * mask
    left = (hessian @ (weights - found)) * mask
    way = left / scale
    size = (left * way).sum(1, keepdim=True)
    goal = CLOSE**2 * size
    for _ in range(steps):
        ahead = (hessian @ way) * mask
        along = (way * ahead).sum(1, keepdim=True)
        step = torch.where(along > 0, size / along.clamp(min=1e-30), 0.0)
        found += step * way
        left -= step * ahead
        again = left / scale
        before, size = size, (left * again).sum(1, keepdim=True)
        if bool((size <= goal).all()):
            break
        way = again + size / before.clamp(min=1e-30) * way
    return found
