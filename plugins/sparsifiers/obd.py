"""Optimal Brain Damage: LeCun, Denker, Solla 1990, "Optimal Brain Damage", NIPS 2.

The saliency of weight w is h w^2 / 2, with h the diagonal of the Hessian of what the network gives. Departures: h is
the Fisher information of the outputs, of which one backward pass draws samples, as there are no labels; the paper's
iterations of removal and training are one removal and a refit in closed form.
"""

import torch

from nasprune import SparseLayer, Sparsifier


class OBD(Sparsifier):
    """Half of the curvature times the square of the weight."""

    needs_curvature = True

    def score(self, layer: SparseLayer) -> torch.Tensor:
        return layer.curvature * layer.weights.square() / 2
