"""The squares of the weights, as Han et al. 2015, arXiv:1506.02626, cut by a threshold for each layer.

Departure: every layer is fitted in closed form before it loses weights, and the weights that stay are refitted after
that; `refit=False` leaves out the latter.
"""

import torch

from nasprune import InputError, SparseLayer, Sparsifier


class Magnitude(Sparsifier):
    """Larger weights stay. normalise: "none", or "layer" to divide by the layer's mean, where layers compare."""

    def __init__(self, *, refit: bool = True, normalise: str = "none") -> None:
        if normalise not in ("none", "layer"):
            raise InputError(f"`normalise` must be none or layer, got {normalise!r}")
        self.updates = bool(refit)  # type: ignore[misc]
        self._normalise = normalise

    def score(self, layer: SparseLayer) -> torch.Tensor:
        squares = layer.weights.square()
        return squares / squares.mean().clamp(min=1e-30) if self._normalise == "layer" else squares
