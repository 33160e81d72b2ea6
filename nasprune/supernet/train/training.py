"""Training a supernet: its weights and its architecture weights in turn, as DARTS does it, or single paths.

First-order bilevel training of Liu, Simonyan, Yang 2019, "DARTS: Differentiable Architecture Search",
arXiv:1806.09055: before each step of the weights on a batch of one half of the training images, the architecture
weights take a step on a batch of the other half. Departures: the learning rate of the weights falls to 0, not to 0.001;
images are not augmented; architecture weights that were switched off stay exactly where they are.

Single paths, uniformly drawn: Guo et al. 2020, "Single path one-shot neural architecture search with uniform sampling",
arXiv:1904.00420. Every step trains the weights of one random path, so that each network of the supernet can later be
judged with them; architecture weights rest. Departures: as above, and candidates are drawn equally often.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cache, partial
from random import Random
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from nasprune.base import Batch
from nasprune.common.allocation import memory_reused
from nasprune.common.losses import cross_entropy
from nasprune.common.untouched import twin
from nasprune.data import DataSplits
from nasprune.data.batches import batches
from nasprune.data.splits import size_of, subset
from nasprune.errors import InputError
from nasprune.supernet.cut.removal import OFF
from nasprune.supernet.find.alpha_slots import plain_tensors
from nasprune.supernet.score.paths import drawable, on_path, sites
from nasprune.supernet.score.scoring import batch_statistics
from nasprune.supernet.score.task import first_output
from nasprune.supernet.structure.refresh import refreshed
from nasprune.supernet.structure.structure import Structure
from nasprune.train.loops import Schedule, quiet, start_fabric
from nasprune.train.measures import accuracy
from nasprune.train.progress import Epoch

METHODS = ("bilevel", "paths")
BATCH = 64
ON_A_PATH = 32
"""Validation images for each random path."""
log = logging.getLogger(__name__)

Tensors = Callable[[nn.Module], list[Tensor]]
Draw = Callable[[nn.Module], AbstractContextManager[None]]
Images = Dataset[tuple[Tensor, int]]


@memory_reused()
def train(
    net: nn.Module,
    data: DataSplits,
    *,
    architecture: Tensors,
    epochs: int,
    draw: Draw | None = None,
    judged: Callable[[nn.Module], nn.Module] | None = None,
    lr: float = 0.025,
    arch_lr: float = 3e-4,
    batch_size: int = BATCH,
    warmup_epochs: int = 0,
    weight_decay: float = 3e-4,
    arch_weight_decay: float = 1e-3,
    clip: float = 5.0,
    seed: int,
    device: str = "auto",
    precision: str = "32-true",
    on_epoch: Callable[[Epoch], None] | None = None,
) -> nn.Module:
    """A trained copy of a supernet, as it is after the last epoch; `net` is left as it is.

    Args:
        net: gives logits (n, classes), alone or first of several outputs.
        data: the training part is used up in two halves, one for the weights and one for the architecture weights; the
            validation part is measured after each epoch; the others are not looked at.
        architecture: gives the architecture weights of a net: parameters, or plain tensors that it holds. Those that
            require no gradient rest. Without any, the weights train on the whole training part.
        epochs: passes over the weights' images, at least 1.
        draw: what each step of the weights runs in, given the net, such as `single_paths`; the architecture weights
            then rest, and the weights train on the whole training part.
        judged: gives, of the net, what is measured on the validation part, such as `random_paths`; by default its
            logits.
        lr, weight_decay: of SGD with momentum 0.9 for the weights; half a cosine, in `epochs`. clip: norm of their
            gradient.
        arch_lr, arch_weight_decay: of Adam with betas 0.5 and 0.999 for the architecture weights.
        batch_size: images a step, at least 2.
        warmup_epochs: the first ones, in which only the weights train.
        seed: of the halves, the order of images and dropout; torch's own random state is left as it was.
        device: "auto", "cpu", "cuda". precision: as Lightning Fabric names it, such as "bf16-mixed".
        on_epoch: called after every epoch; its loss is that of the weights' images.

    Returns:
        The trained net, in eval mode, on the device where `net` lies.

    Raises:
        InputError: an option is out of range, an architecture weight is computed, or the loss is no longer finite.
    """
    _check(epochs, batch_size, warmup_epochs, lr, arch_lr)
    home = next((tensor.device for tensor in net.parameters()), torch.device("cpu"))
    with quiet(), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        trained = twin(net)
        parts = _Parts.of(trained, architecture(trained))
        fabric = start_fabric(device, precision)
        generator = torch.Generator().manual_seed(seed)
        alone = draw is not None or not parts.architecture
        images, held = (data.train, None) if alone else _halves(data.train, generator)
        momentum = torch.optim.SGD(parts.weights, lr=lr, momentum=0.9, weight_decay=weight_decay)
        wrapped, momentum = fabric.setup(trained, momentum)
        parts.move(fabric.device)
        adam = None if alone else _adam(fabric, parts, arch_lr, arch_weight_decay)
        around = partial(draw, trained) if draw is not None else nullcontext
        step = _Step(fabric, wrapped, parts, momentum, adam, clip, around)
        rates = Schedule(lr, epochs * math.ceil(size_of(images) / batch_size))
        start = time.perf_counter()
        for number in range(1, epochs + 1):
            trained.train()
            others = _endless(held, batch_size, generator) if held is not None and number > warmup_epochs else None
            mean = _epoch(step, images, others, rates, batch_size, generator)
            if on_epoch is not None:
                reached = accuracy((judged or Logits)(trained), data.validation)
                on_epoch(Epoch(number, epochs, mean, reached, time.perf_counter() - start))
        trained.to(home)
        parts.move(home)
    return trained.eval()


def single_paths(structure: Structure, seed: int) -> Draw:
    """For every step one path in which each candidate of a choice, but what connects nothing, is equally likely."""
    rng = Random(seed)
    places = cache(lambda net: sites(net, structure.mixed, structure.choices))

    def draw(net: nn.Module) -> AbstractContextManager[None]:
        return on_path(places(net), {choice.name: rng.choice(drawable(choice)) for choice in structure.choices})

    return draw


def random_paths(structure: Structure, seed: int) -> Callable[[nn.Module], nn.Module]:
    """What gives, of a net, the logits of random single paths: every few images those of another one.

    A supernet that was trained on single paths is none as a whole: no step has seen its mixture, and the running
    statistics of its batch norms are of all paths together, so these are normalised by the batch.
    """
    draw = single_paths(structure, seed)
    return lambda net: _RandomPaths(net, draw)


def tuned(structure: Structure, epochs: int, *, data: DataSplits, seed: int) -> Structure:
    """The structure with its net trained for so many epochs, and with the architecture weights that it then has.

    Raises:
        InputError: as `train`.
    """

    def on_epoch(epoch: Epoch) -> None:
        log.info(
            "supernet: epoch %d of %d, loss %.4f, right on %.1f %% of the validation images",
            epoch.number,
            epoch.of,
            epoch.loss,
            100 * epoch.validation_accuracy,
        )

    net = train(
        structure.net,
        data,
        architecture=lambda net: architecture_of(structure, net),
        epochs=epochs,
        seed=seed,
        on_epoch=on_epoch,
    )
    return refreshed(replace(structure, net=net))


def architecture_of(structure: Structure, net: nn.Module) -> list[Tensor]:
    """The architecture weights of `net`, the structure's or a copy: whole tensors, each once.

    Those are the ones that the structure knows, and plain tensors that require gradients without being parameters, as
    DARTS' and PC-DARTS' code holds them.
    """
    known = [slot.tensor(net) for known in structure.logits.values() for slot in known.slots]
    return list({id(tensor): tensor for tensor in (*known, *plain_tensors(net).values())}.values())


class Logits(nn.Module):
    """A net of which only the first output counts."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        return first_output(self.net(images))


