"""The loss of classifiers, with labels checked."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from nasprune.errors import InputError


def cross_entropy(outputs: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
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
    return functional.cross_entropy(outputs, labels, reduction=reduction)
