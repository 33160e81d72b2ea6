"""Re-estimation of batch-norm statistics on calibration data: Li et al. 2020 (EagleEye), arXiv:2007.02491.

A cut network sees other activations than the one whose running statistics it inherited. As in the paper the statistics
are taken anew from a few batches without any gradient. Departure: the plain average over the batches replaces the
exponential one, so that the result does not depend on their order beyond rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import Dataset

from nasprune.data.batches import EqualBatches, batches, draw, finite, together
from nasprune.data.splits import size_of
from nasprune.graph.model import ModelGraph

BATCH = 128
CALIBRATION_IMAGES = 1024


def batches_of(data: Dataset[tuple[Tensor, int]]) -> Iterator[tuple[Tensor, Tensor]]:
    """The data set in its own order: inputs (n, ...) and labels (n,), n at most 128, fewer of large images."""
    return batches(data, together(data, BATCH))


def calibration_batches(data: Dataset[tuple[Tensor, int]], device: torch.device | str = "cpu") -> Iterator[Tensor]:
    """Inputs of 1,024 images at most, in batches of more than one, drawn as `draw` does."""
    for inputs, _ in batches(data, together(data, BATCH), draw(size_of(data), CALIBRATION_IMAGES)):
        if len(inputs) > 1:
            yield inputs.to(device)


def calibration_inputs(data: Dataset[tuple[Tensor, int]], count: int, device: torch.device | str = "cpu") -> Tensor:
    """Inputs of `count` images, or of all there are, as one tensor (n, ...), drawn as `draw` does.

    Raises:
        InputError: an image holds NaN or infinite values.
    """
    drawn = draw(size_of(data), count)
    return finite(torch.cat([inputs for inputs, _ in batches(data, BATCH, drawn)])).to(device)


def calibration_set(
    data: Dataset[tuple[Tensor, int]], count: int, size: int, device: torch.device | str = "cpu"
) -> EqualBatches:
    """The same images as batches of `size`, read when they are asked for."""
    return EqualBatches(data, draw(size_of(data), count), size, device)


def image_limit(graph: ModelGraph) -> int:
    """How many images may run at once, so that a few of the largest activations stay within a gibibyte."""
    largest = max((prod(op.shape) for op in graph.ops if op.shape), default=1)
    return max(8, min(4096, 2**30 // (4 * 4 * largest)))


def recalibrate(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Sets every batch norm's running mean and variance to the average over `batches`, in place.

    Nothing else changes: weights, modes, momenta and gradients are left as found. Without batch norms that track
    statistics, or without batches, nothing happens.

    Args:
        model: the network to change, on any device.
        batches: inputs (n, ...), on the model's device; n above 1.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    batches = list(batches)
    if not norms or not batches:
        return
    modes = [(module, module.training) for module in model.modules()]
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
        norm.train()
    try:
        with torch.no_grad():
            for batch in batches:
                model(batch)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, training in modes:
            module.training = training