class _RandomPaths(Logits):
    def __init__(self, net: nn.Module, draw: Draw) -> None:
        super().__init__(net)
        self._draw = draw

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([self._on_path(some) for some in torch.split(images, ON_A_PATH)])

    def _on_path(self, images: Tensor) -> Tensor:
        with self._draw(self.net), batch_statistics(self.net) if len(images) > 1 else nullcontext():
            return super().forward(images)


@dataclass(frozen=True)
class _Parts:
    """What trains, told apart by identity. off: for each architecture tensor, which of its numbers are switched off."""

    weights: list[nn.Parameter]
    architecture: list[Tensor]
    off: list[Tensor]

    @classmethod
    def of(cls, net: nn.Module, architecture: Sequence[Tensor]) -> _Parts:
        for tensor in architecture:
            if not tensor.is_leaf:
                raise InputError(
                    f"an architecture weight of shape {tuple(tensor.shape)} is computed from others; give the tensor "
                    "that is trained"
                )
        theirs = {id(tensor) for tensor in architecture}
        weights = [one for one in net.parameters() if one.requires_grad and id(one) not in theirs]
        if not weights:
            raise InputError("the net has no weights that require gradients, so there is nothing to train")
        moving = [tensor for tensor in architecture if tensor.requires_grad]
        return cls(weights, moving, [tensor.detach() <= OFF / 2 for tensor in moving])

    def move(self, device: torch.device) -> None:
        """Plain tensors do not go with their module."""
        for tensor in self.architecture:
            tensor.data = tensor.data.to(device)
            tensor.grad = None

    def switch_off(self) -> None:
        """Weight decay would bring back what is switched off."""
        for tensor, off in zip(self.architecture, self.off, strict=True):
            tensor.data.masked_fill_(off.to(tensor.device), OFF)

    @contextmanager
    def only(self, tensors: Sequence[Tensor]) -> Iterator[None]:
        """Inside, of all that trains only these require gradients; those start at nothing."""
        resting = [one for one in (*self.weights, *self.architecture) if not any(one is other for other in tensors)]
        for one in resting:
            one.requires_grad_(False)
        for tensor in tensors:
            tensor.grad = None
        try:
            yield
        finally:
            for one in resting:
                one.requires_grad_(True)


