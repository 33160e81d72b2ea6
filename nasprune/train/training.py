"""The story of a training: epoch after epoch, back to the last good one where it diverges, and which weights count."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from nasprune.common.allocation import memory_reused
from nasprune.common.randomness import generators, seed_all, set_generators
from nasprune.cost.units import percent
from nasprune.data import DataSplits
from nasprune.data.batches import batches, grouped
from nasprune.data.splits import size_of
from nasprune.errors import InputError
from nasprune.train.augmenting import Augment
from nasprune.train.loops import Schedule
from nasprune.train.measures import Judged, judged, learned_by_heart
from nasprune.train.mixing import Mixing
from nasprune.train.partners import Memory, Partner
from nasprune.train.progress import Epoch, OnEpoch, OnStep, TrainingStep
from nasprune.train.recipe import Recipe
from nasprune.train.resume import SAVE_EVERY, THEN, Keeper, Position, State, Within
from nasprune.train.targets import AnyTask
from nasprune.train.team import steps_of
from nasprune.train.tuner import Diverged, Tuner

LOWER = 0.1  # times the rate, after each step back
BACKS = 5  # until it is given up
EXPLODED = 3.0  # times the loss of the first step, or of guesses, in training
TAKEN = 30.0  # the same beside a partner: what it takes away costs more than that for a while, a teacher's part most
SEGMENT = 64  # steps of an epoch, after which nothing is read ahead, so that its state may be written
WORSE = 0.35  # of the loss of guesses, that an epoch may add to the loss on validation images


class _Stopped(Exception):
    """The caller asked to stop."""


@dataclass
class Training:
    """All that one training needs.

    top: the highest rate. task: what labels are judged by. mixed: makes one of several images, after `change`.
    reference: the network that may know validation images.
    partner: has begun; changes the network after every step, so that no judgement of its weights is passed before the
    end, and the last ones count.
    """

    tuner: Tuner
    recipe: Recipe
    top: float
    parts: DataSplits
    task: AnyTask
    change: Augment
    mixed: Mixing
    seed: int
    keeper: Keeper
    reference: nn.Module
    on_epoch: OnEpoch | None
    on_step: OnStep | None
    should_stop: Callable[[], bool] | None
    partner: Partner | None = None
    save_every: float = SAVE_EVERY
    position: Position = field(default_factory=Position)
    good: dict[str, Tensor] = field(default_factory=dict)
    began: float = 0.0
    saved: float = 0.0
    on_the_way: State | None = None

    @cached_property
    def _inside(self) -> Keeper:
        """Of the epoch on its way."""
        return self.keeper.within()

    @memory_reused()
    def run(self) -> tuple[dict[str, Tensor], tuple[str, ...]]:
        """The weights and buffers of the result, and what should be said."""
        self.began = self.saved = time.perf_counter()
        if self.partner is not None:
            self.tuner.after = self.partner.step
            self.partner.keep()
        start = self._state()
        earlier = self.tuner.team.agreed(self.keeper.found() if self.tuner.team.is_first else None)
        if earlier is None:
            first = judged(self.tuner.student, self.parts.validation, task=self.task)
            self.position = Position(start_loss=first.loss, start_accuracy=first.accuracy, guess=first.guess)
            if not math.isfinite(first.loss):
                raise InputError(
                    f"the loss on validation images is {first.loss} before any training: images or weights hold NaN or "
                    "infinite values, or values far from those of training; mend the data or the weights"
                )
            self.good = start
        else:
            self.position, self.good = earlier.position, _whole(earlier.tensors, start)
            self.tuner.restore(self._tuners(self.good), self.position.steps)
            if self.partner is not None and earlier.memory.words:
                self.partner.read(earlier.memory, self.position.steps)
                self.partner.keep()
        self._go_on_within()
        try:
            while not self.position.ended and len(self.position.epochs) < self.recipe.epochs:
                self._next()
        except _Stopped:
            self.position = self.position.noted(f"stopped after {len(self.position.epochs)} whole epochs, as asked")
            if self.partner is not None:
                self._restore()
        return self._chosen(start)

    def _next(self) -> None:
        """One more epoch, or one step back."""
        number = len(self.position.epochs) + 1
        try:
            loss, rate = self._epoch(number)
            self.tuner.team.align(self.tuner.student, self.tuner.average.net)
            net = self.tuner.average.net if self.partner is None else self.tuner.student
            reached = self.tuner.team.agreed(judged(net, self.parts.validation, task=self.task))
            if not reached.loss <= self._limit():
                raise Diverged
        except Diverged:
            self._back(number)
            return
        epoch = Epoch(
            number=number,
            of=self.recipe.epochs,
            loss=loss,
            validation_accuracy=reached.accuracy,
            seconds=time.perf_counter() - self.began,
            validation_loss=reached.loss,
            rate=rate,
            note=self.position.notes[-1] if self.position.notes else "",
        )
        better = reached.accuracy >= max(self.position.best_accuracy, self.position.start_accuracy)
        self.position = replace(
            self.position,
            steps=self.tuner.steps,
            epochs=(*self.position.epochs, epoch),
            best=number if better else self.position.best,
            best_accuracy=reached.accuracy if better else self.position.best_accuracy,
        )
        self.good = self._state() if better else self._state() | _below(self.good, "best", keep=True)
        self._keep()
        if self.partner is not None:
            self.partner.keep()
        if self.on_epoch is not None and self.tuner.team.is_first:
            self.on_epoch(epoch)

    def _back(self, number: int) -> None:
        rate = self.top * LOWER**self.position.backs
        where = f"epoch {number - 1}" if number > 1 else "the start"
        if self.position.backs == BACKS:
            note = f"training diverged in epoch {number} even with a rate of {rate:.1g}; it ended with {where}"
            self.position = replace(self.position.noted(note), ended=True)
        else:
            note = f"a rate of {rate:.2g} diverged in epoch {number}: back to {where}, on with {rate * LOWER:.2g}"
            self.position = replace(self.position.noted(note), backs=self.position.backs + 1)
        self._restore()
        self._keep()

    def _keep(self) -> None:
        """On the disk, where there is a place."""
        if self.keeper.folder is not None and self.tuner.team.is_first:
            memory = self.partner.written() if self.partner is not None else Memory()
            self.keeper.keep(State(self.position, self.good, memory))
            self._inside.drop()
            self.saved = time.perf_counter()

    def _go_on_within(self) -> None:
        """Takes what was written of the next epoch; what was written of another is dropped."""
        if self.tuner.team.size > 1:
            return
        found = self._inside.found()
        now = len(self.position.epochs), self.position.backs
        if found is not None and (len(found.position.epochs), found.position.backs) == now:
            self.on_the_way = found
        else:
            self._inside.drop()

    def _keep_within(self, within: Within, generator: torch.Generator) -> None:
        """The state of an epoch on its way, where one process trains and the last state is old."""
        old = time.perf_counter() - self.saved >= self.save_every
        if self.keeper.folder is None or self.tuner.team.size > 1 or not old:
            return
        drawn = {**generators(self.tuner.student), "images": generator.get_state()}
        tensors = {**_above("tuner", self.tuner.state()), **_above("drawn", drawn)}
        memory = self.partner.written() if self.partner is not None else Memory()
        known = within if math.isfinite(within.right) else replace(within, right=0.0)  # unknown of losses alone
        self._inside.keep(State(self.position, tensors, memory, known))
        self.saved = time.perf_counter()

    def _begun(self, generator: torch.Generator) -> Within:
        """How far the epoch is that was on its way when an earlier run ended; its state is that of then."""
        found, self.on_the_way = self.on_the_way, None
        if found is None:
            return Within()
        self.position = found.position
        self.tuner.restore(_below(found.tensors, "tuner"), self.position.steps + found.within.steps)
        if self.partner is not None and found.memory.words:
            self.partner.read(found.memory, self.position.steps + found.within.steps)
        drawn = _below(found.tensors, "drawn")
        generator.set_state(drawn["images"])
        set_generators(self.tuner.student, drawn)
        return found.within

    def _restore(self) -> None:
        """As after the last good epoch."""
        self.tuner.restore(self._tuners(self.good), self.position.steps)
        if self.partner is not None:
            self.partner.back()

    def _epoch(self, number: int) -> tuple[float, float]:
        """The mean loss, and the last rate. Raises Diverged."""
        images_of, size = self.parts.train, self.recipe.batch_size
        seed = (self.seed * 1_000_003 + number * 1_009 + self.position.backs) % 2**63
        generator = torch.Generator().manual_seed(seed)
        seed_all(seed, self.tuner.student)
        order = torch.randperm(size_of(images_of), generator=generator, device="cpu").tolist()
        team, together = self.tuner.team, self.recipe.accumulate
        if team.rank:  # every process changes its images in its own way
            generator.manual_seed(seed + team.rank)
            seed_all(seed + team.rank, self.tuner.student)
        steps = steps_of(len(order), size, accumulate=together, team_size=team.size)
        own = team.share(order, size)
        schedule = Schedule(self.top * LOWER**self.position.backs, self.recipe.epochs * steps, self.recipe.warmup)
        self.tuner.student.train()
        within, rate = self._begun(generator), 0.0
        before, start = within.seen, time.perf_counter()
        per_step = size * together
        for first in range(within.steps * per_step, len(own), SEGMENT * per_step):
            self._keep_within(within, generator)
            for parts in grouped(batches(images_of, size, own[first : first + SEGMENT * per_step]), together):
                if self.should_stop is not None and team.agreed(self.should_stop()):
                    raise _Stopped
                rate = schedule.at((number - 1) * steps + within.steps)
                loss, good = self._step([self._ready(*part, generator) for part in parts], rate)
                within = within.after(loss, good, team.size * sum(len(labels) for _, labels in parts))
                if not self.position.first_loss:
                    self.position = replace(self.position, first_loss=loss)
                if within.mean_loss > self._exploding() and within.steps > min(10, steps - 1):
                    raise Diverged
                self._say(number, steps, within, rate, (within.seen - before) / (time.perf_counter() - start))
        return within.mean_loss, rate

    def _ready(self, images: Any, labels: Any, generator: torch.Generator) -> tuple[Any, Any]:
        """A batch as the network gets it."""
        inputs, targets = self.tuner.fabric.to_device(self.mixed(self.change(images, generator), labels))
        return inputs, targets

    def _step(self, parts: Sequence[tuple[Any, Any]], rate: float) -> tuple[float, float]:
        try:
            return self.tuner.step(parts, rate)
        except Diverged:
            if not self.tuner.steps:
                raise InputError(
                    "the loss is not finite before any step: training images, labels or weights hold NaN or infinite "
                    "values, or values far from those the network was trained on; mend the data"
                ) from None
            raise

    def _exploding(self) -> float:
        """The mean loss of an epoch's steps from which on the network counts as destroyed."""
        most = TAKEN if self.partner is not None else EXPLODED
        return most * max(self.position.first_loss, self._guessing())

    def _limit(self) -> float:
        """The loss on validation images from which on the network counts as destroyed."""
        before = self.position.start_loss
        if self.partner is not None:
            return TAKEN * max(before, self._guessing())
        return before + max(WORSE * self._guessing(), 0.5 * before)

    def _guessing(self) -> float:
        """The loss of a network that knows nothing."""
        return self.position.guess

    def _chosen(self, start: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
        """The weights that count."""
        position = self.position
        last = _below(self.good, "tuner.average")
        if not position.epochs or self.partner is not None:
            return last, position.notes
        notes = list(position.notes)
        known = learned_by_heart(self.reference, self.parts.train, self.parts.validation, self.task)
        if known:
            notes.append(
                "the network was as good on validation images as on training images before, so it has probably been "
                "trained on them, and they cannot tell which weights are better on new images"
                + ("; the last epoch counts. " if self.recipe.choose == "last" else "; they chose all the same. ")
                + "Give validation images that it has not seen"
            )
        if self.recipe.choose == "best":
            if not position.best:
                notes.append("no epoch was as good as the start on validation images, so the start is the result")
            return _below(self.good, "best") or _below(start, "tuner.average"), tuple(notes)
        reached = Judged(0.0, position.epochs[-1].validation_accuracy, size_of(self.parts.validation))
        if not known and reached.accuracy < position.start_accuracy - reached.error:
            notes.append(
                f"training took the accuracy on validation images from {percent(position.start_accuracy)} to "
                f"{percent(reached.accuracy)}, so the start is the result; try a lower `lr`, or more images"
            )
            return _below(start, "tuner.average"), tuple(notes)
        return last, tuple(notes)

    def _state(self) -> dict[str, Tensor]:
        """The tuner's, and its average as the best so far."""
        own = self.tuner.state()
        return _above("tuner", own) | _above("best", _below(own, "average"))

    @staticmethod
    def _tuners(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return _below(state, "tuner")

    def _say(self, epoch: int, steps: int, within: Within, rate: float, images: float) -> None:
        if self.on_step is not None and self.tuner.team.is_first:
            batch = self.recipe.batch_size * self.recipe.accumulate * self.tuner.team.size
            left = ((self.recipe.epochs - epoch) * steps + steps - within.steps) * batch / images
            now = within.steps, steps, within.mean_loss, within.mean_right
            self.on_step(TrainingStep(epoch, self.recipe.epochs, *now, rate, images, left))


def _whole(written: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What was written, with the best weights, which are in the file once where they are those of the last epoch.

    Raises:
        InputError: a tensor of the network is not there.
    """
    found = _above("best", _below(written, "tuner.average")) | dict(written)
    for name in start:
        if name not in found:
            raise InputError(
                f"the training so far was written without {name.removeprefix('tuner.')!r}, as an older nasprune did it "
                f"with buffers that are not persistent; {THEN}"
            )
    return found


def _above(part: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with names that begin with `part`."""
    return {f"{part}.{name}": value for name, value in state.items()}


def _below(state: Mapping[str, Tensor], part: str, *, keep: bool = False) -> dict[str, Tensor]:
    """The tensors whose names begin with `part`; with that beginning where it is to be kept."""
    found = {name: value for name, value in state.items() if name.startswith(f"{part}.")}
    return found if keep else {name.removeprefix(f"{part}."): value for name, value in found.items()}
