"""What every method for zeros inside of weights owes, as a check for its author's own tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from nasprune.common.duties import fail, twice
from nasprune.sparse.contract import SparseLayer, Sparsifier
from nasprune.sparse.layers import scored
from nasprune.sparse.patterns import Pattern


def check_sparsifier(kind: Callable[[], Sparsifier]) -> None:
    """A sparsifier gives finite scores of the shape of the weights, a function of the layer alone, and changes nothing.

    It is shown linear layers and convolutions, with one group and with two, in every kind of pattern; its own
    `SparseLayer.curvature` only where it says `needs_curvature = True`.

    Raises:
        PluginError: it does not.
    """
    for number, layer in enumerate(_layers(kind())):
        before = [tensor.clone() for tensor in (layer.weights, layer.hessian, layer.curvature)]
        first, second = twice(kind, lambda layer=layer: scored(kind(), layer))  # type: ignore[misc]
        if not torch.equal(first, second):
            fail(kind, f"gives other scores for layer {number} when asked again; draw with a generator of your own")
        if not all(map(torch.equal, before, (layer.weights, layer.hessian, layer.curvature))):
            fail(kind, "changes the tensors that it is shown; work on copies")


def _layers(sparsifier: Sparsifier) -> Iterator[SparseLayer]:
    """Problems of several shapes and patterns, always the same."""
    generator = torch.Generator().manual_seed(2)
    shapes = [(1, 8, 1, "unstructured"), (1, 8, 1, "2:4"), (1, 8, 9, "kernel"), (2, 4, 4, "block:2")]
    for groups, channels, kernel, pattern in shapes:
        features = channels * kernel
        weights = torch.randn(groups, features, 6, generator=generator, device="cpu")
        rows = torch.randn(groups, 4 * features, features, generator=generator, device="cpu")
        hessian = rows.transpose(1, 2) @ rows / (4 * features) + 1e-3 * torch.eye(features, device="cpu")
        curvature = hessian.diagonal(dim1=1, dim2=2)[:, :, None].expand_as(weights)
        if sparsifier.needs_curvature:
            curvature = torch.rand(weights.shape, generator=generator, device="cpu")
        yield SparseLayer(weights, hessian, curvature, Pattern.parse(pattern), kernel)
