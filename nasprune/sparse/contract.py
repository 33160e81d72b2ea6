"""What a method for zeros inside of weights implements, and what it may look at."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from nasprune.sparse.patterns import Pattern


@dataclass(frozen=True)
class SparseLayer:
    """A convolution or linear layer as a quadratic problem: what a change D of its weights does to what it gives.

    That is 1/2 tr(D' H D), summed over groups, D (F, O) being the distance from `weights`, where the layer gives what
    it should. On the CPU, float32 or float64.

    weights: (groups, F, O), F over input channels and kernel positions. hessian: (groups, F, F), positive definite:
    mean products of the features, damped. curvature: (groups, F, O), the diagonal of the Hessian of what the network
    gives, by the Fisher information, where the method asks for it; else that of `hessian`. pattern: where zeros may
    come. kernel: positions of a kernel, 1 for a linear layer.
    """

    weights: Tensor
    hessian: Tensor
    curvature: Tensor
    pattern: Pattern
    kernel: int


class Sparsifier(ABC):
    """Which weights of a layer matter. Keyword arguments of the constructor are its options.

    updates: whether the weights that stay are refitted to make good what the others gave, by least squares.
    needs_curvature: whether it wants the network's own `SparseLayer.curvature`.
    """

    updates: ClassVar[bool] = True
    needs_curvature: ClassVar[bool] = False

    @abstractmethod
    def score(self, layer: SparseLayer) -> Tensor:
        """Scores (groups, F, O), finite, higher = stays longer; those of a unit of the pattern are added up.

        Where one layer is to be weighed against another by these scores, they are losses: what the network or the layer
        loses without the weight.
        """
