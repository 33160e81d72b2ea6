"""What a network is trained to say: a class for every image or every position of it, or numbers."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from nasprune.common.arguments import described, refused
from nasprune.common.losses import cross_entropy
from nasprune.data.batches import batches
from nasprune.data.scales import are_shares
from nasprune.errors import InputError

LEFT_OUT = -100


class TrainingTask(Protocol):
    """What is learned from targets. A class of your own with these three is given as `task` to `nasprune.finetune`."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """What training lowers: a mean over the items of a batch. outputs: (n, ...), the one tensor that is given."""

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(n,): how right each item is, in [0, 1]."""

    def guess(self, outputs: Tensor) -> float:
        """The loss of a network that knows nothing, by which a training that diverges is told."""


@runtime_checkable
class ModelTask(Protocol):
    """A task that calls the network itself, since that takes the targets, too; given as `task` like a `TrainingTask`.

    inputs: a tensor (n, ...), or a list where items differ in shape. targets: a list where an item's are in a dict.
    """

    def loss_of(self, model: nn.Module, inputs: Any, targets: Any) -> Tensor:
        """What training lowers: a mean over the items of a batch."""

    def judged(self, model: nn.Module, inputs: Any, targets: Any) -> tuple[Tensor, Tensor]:
        """The same loss, and how right each item is, (n,) in [0, 1]. model: in eval mode, without gradients."""

    def guess_of(self, model: nn.Module) -> float:
        """The loss of a network that knows nothing, by which a training that diverges is told."""


AnyTask = TrainingTask | ModelTask
METHODS = (("loss", "score", "guess"), ("loss_of", "judged", "guess_of"))


def check_task(task: object) -> None:
    """Raises InputError unless `task` is none, or has what a task needs."""
    if task is None:
        return
    wanted = "an object with " + ", or with ".join("{}, {} and {}".format(*map("`{}`".format, one)) for one in METHODS)
    if inspect.isclass(task):
        raise refused("task", wanted, task, f"give an instance: {task.__name__}()")
    lacking = [[name for name in names if not callable(getattr(task, name, None))] for names in METHODS]
    if all(lacking):
        least = min(lacking, key=len)
        then = "give for example task=nasprune.Detection()" if len(least) == 3 else f"add `{least[0]}` to the class"
        raise refused("task", wanted, task, then)


def one_number(task: AnyTask, loss: object) -> Tensor:
    """The loss that a task gives for a batch. Raises InputError where it is no single number in a tensor."""
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        raise InputError(
            f"the loss of the task {type(task).__name__} must be a tensor of one number, the mean over the items of a "
            f"batch, got {described(loss)}; take its mean"
        )
    return loss.reshape(())


@dataclass(frozen=True)
class Classes:
    """Cross-entropy of outputs (n, classes, ...) with class numbers (n, ...).

    Of labels for positions those below 0 do not count, such as the -100 that torch leaves out; images all have a label.
    A position's share in its image's score is that of each other. Shares of classes (n, classes), as of mixed images,
    are taken, too.
    """

    smoothing: float = 0.0

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if targets.is_floating_point() and targets.shape == outputs.shape:
            return functional.cross_entropy(outputs, targets.to(outputs.dtype), label_smoothing=self.smoothing)
        if targets.ndim < 2 and outputs.ndim == 2 and not targets.is_floating_point():
            return cross_entropy(outputs, targets, smoothing=self.smoothing)
        known = _known(outputs, targets)
        if not bool(known.any()):
            return outputs.sum() * 0.0
        counted = targets.masked_fill(~known, LEFT_OUT)
        return functional.cross_entropy(outputs, counted, ignore_index=LEFT_OUT, label_smoothing=self.smoothing)

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if targets.is_floating_point():
            targets = targets.argmax(1)
        right = outputs.argmax(1) == targets
        if targets.ndim < 2:
            return right.float()
        known = (targets >= 0).flatten(1)
        return (right.flatten(1) & known).sum(1) / known.sum(1).clamp(min=1)

    def guess(self, outputs: Tensor) -> float:
        return math.log(max(2, outputs.shape[1]))


@dataclass(frozen=True)
class Numbers:
    """Squared error of numbers; an item's score is 1 less its error relative to the variance of targets, at least 0."""

    variance: float

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self._errors(outputs, targets).mean()

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (1 - self._errors(outputs, targets) / self.variance).clamp(min=0.0)

    def guess(self, outputs: Tensor) -> float:
        return self.variance

    @staticmethod
    def _errors(outputs: Tensor, targets: Tensor) -> Tensor:
        if outputs.numel() != targets.numel() or outputs.shape[0] != targets.shape[0]:
            raise InputError(
                f"outputs of shape {tuple(outputs.shape)} are trained with as many numbers, got labels of shape "
                f"{tuple(targets.shape)}; give such labels, or class numbers as whole numbers"
            )
        return (outputs - targets.to(outputs.dtype).reshape(outputs.shape)).square().reshape(len(outputs), -1).mean(1)


def task_of(dataset: Dataset[Any], smoothing: float = 0.0) -> Classes | Numbers:
    """What the labels of a data set are learned as: whole numbers and shares are classes, others numbers.

    Raises:
        InputError: numbers are all the same.
    """
    _, first = next(batches(dataset, 1))
    if not isinstance(first, Tensor):
        raise InputError(
            "targets in dicts are learned with a task that knows them: give task=nasprune.Detection() for boxes, or a "
            "task of your own"
        )
    if not first.is_floating_point():
        return Classes(smoothing)
    found = torch.cat([labels.double() for _, labels in batches(dataset, 256)])
    if are_shares(found):
        return Classes(smoothing)
    variance = float((found - found.mean(0)).square().mean())
    if not variance > 0:
        raise InputError("all labels are the same number, or NaN, so there is nothing to learn; give others")
    return Numbers(variance)


def _known(outputs: Tensor, labels: Tensor) -> Tensor:
    """Which labels count."""
    if outputs.ndim < 2:
        raise InputError(
            f"expected a model that gives (n, classes, ...), got outputs of shape {tuple(outputs.shape)}, which are "
            "trained with numbers; give labels with a point, or a model with an output for every class"
        )
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
