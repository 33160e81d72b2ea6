"""The loss of classifiers, with labels checked, and the distance between what two networks say."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from nasprune.errors import InputError


def cross_entropy(outputs: Tensor, labels: Tensor, reduction: str = "mean", smoothing: float = 0.0) -> Tensor:
    """That of outputs (n, classes) with labels (n,), which all must have a class.

    Raises:
        InputError: otherwise.
    """
    if outputs.ndim != 2 or int(labels.min()) < 0 or int(labels.max()) >= outputs.shape[1]:
        least, most = int(labels.min()), int(labels.max())
        raise InputError(
            "the cross-entropy needs outputs (n, classes) and for every image a label of these classes, counted "
            f"from 0; got outputs {tuple(outputs.shape)}, labels from {least} to {most}, where below 0 is none. "
            "Give labelled data, or choose what needs no labels"
        )
    return functional.cross_entropy(outputs, labels, reduction=reduction, label_smoothing=smoothing)


def divergence(target: Tensor, outputs: Tensor, temperature: float = 1.0) -> Tensor:
    """The sum of KL(target || outputs) in nats over images and positions; outputs (n, classes, ...), softmax on axis 1.

    Both are divided by the temperature first. A single output has no softmax: there it is half the squared change, the
    divergence of normal distributions of variance one, and the temperature divides their difference.
    """
    if outputs.shape[1] == 1:
        return 0.5 * ((outputs - target) / temperature).square().sum()
    reached, wanted = ((value / temperature).log_softmax(1) for value in (outputs, target))
    return functional.kl_div(reached, wanted, reduction="sum", log_target=True)


def divergences(target: Tensor, outputs: Tensor) -> Tensor:
    """`divergence` of each image, shape (n,)."""
    return torch.stack([divergence(*pair) for pair in zip(target[:, None], outputs[:, None], strict=True)])