@dataclass(frozen=True)
class _Step:
    """One step of either kind; each gives its loss."""

    fabric: Any
    net: nn.Module
    parts: _Parts
    momentum: torch.optim.Optimizer
    adam: torch.optim.Optimizer | None
    clip: float
    around: Callable[[], AbstractContextManager[None]]

    def weights(self, batch: Batch, rate: float) -> Tensor:
        for group in self.momentum.param_groups:
            group["lr"] = rate
        with self.parts.only(self.parts.weights):
            with self.around():
                loss = self._loss(batch)
            self.fabric.backward(loss)
            self.fabric.clip_gradients(self.net, self.momentum, max_norm=self.clip, error_if_nonfinite=False)
            self.momentum.step()
        return loss.detach()

    def architecture(self, batch: Batch) -> None:
        if self.adam is None:
            return
        with self.parts.only(self.parts.architecture):
            loss = self._loss(batch)
            if not loss.requires_grad:  # the output no longer depends on any of them
                return
            self.fabric.backward(loss)
            self.adam.step()
        self.parts.switch_off()

    def _loss(self, batch: Batch) -> Tensor:
        images, labels = (self.fabric.to_device(part) for part in batch)
        return cross_entropy(first_output(self.net(images)).float(), labels)


def _adam(fabric: Any, parts: _Parts, lr: float, weight_decay: float) -> torch.optim.Optimizer | None:
    if not parts.architecture:
        return None
    made = torch.optim.Adam(parts.architecture, lr=lr, betas=(0.5, 0.999), weight_decay=weight_decay)
    return fabric.setup_optimizers(made)  # type: ignore[no-any-return]


def _halves(dataset: Images, generator: torch.Generator) -> tuple[Images, Images]:
    order = torch.randperm(size_of(dataset), generator=generator, device="cpu").tolist()
    half = len(order) // 2
    if half < 2:
        raise InputError(f"expected at least 4 training images to divide in two halves, got {len(order)}")
    return subset(dataset, sorted(order[:half])), subset(dataset, sorted(order[half:]))


def _shuffled(dataset: Images, size: int, generator: torch.Generator) -> Iterator[Batch]:
    """All images once; a last batch of one is left out, because batch norm cannot train on it."""
    order = torch.randperm(size_of(dataset), generator=generator, device="cpu").tolist()
    return (batch for batch in batches(dataset, size, order) if len(batch[1]) > 1)


def _endless(dataset: Images, size: int, generator: torch.Generator) -> Iterator[Batch]:
    while True:
        yield from _shuffled(dataset, size, generator)


def _epoch(
    step: _Step,
    images: Images,
    others: Iterator[Batch] | None,
    rates: Schedule,
    batch_size: int,
    generator: torch.Generator,
) -> float:
    total, seen = 0.0, 0
    for batch in _shuffled(images, batch_size, generator):
        if others is not None:
            step.architecture(next(others))
        loss = step.weights(batch, rates.next())
        total += float(loss) * len(batch[1])
        seen += len(batch[1])
    if not math.isfinite(total):
        raise InputError(f"the loss is {total / seen} after an epoch; use a lower `lr` than {rates.lr}")
    return total / seen


def _check(epochs: int, batch_size: int, warmup_epochs: int, lr: float, arch_lr: float) -> None:
    rules = (
        ("epochs", epochs, epochs >= 1, "at least 1"),
        ("batch_size", batch_size, batch_size >= 2, "at least 2"),
        ("warmup_epochs", warmup_epochs, warmup_epochs >= 0, "at least 0"),
        ("lr", lr, lr > 0, "above 0"),
        ("arch_lr", arch_lr, arch_lr > 0, "above 0"),
    )
    for name, value, holds, rule in rules:
        if not holds:
            raise InputError(f"`{name}` must be {rule}, got {value}")
