"""What a network is trained to say: a class for every image, or, as in segmentation, one for every position of it."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from nasprune.common.losses import cross_entropy
from nasprune.errors import InputError

LEFT_OUT = -100


def loss_of(outputs: Tensor, labels: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """The mean cross-entropy of outputs (n, classes, ...) with labels (n, ...).

    Of labels for positions those below 0 do not count, such as the -100 that torch leaves out; images all have a label.

    Raises:
        InputError: labels are of another shape, no class numbers, or of no output.
    """
    if labels.ndim < 2 and outputs.ndim == 2 and not labels.is_floating_point():
        return cross_entropy(outputs, labels, smoothing=smoothing)
    known = _known(outputs, labels)
    if not bool(known.any()):
        return outputs.sum() * 0.0
    counted = labels.masked_fill(~known, LEFT_OUT)
    return functional.cross_entropy(outputs, counted, ignore_index=LEFT_OUT, label_smoothing=smoothing)


def right_of(outputs: Tensor, labels: Tensor) -> float:
    """How many images are right; one with a label for every position by the share of its positions that are."""
    right = outputs.argmax(1) == labels
    if labels.ndim < 2:
        return float(right.sum())
    known = (labels >= 0).flatten(1)
    return float(((right.flatten(1) & known).sum(1) / known.sum(1).clamp(min=1)).sum())


def _known(outputs: Tensor, labels: Tensor) -> Tensor:
    """Which labels count."""
    positions = (outputs.shape[0], *outputs.shape[2:])
    if tuple(labels.shape) != positions or labels.is_floating_point():
        raise InputError(
            f"outputs of shape {tuple(outputs.shape)} are trained with class numbers of shape {positions}, got labels "
            f"of shape {tuple(labels.shape)} and type {labels.dtype}; give such labels, or train with a loop of your "
            "own, which `nasprune.pruner` goes with"
        )
    if int(labels.max()) >= outputs.shape[1]:
        raise InputError(
            f"labels go up to {int(labels.max())}, and the model has {outputs.shape[1]} outputs, counted from 0; give "
            "a model with an output for every class, and -1 to positions that shall not count"
        )
    return labels >= 0
