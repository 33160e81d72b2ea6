"""Whether a network gives numbers or classes, and on which scales its numbers are: labels say it, outputs do not."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from nasprune.common.calls import in_type_of, spoken_output
from nasprune.common.untouched import undisturbed
from nasprune.data.batches import batches, draw, together
from nasprune.data.splits import size_of

IMAGES = 256
CONSTANT = 1e-12
"""Times the mean square: a variance below is that of an output that is always the same."""


def variances(dense: nn.Module, dataset: Dataset[Any]) -> Tensor | None:
    """How much each of the numbers varies that the network gives, (outputs,), over at most 256 images and positions.

    `None` where it gives classes: where labels are whole numbers, or there are none, or they are shares of the classes.
    An output that never changes has its mean square in the place of a variance, or 1.
    """
    order = draw(size_of(dataset), IMAGES)
    if not order or not _numbers(next(batches(dataset, 1, order[:1]))):
        return None
    home = next((value.device for value in dense.parameters()), torch.device("cpu"))
    given, shares = list[Tensor](), True
    with torch.no_grad(), undisturbed(dense):
        for images, labels in batches(dataset, together(dataset, 64), order):
            outputs = spoken_output(dense(in_type_of(dense, images).to(home)))
            if outputs is None or outputs.numel() != labels.numel():
                return None
            shares = shares and labels.shape == outputs.shape and are_shares(labels)
            given.append(outputs.detach().double().transpose(0, 1).flatten(1))
    if shares:
        return None
    found = torch.cat(given, 1)
    varies, square = found.var(1, correction=0), found.square().mean(1)
    return torch.where(varies > CONSTANT * square, varies, torch.where(square > 0, square, 1.0))


def are_shares(labels: Tensor) -> bool:
    """Whether labels are shares of classes, (n, classes, ...), as of mixed images: none below 0, and their sum is 1."""
    if labels.ndim < 2 or labels.shape[1] == 1:
        return False
    return bool((labels >= 0).all()) and bool(((labels.sum(1) - 1).abs() < 1e-3).all())


def _numbers(batch: tuple[Any, Any]) -> bool:
    """Whether images and labels are tensors, and labels no whole numbers."""
    return all(isinstance(part, Tensor) for part in batch) and batch[1].is_floating_point()
