"""A network whose kernels are shared within input channels, and what it takes to store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from nasprune.calibration.kernel_entropy import kernel_indicator
from nasprune.calibration.layers import is_layer
from nasprune.common.accepted import accepted
from nasprune.common.untouched import twin
from nasprune.errors import InputError
from nasprune.sparse.kernels import FLOAT_BITS, SharedKernels, centre_counts, shared_kernels

FINENESS, COMPRESSION = 4, 0


@dataclass(frozen=True)
class KernelNet:
    """The network with shared kernels, in eval mode; the layers that have some, by path; bits before and after.

    bits: of all parameters, as single-precision numbers, with centres and indices in the place of shared kernels.
    """

    model: nn.Module = field(repr=False)
    layers: Mapping[str, SharedKernels] = field(repr=False)
    dense_bits: int
    bits: int

    @property
    def ratio(self) -> float:
        """How many times smaller."""
        return self.dense_bits / max(self.bits, 1)


@torch.no_grad()
def share_kernels(
    model: nn.Module, *, fineness: int = FINENESS, compression: int = COMPRESSION, seed: int = 0
) -> KernelNet:
    """Clusters the kernels of every input channel of convolutions, see `nasprune.sparse.kernels`.

    `model` stays as it is. Convolutions with several groups, and those of one position, keep their kernels. Batch norms
    are as they were, and the centres are not trained: measure the network before it is used.

    Args:
        fineness: the paper's G, at least 1. compression: the paper's T, at least 0. seed: of the clustering.

    Raises:
        InputError: a number is out of range, or no convolution has kernels to share.
    """
    small = twin(accepted(model)).eval()
    found: dict[str, SharedKernels] = {}
    numbers = sum(value.numel() for value in small.parameters())
    replaced = 0
    for path, layer in small.named_modules():
        if not isinstance(layer, nn.Conv2d) or not is_layer(layer) or layer.groups > 1 or layer.kernel_size == (1, 1):
            continue
        kernels = layer.weight.detach().float().cpu().flatten(2)
        counts = centre_counts(_stretched(kernels), kernels.shape[0], fineness, compression)
        found[path] = shared_kernels(kernels, counts, seed=seed)
        layer.weight.copy_(found[path].expanded().reshape(layer.weight.shape))
        replaced += layer.weight.numel()
    if not found:
        raise InputError("no convolution of one group has kernels of several positions; there is nothing to do")
    bits = FLOAT_BITS * (numbers - replaced) + sum(layer.bits for layer in found.values())
    return KernelNet(small, found, FLOAT_BITS * numbers, bits)


def _stretched(kernels: torch.Tensor) -> torch.Tensor:
    """The indicator of each input channel, from 0 for the lowest of the layer to 1; ones where all are equal."""
    indicator = kernel_indicator(kernels.transpose(0, 1))
    low, high = indicator.min(), indicator.max()
    return (indicator - low) / (high - low) if high > low else torch.ones_like(indicator)
