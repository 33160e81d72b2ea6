"""The Optimal Brain Surgeon for single weights: what each costs at its turn, the others making good what they can."""

from __future__ import annotations

from torch import Tensor

from nasprune.sparse.contract import SparseLayer, Sparsifier
from nasprune.sparse.surgeon import losses


class OBS(Sparsifier):
    """Losses in the order of the surgeon, see `nasprune.sparse.surgeon`. exact: one weight of an output at a time."""

    def __init__(self, *, exact: bool = False) -> None:
        self._exact = bool(exact)

    def score(self, layer: SparseLayer) -> Tensor:
        return losses(layer.weights, layer.hessian, layer.pattern, layer.kernel, exact=self._exact)
