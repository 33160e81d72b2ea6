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


def divergence(target: Tensor, outputs: Tensor, temperature: float = 1.0, variance: Tensor | None = None) -> Tensor:
    """The sum of KL(target || outputs) in nats over images and positions; outputs (n, classes, ...), softmax on axis 1.

    Both are divided by the temperature first. Numbers have no softmax: of these it is half the squared change, relative
    to their variance, the divergence of normal distributions, and the temperature divides their difference. So it is
    for a single output, too, with a variance of 1 where none is given.

    variance: (outputs,), of numbers; `None` for classes. `nasprune.data.scales` tells which they are.
    """
    if variance is not None:
        scale = temperature * along_outputs(variance, outputs).sqrt()
        return 0.5 * ((outputs - target) / scale).square().sum()
    if outputs.shape[1] == 1:
        return 0.5 * ((outputs - target) / temperature).square().sum()
    reached, wanted = ((value / temperature).log_softmax(1) for value in (outputs, target))
    return functional.kl_div(reached, wanted, reduction="sum", log_target=True)


def divergences(target: Tensor, outputs: Tensor, variance: Tensor | None = None) -> Tensor:
    """`divergence` of each image, shape (n,)."""
    pairs = zip(target[:, None], outputs[:, None], strict=True)
    return torch.stack([divergence(*pair, variance=variance) for pair in pairs])


def along_outputs(values: Tensor, outputs: Tensor) -> Tensor:
    """One value for each output, in the type and place of outputs (n, outputs, ...), and as many axes."""
    return values.to(outputs).reshape(1, -1, *[1] * (outputs.ndim - 2))
