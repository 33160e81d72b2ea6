"""How well a network does on labelled images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from nasprune.common.allocation import memory_reused
from nasprune.common.calls import in_type_of, main_output
from nasprune.common.outputs import tensors_of
from nasprune.common.untouched import undisturbed
from nasprune.data.batches import batches, draw, together
from nasprune.data.splits import size_of
from nasprune.errors import InputError
from nasprune.train.targets import AnyTask, ModelTask, one_number, task_of

Images = Dataset[tuple[Tensor, int]]
COMPARED = 1024  # images that tell whether others were learned by heart


@dataclass(frozen=True)
class Judged:
    """On `count` images: the mean loss, and the share of right answers in [0, 1]. guess: the loss of guesses."""

    loss: float
    accuracy: float
    count: int
    guess: float = 0.0

    @property
    def error(self) -> float:
        """The standard error of the accuracy, as of one image more on either side, so that it is never 0."""
        share = (self.accuracy * self.count + 1) / (self.count + 2)
        return math.sqrt(share * (1 - share) / self.count)


def accuracy(model: nn.Module, dataset: Images, *, batch_size: int = 256, task: AnyTask | None = None) -> float:
    """Share of images whose largest output is their label, in [0, 1]. The model is left as it is.

    Of several outputs the first tensor (n, classes, ...) counts; where every position of an image has a label, an image
    counts by the share of its positions that are right. Where labels are numbers, also for outputs (n,), it is the
    share of their variance that is explained, item by item. task: how right an item is, where that is something else.
    """
    right, task = 0.0, task or task_of(dataset)
    device = _home(model)
    with undisturbed(model):
        for images, labels in batches(dataset, together(dataset, batch_size)):
            right += float(_judged(model, task, *_placed(model, images, labels, device))[1].sum())
    return right / size_of(dataset)


@memory_reused()
def judged(
    model: nn.Module,
    dataset: Images,
    *,
    most: int | None = None,
    batch_size: int = 256,
    task: AnyTask | None = None,
) -> Judged:
    """Loss and accuracy on all images, or on at most `most`. The model is left as it is.

    Raises:
        InputError: labels or outputs are not those of the task, by default that of the labels.
    """
    order = draw(size_of(dataset), most) if most is not None else None
    loss, right, count, guess, device = 0.0, 0.0, 0, 0.0, _home(model)
    task = task or task_of(dataset)
    with undisturbed(model):
        for images, labels in batches(dataset, together(dataset, batch_size), order):
            found, scores, guess = _judged(model, task, *_placed(model, images, labels, device))
            loss, right, count = loss + found * len(labels), right + float(scores.sum()), count + len(labels)
    return Judged(loss / count, right / count, count, guess)


def _judged(model: nn.Module, task: AnyTask, images: Any, labels: Any) -> tuple[float, Tensor, float]:
    """The mean loss of a batch, the scores (n,), and the loss of guesses. model: in eval mode."""
    if isinstance(task, ModelTask):
        loss, scores = task.judged(model, images, labels)
        return float(one_number(task, loss)), scores, task.guess_of(model)
    given = model(images)
    found = main_output(given)
    outputs, labels = class_outputs(found if found is not None else given).float().cpu(), labels.cpu()
    return float(one_number(task, task.loss(outputs, labels))), task.score(outputs, labels), task.guess(outputs)


def _placed(model: nn.Module, images: Any, labels: Any, device: torch.device) -> tuple[Any, Any]:
    """Images in the type of the model, and both where it lies."""

    def moved(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.to(device)
        if isinstance(value, dict):
            return {name: moved(inner) for name, inner in value.items()}
        return [moved(inner) for inner in value]

    many = isinstance(images, Tensor)
    cast = in_type_of(model, images) if many else [in_type_of(model, image) for image in images]
    return moved(cast), moved(labels)


def class_outputs(outputs: object) -> Tensor:
    """The tensor (n, classes, ...) that a model gave, alone or in a dict, a dataclass and the like.

    Raises:
        InputError: it gave something else, or several tensors, as with auxiliary heads.
    """
    tensors = tensors_of(outputs)
    if len(tensors) != 1 or not tensors[0].ndim:
        got = tuple(outputs.shape) if isinstance(outputs, Tensor) else f"a {type(outputs).__name__}"
        raise InputError(
            f"expected a model that gives (n, classes, ...), got {got}; give as `task` a class that calls the model "
            "itself, see nasprune.ModelTask, or train it with a loop of your own"
        )
    return tensors[0]


def learned_by_heart(model: nn.Module, train: Images, validation: Images, task: AnyTask | None = None) -> bool:
    """Whether validation images say nothing new of a network: it does as well on them as on those it was trained on.

    A network that was not trained on them is worse on them, by more than two standard errors, unless it is nearly
    always wrong or the task has no mistakes left to make.
    """
    seen, held = (judged(model, part, most=COMPARED, task=task) for part in (train, validation))
    gap = seen.accuracy - held.accuracy
    return seen.accuracy > 0.5 and gap <= 2 * math.hypot(seen.error, held.error) and held.loss <= 1.5 * seen.loss + 0.01


def _home(model: nn.Module) -> torch.device:
    return next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
