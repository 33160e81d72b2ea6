"""Training a network, from scratch or after a cut, with its labels and if wanted with a teacher.

Distillation follows Hinton, Vinyals, Dean 2015, "Distilling the knowledge in a neural network", arXiv:1503.02531: the
student matches the teacher's outputs softened by a temperature T, weighted by T² so that gradients keep their size, and
also the labels. Departure: the weight of the two terms is one share, `soft_share`. The schedule is a linear warm-up,
then half a cosine (Loshchilov, Hutter 2017, arXiv:1608.03983, without restarts).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from nasprune.common.accepted import accepted
from nasprune.common.arguments import number, whole_number
from nasprune.common.calls import in_type_of, main_output
from nasprune.common.losses import cross_entropy
from nasprune.common.randomness import own_randomness
from nasprune.common.untouched import twin, undisturbed
from nasprune.data import DataSplits
from nasprune.data.batches import batches
from nasprune.data.load import DataSource, check_fits
from nasprune.data.splits import size_of
from nasprune.errors import InputError
from nasprune.models.weights import copy_into
from nasprune.train.augmenting import Augment, batch_change
from nasprune.train.fitness import check_teacher, check_trainable, training_parts
from nasprune.train.loops import Schedule, quiet, start_fabric


@dataclass(frozen=True)
class Epoch:
    """One epoch of training. number counts from 1; loss: mean over the training images; seconds: since the start."""

    number: int
    of: int
    loss: float
    validation_accuracy: float
    seconds: float


def finetune(
    model: nn.Module,
    data: DataSource,
    *,
    epochs: int = 10,
    lr: float = 0.05,
    batch_size: int = 64,
    teacher: nn.Module | None = None,
    temperature: float = 4.0,
    soft_share: float = 0.9,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    warmup: float = 0.1,
    augment: Augment | None = None,
    input_size: int | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: str = "32-true",
    on_epoch: Callable[[Epoch], None] | None = None,
) -> nn.Module:
    """A new network with the weights of the epoch that did best on the validation part; `model` is left as it is.

    The starting weights take part in that choice, so the result is never worse there. The test part is not looked at.

    Args:
        model: what to train; its output is (N, classes).
        data: as for `nasprune.search`. Of a name or `DataSplits` the training part is trained on; of data of your own
            all but a tenth, which chooses the epoch, and but what you gave as a test part. What is held back is logged.
        epochs: passes over the training part, at least 1.
        lr: highest learning rate, for SGD with Nesterov momentum.
        batch_size: images a step, at least 2.
        teacher: a network with the same outputs to learn from as well, or `None`.
        temperature: softens the outputs of both nets, above 0. soft_share: weight of the teacher's term, in [0, 1].
        momentum, weight_decay: of SGD; biases and norm weights do not decay. warmup: share of the steps, in [0, 1).
        augment: changes a batch of images, given a seeded generator, such as `nasprune.data.augment.flip_and_shift`, or
            one image tensor, as transforms of torchvision do; the shape stays.
        input_size: pixels of a side, for a data set name that resizes; else what the source says.
        seed: of the order of images, of augmentation and of dropout; torch's own random state is left as it was.
        device: "auto", "cpu", "cuda". precision: as Lightning Fabric names it, such as "bf16-mixed".
        on_epoch: called after every epoch.

    Returns:
        The trained network, in eval mode, on the device where `model` lies.

    Raises:
        InputError: an option is out of range, the model takes no gradients, the teacher has other outputs, or the loss
        is no longer finite.
    """
    model = accepted(model)
    teacher = accepted(teacher, "teacher") if teacher is not None else None
    _check(epochs=epochs, batch_size=batch_size, lr=lr, temperature=temperature, soft_share=soft_share, warmup=warmup)
    parts = training_parts(data, seed=seed, input_size=input_size, model=model)
    check_fits(model, parts, name=type(model).__name__)
    check_trainable(model)
    if teacher is not None:
        check_teacher(model, teacher, parts)
    change = batch_change(augment)
    home = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    with quiet(), own_randomness(model), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        student = twin(model)
        fabric = start_fabric(device, precision)
        optimizer = torch.optim.SGD(_decayed(student, weight_decay), lr=lr, momentum=momentum, nesterov=momentum > 0)
        wrapped, optimizer = fabric.setup(student, optimizer)
        loss = _Loss(teacher, temperature, soft_share, fabric)
        best, best_accuracy = _state(student), accuracy(student, parts.validation)
        generator = torch.Generator().manual_seed(seed)
        steps = Schedule(lr, epochs * math.ceil(size_of(parts.train) / batch_size), warmup)
        start = time.perf_counter()
        for number in range(1, epochs + 1):
            student.train()
            mean = _epoch(fabric, wrapped, optimizer, loss, steps, parts, batch_size, change, generator)
            reached = accuracy(student, parts.validation)
            if reached >= best_accuracy:
                best, best_accuracy = _state(student), reached
            if on_epoch is not None:
                on_epoch(Epoch(number, epochs, mean, reached, time.perf_counter() - start))
        result = twin(model)
        copy_into(result, best)
    return result.to(home).eval()


def accuracy(model: nn.Module, dataset: Dataset[tuple[Tensor, int]], *, batch_size: int = 256) -> float:
    """Share of images whose largest output is their label, in [0, 1]. The model is left as it is.

    Of several outputs the first tensor (n, classes) counts.
    """
    device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    right = 0
    with undisturbed(model):
        for images, labels in batches(dataset, batch_size):
            right += int(
                (_classes(main_output(model(in_type_of(model, images).to(device)))).argmax(1).cpu() == labels).sum()
            )
    return right / size_of(dataset)


def _classes(outputs: object) -> Tensor:
    """Raises InputError unless a model gave one tensor of outputs (n, classes)."""
    if not isinstance(outputs, Tensor) or outputs.ndim != 2:
        got = tuple(outputs.shape) if isinstance(outputs, Tensor) else f"a {type(outputs).__name__}"
        raise InputError(f"expected a model that gives (n, classes), got {got}; train it with a loop of your own")
    return outputs


class _Loss:
    """Cross-entropy with the labels, mixed with the distance to the teacher."""

    def __init__(self, teacher: nn.Module | None, temperature: float, soft_share: float, fabric: Any) -> None:
        self.teacher = twin(teacher).to(fabric.device).eval() if teacher is not None else None
        self.temperature = temperature
        self.soft_share = soft_share
        self.fabric = fabric

    def __call__(self, images: Tensor, outputs: Tensor, labels: Tensor) -> Tensor:
        """images (n, ...), outputs (n, classes), labels (n,)."""
        hard = cross_entropy(outputs, labels)
        if self.teacher is None:
            return hard
        with torch.no_grad(), self.fabric.autocast():
            target = self.teacher(images).float()
        soft = functional.kl_div(
            functional.log_softmax(outputs / self.temperature, 1),
            functional.log_softmax(target / self.temperature, 1),
            reduction="batchmean",
            log_target=True,
        )
        return (1 - self.soft_share) * hard + self.soft_share * self.temperature**2 * soft


def _epoch(
    fabric: Any,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: _Loss,
    schedule: Schedule,
    parts: DataSplits,
    batch_size: int,
    change: Augment,
    generator: torch.Generator,
) -> float:
    order = torch.randperm(size_of(parts.train), generator=generator).tolist()
    total, seen = 0.0, 0
    for images, labels in batches(parts.train, batch_size, order):
        rate = schedule.next()
        if len(labels) < 2 and seen:  # batch norm cannot train on one image
            continue
        for group in optimizer.param_groups:
            group["lr"] = rate
        images = fabric.to_device(change(images, generator))
        labels = fabric.to_device(labels)
        optimizer.zero_grad()
        value = loss(images, _classes(model(images)).float(), labels)
        fabric.backward(value)
        optimizer.step()
        total += float(value.detach()) * len(labels)
        seen += len(labels)
    if not math.isfinite(total):
        raise InputError(f"the loss is {total / seen} after an epoch; use a lower `lr` than {schedule.lr}")
    return total / seen


def _decayed(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    matrices = [parameter for parameter in model.parameters() if parameter.requires_grad and parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.requires_grad and parameter.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _check(*, epochs: int, batch_size: int, lr: float, temperature: float, soft_share: float, warmup: float) -> None:
    for name, given in (("epochs", epochs), ("batch_size", batch_size)):
        whole_number(name, given, f"write for example {name}=64")
    for name, rate in (("lr", lr), ("temperature", temperature), ("soft_share", soft_share), ("warmup", warmup)):
        number(name, rate, f"write for example {name}=0.5")
    rules = (
        ("epochs", epochs, epochs >= 1, "at least 1"),
        ("batch_size", batch_size, batch_size >= 2, "at least 2"),
        ("lr", lr, lr > 0, "above 0"),
        ("temperature", temperature, temperature > 0, "above 0"),
        ("soft_share", soft_share, 0 <= soft_share <= 1, "in [0, 1]"),
        ("warmup", warmup, 0 <= warmup < 1, "in [0, 1)"),
    )
    for name, value, holds, rule in rules:
        if not holds:
            raise InputError(f"`{name}` must be {rule}, got {value}")
