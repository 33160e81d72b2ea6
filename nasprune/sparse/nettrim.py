"""Net-Trim: the weights of least absolute sum whose layer still gives nearly what it gave, a convex program.

Aghasi, Abdi, Nguyen, Romberg 2017, "Net-Trim: Convex Pruning of Deep Neural Networks with Performance Guarantee",
arXiv:1611.05162: for each output, minimise |u|_1 so that what X u gives where the rectified output y is above zero is
within epsilon of y there, and X u is at most zero elsewhere. Solved by the alternating direction method of multipliers
with X u and u split off, all outputs at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nasprune.errors import InputError
from nasprune.sparse.contract import SparseLayer, Sparsifier

STEPS = 2_000
CLOSE = 1e-5
RELAXED = 1.6
"""Over-relaxation; 1 is none."""


@dataclass(frozen=True)
class Trimmed:
    """Weights (F, O), many of them exactly zero, and the multipliers of the program, for its conditions.

    rows: (n, O), of X u = z. weights: (F, O), of u = v; a subgradient of the absolute sum.
    """

    solution: Tensor
    rows: Tensor
    weights: Tensor


def net_trim(inputs: Tensor, outputs: Tensor, epsilon: float, *, rectified: bool, steps: int = STEPS) -> Trimmed:
    """The program for every output of a layer.

    Args:
        inputs: (n, F), what the layer reads. outputs: (n, O), what it gives; behind the ReLU where `rectified`.
        epsilon: distance that is allowed, relative to the norm of an output, above 0.
        rectified: whether a ReLU follows; else all rows are to be near.
        steps: at most.

    Raises:
        InputError: `epsilon` is not above 0.
    """
    if not epsilon > 0:
        raise InputError(f"`epsilon` must be above 0, got {epsilon}; write for example epsilon=0.05")
    scale = inputs.square().sum(0).mean().sqrt().clamp(min=1e-30)
    x = inputs / scale  # so that the two splits weigh alike
    active = outputs > 0 if rectified else torch.ones_like(outputs, dtype=torch.bool)
    radius = epsilon * outputs.norm(dim=0)
    size = outputs.norm(dim=0).mean().clamp(min=1e-30)
    eye = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    factor = torch.linalg.cholesky(x.T @ x + eye)
    u = torch.zeros(x.shape[1], outputs.shape[1], dtype=x.dtype, device=x.device)
    v, b, z, a = u, torch.zeros_like(u), torch.zeros_like(outputs), torch.zeros_like(outputs)
    shrink = size / x.shape[1]  # one over the penalty
    for _ in range(steps):
        u = torch.cholesky_solve(x.T @ (z - a) + v - b, factor)
        through = RELAXED * (x @ u) + (1 - RELAXED) * z
        near = RELAXED * u + (1 - RELAXED) * v
        before_z, before_v = z, v
        z = _allowed(through + a, outputs, active, radius)
        v = torch.nn.functional.softshrink(near + b, float(shrink))
        a, b = a + through - z, b + near - v
        apart = (x @ u - z).norm() + (u - v).norm()
        moved = (z - before_z).norm() + (v - before_v).norm()
        if float(apart + moved) <= CLOSE * float(size) * outputs.shape[1] ** 0.5:
            break
    return Trimmed(v / scale, a / shrink, b / shrink)


def _allowed(value: Tensor, outputs: Tensor, active: Tensor, radius: Tensor) -> Tensor:
    """The nearest point whose active rows are within the radius of the outputs, the others at most zero."""
    off = torch.where(active, value - outputs, 0.0)
    length = off.norm(dim=0)
    pulled = off * torch.where(length > radius, radius / length.clamp(min=1e-30), 1.0)
    return torch.where(active, outputs + pulled, value.clamp(max=0.0))


class NetTrim(Sparsifier):
    """The program's solution: larger weights stay, those that it makes zero go first, by their size before.

    epsilon: as of `net_trim`. Departures: the layer's Gram matrix stands for its rows, which gives the same program
    where no ReLU follows; rows behind a ReLU are not told apart, since norms and additions mostly stand between; and a
    budget says how many weights stay, not epsilon alone.
    """

    def __init__(self, *, epsilon: float = 0.1) -> None:
        if not epsilon > 0:
            raise InputError(f"`epsilon` must be above 0, got {epsilon}; write for example epsilon=0.1")
        self._epsilon = float(epsilon)

    def score(self, layer: SparseLayer) -> Tensor:
        found = []
        for weights, hessian in zip(layer.weights, layer.hessian, strict=True):
            rows = torch.linalg.cholesky(hessian.double()).T
            wanted = rows @ weights.double()
            solved = net_trim(rows, wanted, self._epsilon, rectified=False).solution
            found.append((solved.square() + 1e-6 * weights.double().square()).to(weights.dtype))
        return torch.stack(found)
