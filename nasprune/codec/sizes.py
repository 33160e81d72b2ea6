"""How small a network has become, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from nasprune.codec.layers import Layer


@dataclass(frozen=True)
class LayerSize:
    """name: of the weight. weights, nonzeros, fillers: counts. values: shared ones. bytes: in the file, with tables."""

    name: str
    weights: int
    nonzeros: int
    fillers: int
    values: int
    bytes: int

    @property
    def bits_per_weight(self) -> float:
        """Of all weights, zeros included."""
        return 8 * self.bytes / self.weights if self.weights else 0.0


@dataclass(frozen=True)
class Sizes:
    """layers: weights that were encoded. rest: bytes of all other tensors, as they are. dense: bytes of all tensors.

    file: bytes of the whole file, names and shapes included.
    """

    layers: tuple[LayerSize, ...]
    rest: int
    dense: int
    file: int

    @property
    def ratio(self) -> float:
        """How many times smaller the file is than the tensors."""
        return self.dense / self.file


def sizes(layers: Mapping[str, Layer], rest: Mapping[str, Tensor], file: int) -> Sizes:
    """file: bytes of it."""
    others = sum(value.numel() * value.element_size() for value in rest.values())
    dense = sum(layer.numel * layer.dtype.itemsize for layer in layers.values())
    each = tuple(
        LayerSize(name, layer.numel, layer.nonzeros, layer.fillers, len(layer.book), layer.bytes)
        for name, layer in layers.items()
    )
    return Sizes(each, others, dense + others, file)
