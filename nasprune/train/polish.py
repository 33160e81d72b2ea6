"""Polish: gradient steps on unlabelled images that bring a cut network back to what the dense one computes.

One loss for the whole cut network: at every tap the squared distance of its output from what the dense network gives
for the channels that stay, relative to the size of the latter, summed over the taps; and the divergence of the
outputs softened by a temperature of 4 (Hinton, Vinyals, Dean 2015, arXiv:1503.02531). Gradients pass through the whole
net, as in the global step of Frantar, Alistarh 2022, "SPDY", arXiv:2201.13096. Departures: Adam with a warm-up and half
a cosine; blocks are taps, too; batch norms keep the statistics that the refit has set; images are mirrored where the
dense net does not mind, and half of them blended with others; the weights that count are an exponential average over
the steps; and images that no step sees decide, by the divergence of the outputs, when to stop and which weights are
returned: those of the start where nothing came nearer to the dense net.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, Dataset

from nasprune.common.accepted import accepted
from nasprune.common.allocation import memory_reused
from nasprune.common.arguments import number, refused, whole_number
from nasprune.common.calls import in_type_of
from nasprune.common.randomness import own_randomness, seed_all
from nasprune.common.untouched import in_eval, twin
from nasprune.cost.units import number_of
from nasprune.cut.weight_masks import WeightMasks
from nasprune.data import load_data
from nasprune.data.batches import batches, draw
from nasprune.data.load import DataSource
from nasprune.data.scales import variances
from nasprune.data.splits import size_of
from nasprune.errors import InputError
from nasprune.graph.capture import submodule
from nasprune.train.alike import unlabelled
from nasprune.train.augmenting import Augment, batch_change
from nasprune.train.averaging import Average
from nasprune.train.found import Found, as_found
from nasprune.train.loops import Schedule, fast_precision
from nasprune.train.nearness import Nearness, speaks
from nasprune.train.pace import steps_within
from nasprune.train.taps import check_dense, taps

STEPS = 800
MOST = 3200  # where there is time for them
FEWEST = 200  # that are begun with where time is limited: half as many gained nothing
RATE = 5e-4
IMAGES = 4096  # that the steps see at most
NUMBERS = 2**27  # that the images consist of at most
HELD_OUT = 512  # that decide
CHECKS = 8
PATIENCE = 3  # checks in a row without anything better, in the second half: most nets get worse at first
DECAY = 0.98  # of the average of weights
CLIP = 1.0  # norm of the gradient
WORSE = 4.0  # times the start's divergence, from which on the rate is too high
LOWER = 0.1  # times the rate, after that
ATTEMPTS = 4
NOTHING = 1e-5  # nats, or relative squared error of the taps, below which there is nothing to gain
ASKED = 256  # of them, for whether the dense network minds mirror images
MIXED = ("auto", "32-true", "bf16-mixed")


@dataclass(frozen=True)
class PolishStep:
    """How far it is. divergence: of the averaged weights on held-out images; best: the lowest; seconds: so far."""

    number: int
    of: int
    loss: float
    divergence: float
    best: float
    rate: float
    seconds: float


@dataclass(frozen=True)
class Polished:
    """A polished network, in eval mode, and what came of it.

    before, after: divergence from the dense network on held-out images, in nats (of the taps where outputs are not
    compared: their relative squared errors); never worse after. kept: the step whose weights these are, 0 is the start.
    steps: that were taken. notes: what should be said.
    """

    model: nn.Module = field(repr=False)
    before: float
    after: float
    kept: int
    steps: int
    seconds: float
    notes: tuple[str, ...] = ()


@torch.inference_mode(mode=False)
def polish(
    found: Found | nn.Module,
    teacher: nn.Module,
    data: DataSource,
    *,
    steps: int | None = None,
    lr: float = RATE,
    batch_size: int = 64,
    augment: Augment | Literal["auto"] | None = "auto",
    precision: str = "auto",
    seed: int = 0,
    time_limit: float | None = None,
    on_step: Callable[[PolishStep], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Polished:
    """Brings a cut network nearer to the dense one, on images without labels; `found` and `teacher` stay as they are.

    Args:
        found: what `nasprune.search` returned, whose zeros inside of weights stay zero, or a cut network: of that only
            outputs, and features that are as wide as the dense network's, can be compared.
        teacher: the dense network.
        data: as for `nasprune.search`; labels are not read. At most 4,096 images of the training and calibration parts
            are learned from; 512 of the validation part decide. The test part is not looked at.
        steps: at most, at least 8; by default 800, and with a limit of time as many as fit, up to 3,200.
        lr: highest learning rate of Adam. Where it drives the network away from the dense one, polishing starts again
            with a lower one.
        batch_size: images a step, at least 1.
        augment: as for `nasprune.finetune`; "auto" mirrors half of the images, where the dense network says the same of
            nine in ten mirror images, and blends half of a batch with other images. None leaves images as they are.
        precision: "32-true", "bf16-mixed", or "auto" for the latter where the device is faster with it.
        seed: of the order of images and of augmentation; global random states are left as they were.
        time_limit: seconds that it may take, loading included: as many steps are planned as fit, and none where these
            are fewer than 200, or than `steps`.
        on_step: called after every check, of which there are eight.
        should_stop: asked after every step; where it says so, the best so far is the result.

    Raises:
        InputError: an argument cannot be used, or there is nothing to compare the networks by.
    """
    result = as_found(found)
    start = accepted(result.model if result is not None else found, "found")
    dense = accepted(teacher, "teacher")
    steps = (STEPS if time_limit is None else MOST) if steps is None else steps
    _check(steps=steps, lr=lr, batch_size=batch_size, precision=precision, time_limit=time_limit, seed=seed)
    began = time.perf_counter()
    splits = load_data(data, seed=seed, model=dense)
    home = next((value.device for value in start.parameters()), torch.device("cpu"))
    with own_randomness(start):
        seed_all(seed, start)
        learned: Dataset[tuple[Tensor, int]] = ConcatDataset([splits.train, splits.calibration])
        images = _inputs(learned, IMAGES, start, home)
        held = _inputs(splits.validation, HELD_OUT, start, home)
        near = replace(
            _nearness(result, dense, start, held, precision, home), variance=variances(dense, splits.validation)
        )
        run = _Run(
            near=near,
            masks=result.plan.masks.below(result.plan.scope) if result is not None else WeightMasks(),
            images=images,
            held=torch.split(held, 128),
            steps=steps,
            batch_size=batch_size,
            change=unlabelled(near, held[:ASKED]) if augment == "auto" else batch_change(augment),
            seed=seed,
            on_step=on_step,
            should_stop=should_stop,
            began=began,
            until=math.inf if time_limit is None else began + time_limit,
        )
        return run.polished(start, lr)


def _inputs(dataset: Dataset[tuple[Tensor, int]], count: int, model: nn.Module, home: torch.device) -> Tensor:
    """At most `count` images, where the model is and in its type."""
    first, _ = next(batches(dataset, 1))
    order = draw(size_of(dataset), min(count, max(1, NUMBERS // first.numel())))
    parts = [inputs for inputs, _ in batches(dataset, 128, order)]
    if not all(isinstance(part, Tensor) and part.shape[1:] == parts[0].shape[1:] for part in parts):
        raise InputError("polish learns from images of one size, and these differ; resize or cut them in the data set")
    found = torch.cat(parts)
    if not bool(found.isfinite().all()):
        raise InputError("some images hold NaN or infinite values; give images that are finite")
    return in_type_of(model, found).to(home)


def _nearness(
    found: Found | None, dense: nn.Module, start: nn.Module, held: Tensor, precision: str, home: torch.device
) -> Nearness:
    teacher = twin(dense).to(home).eval().requires_grad_(False)
    graph, plan = (found.graph, found.plan) if found is not None else (None, None)
    where = taps(graph, plan, submodule(teacher, graph.scope)) if graph is not None and plan is not None else ()
    spoken = speaks(teacher, start, held[:2])
    if found is not None:
        check_dense(found.plan, teacher, "give the network that was searched")
    if not where and not spoken:
        raise InputError(
            "there is nothing to compare the networks by: their outputs have other shapes; give what nasprune.search "
            "returned, and its dense network as the teacher"
        )
    mixed = (fast_precision(home) if precision == "auto" else precision) == "bf16-mixed"
    single = held.dtype == torch.float32
    return Nearness(teacher, where, graph.scope if graph is not None else None, spoken, mixed and single)


class _Diverged(Exception):
    """The rate is too high."""


@dataclass
class _Run:
    """The loop, with all that stays the same between attempts."""

    near: Nearness
    masks: WeightMasks
    images: Tensor
    held: Sequence[Tensor]
    steps: int
    batch_size: int
    change: Augment
    seed: int
    on_step: Callable[[PolishStep], None] | None
    should_stop: Callable[[], bool] | None
    began: float
    until: float = math.inf
    taken: int = 0

    @memory_reused()
    def polished(self, start: nn.Module, lr: float) -> Polished:
        """The best that an attempt gave."""
        before = self.near.measure(start, self.held)
        notes: list[str] = []
        best, after, kept = twin(start).eval(), before, 0
        if before < NOTHING:
            note = "polish: the network already gives what the dense one gives on held-out images, so nothing was done"
            return Polished(best, before, after, 0, 0, time.perf_counter() - self.began, (note,))
        if self.until < math.inf:
            fitting = self._fitting(start, lr)
            if fitting < min(FEWEST, self.steps):
                note = (
                    f"polish: the time that is left is enough for {number_of(fitting, 'step')}, and fewer than "
                    f"{min(FEWEST, self.steps)} gain nothing; give more time"
                )
                return Polished(best, before, after, 0, 0, time.perf_counter() - self.began, (note,))
            self.steps = min(fitting, self.steps)
        for attempt in range(ATTEMPTS):
            rate = lr * LOWER**attempt
            try:
                best, after, kept = self._attempt(start, rate, before)
                break
            except _Diverged:
                notes.append(f"polish: a rate of {rate:g} drove the network away from the dense one; it was lowered")
        if not kept:
            notes.append(
                "polish: nothing came nearer to the dense network on held-out images, so the weights are those before"
            )
        return Polished(best, before, after, kept, self.taken, time.perf_counter() - self.began, tuple(notes))

    def _fitting(self, start: nn.Module, rate: float) -> int:
        """How many steps fit into the time that is left."""
        student = twin(start)
        weights = _trainable(student, self.near)
        optimizer = torch.optim.Adam(weights, lr=rate)
        images = next(self._batches(torch.Generator().manual_seed(self.seed)))

        def step() -> None:
            with in_eval(student), suppress(_Diverged):
                self._step(student, weights, optimizer, rate, images)

        left = self.until - time.perf_counter()
        return steps_within(left, step, lambda: self.near.measure(student, self.held), CHECKS)

    def _attempt(self, start: nn.Module, rate: float, before: float) -> tuple[nn.Module, float, int]:
        """The best weights at a rate, their divergence and their step. Raises _Diverged where it is too high."""
        student = twin(start)
        weights = _trainable(student, self.near)
        optimizer = torch.optim.Adam(weights, lr=rate)
        schedule, average = Schedule(rate, self.steps, 0.05), Average(start, DECAY)
        best, after, kept, losses = twin(start).eval(), before, 0, []
        generator = torch.Generator().manual_seed(self.seed)
        every, since = max(1, self.steps // CHECKS), 0
        with in_eval(student):
            for step, images in zip(range(1, self.steps + 1), self._batches(generator), strict=False):
                losses.append(self._step(student, weights, optimizer, schedule.next(), images))
                average.add(student)
                self.taken += 1
                asked = self.should_stop is not None and self.should_stop()
                stopping = asked or time.perf_counter() > self.until
                if step % every and step != self.steps and not stopping:
                    continue
                reached = self.near.measure(average.net, self.held)
                if not math.isfinite(reached) or reached > WORSE * before + 1e-6:
                    raise _Diverged
                since = 0 if reached < after or step < self.steps // 2 else since + 1
                if reached < after:
                    best, after, kept = twin(average.net), reached, step
                self._say(step, sum(losses) / len(losses), reached, after, optimizer.param_groups[0]["lr"])
                losses.clear()
                if since == PATIENCE or stopping:
                    break
        return _as_before(best, start), after, kept

    def _step(
        self, student: nn.Module, weights: list[nn.Parameter], optimizer: torch.optim.Optimizer, rate: float, x: Tensor
    ) -> float:
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        loss = self.near.loss(student, x)
        if not math.isfinite(float(loss.detach())):
            raise _Diverged
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(weights, CLIP)
        optimizer.step()
        self.masks.hold(student)
        return float(loss.detach())

    def _batches(self, generator: torch.Generator) -> Iterator[Tensor]:
        size = min(self.batch_size, len(self.images))
        while True:
            order = torch.randperm(len(self.images), generator=generator, device="cpu")
            for chosen in torch.split(order[: len(order) - len(order) % size], size):
                yield self.change(self.images[chosen.to(self.images.device)], generator)

    def _say(self, step: int, loss: float, reached: float, best: float, rate: float) -> None:
        if self.on_step is not None:
            self.on_step(PolishStep(step, self.steps, loss, reached, best, rate, time.perf_counter() - self.began))


def _trainable(student: nn.Module, near: Nearness) -> list[nn.Parameter]:
    """Its weights, which take gradients from now on: those of the part that was cut where no more is compared."""
    trained = student if near.speaks else submodule(student, near.scope)
    weights = [weight for weight in trained.parameters() if weight.is_floating_point()]
    for weight in weights:
        weight.requires_grad_(True)
    return weights


def _as_before(model: nn.Module, start: nn.Module) -> nn.Module:
    """The network in eval mode, with gradients asked for where the start asks for them."""
    for own, other in zip(model.parameters(), start.parameters(), strict=True):
        own.requires_grad_(other.requires_grad)
    return model.eval()


def _check(*, steps: int, lr: float, batch_size: int, precision: str, time_limit: float | None, seed: int) -> None:
    whole_number("seed", seed, "write for example seed=0")
    whole_number("steps", steps, "write for example steps=800")
    whole_number("batch_size", batch_size, "write for example batch_size=64")
    number("lr", lr, "write for example lr=5e-4")
    if time_limit is not None:
        number("time_limit", time_limit, "give seconds, for example time_limit=600")
    if precision not in MIXED:
        raise refused("precision", f"one of {', '.join(MIXED)}", precision, "leave it out")
    rules = (
        ("steps", steps, steps >= CHECKS, f"at least {CHECKS}"),
        ("batch_size", batch_size, batch_size >= 1, "at least 1"),
        ("lr", lr, 0 < lr < math.inf, "above 0"),
        ("time_limit", time_limit, time_limit is None or 0 < time_limit < math.inf, "above 0"),
    )
    for name, value, holds, rule in rules:
        if not holds:
            raise InputError(f"`{name}` must be {rule}, got {value}")
