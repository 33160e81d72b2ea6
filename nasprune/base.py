"""Extension points on one page. Implementations are final: they add no methods for others to override.

A criterion says how much each unit of a group matters. A controller proposes decisions. An evaluator scores a
candidate. A space builder says what may be decided. A scorer of
operations says what a supernet loses without them. Op rules, which say how channels pass an operation, are described in
`nasprune.graph.rules`, strategies in `nasprune.strategies.contract`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from random import Random
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from nasprune.cost.budget import Cost
from nasprune.graph.model import CoupledGroup, ModelGraph
from nasprune.space.budgeted import BudgetedSpace
from nasprune.space.choices import Decision, OpChoice, SearchSpace
from nasprune.space.trials import Trial


@dataclass(frozen=True)
class LayerUnits:
    """A layer of the net as a map between units. Units are numbered over the whole net, -1 is none.

    reads, makes: (in,) and (out,), the unit of each input and output channel.
    strength: (out, in), absolute weights summed over kernel positions; zero between groups of a convolution.
    """

    reads: Tensor
    makes: Tensor
    strength: Tensor


@dataclass(frozen=True)
class ConsumerGram:
    """What a layer computes from a group's channels, as a quadratic form.

    The layer's response to unit i is `weight[:, i] @ x[i]`, with x (width, k) the features that it reads of the group.
    weight: (out, width, k). mean: (width * k,), averages of the features over `samples` positions.
    covariance: (width * k, width * k), averages of the products of the features about their means, zero between
    features that no output sees together. parts: (width * k,), the convolution group that sees the feature.
    """

    weight: Tensor
    covariance: Tensor
    mean: Tensor
    parts: Tensor
    samples: int

    def moments(self, features: slice = slice(None)) -> Tensor:
        """Averages of the products of the features themselves, (width * k, width * k), or the rows of `features`."""
        found = torch.addr(self.covariance[features], self.mean[features], self.mean)
        if (self.parts == self.parts[0]).all():
            return found
        return found * (self.parts[features, None] == self.parts[None, :])

    def contributions(self) -> Tensor:
        """(width, width), float64: products of the units' responses, summed over outputs, mean over positions.

        Its sum over a set of units, rows and columns, is the squared change of the layer's output without them.
        """
        out, width, k = self.weight.shape
        flat = self.weight.reshape(out, width * k)
        rows = []
        for part in range(0, width, 64):
            some = slice(part * k, min(part + 64, width) * k)
            products = (flat[:, some].T @ flat) * self.moments(some)
            rows.append(products.reshape(-1, k, width, k).sum(dim=(1, 3), dtype=torch.float64))
        return torch.cat(rows)


class ScoreContext(Protocol):
    """What a criterion may look at. All tensors are detached float32 copies on the CPU.

    The second half needs data; it raises InputError unless the criterion says `needs_data = True`. It covers the
    convolutions and linear layers that read the group's channels ("consumers"); a unit that such a layer does not read
    is zero there.
    """

    def rows(self, group: CoupledGroup) -> Iterator[Tensor]:
        """For each tensor that produces the group's channels a matrix (width, k); row i belongs to unit i."""

    def columns(self, group: CoupledGroup) -> Iterator[Tensor]:
        """For each tensor that consumes the group's channels a matrix (width, k); row i belongs to unit i."""

    def kernels(self, group: CoupledGroup) -> Iterator[Tensor]:
        """For each consumer its weights (width, out, k): entry i, n is the kernel that output n applies to unit i."""

    def scales(self, group: CoupledGroup) -> Iterator[Tensor]:
        """For each batch-norm weight that runs along the group's channels a matrix (width, k); row i is unit i's."""

    def units(self, group: CoupledGroup) -> Tensor:
        """The group's units as numbers (width,) over the whole net, as `layers` uses them."""

    def layers(self) -> Sequence[LayerUnits]:
        """The net's convolutions and linear layers in execution order, without depthwise ones (they mix nothing)."""

    def combine(self, scores: Iterable[Tensor], group: CoupledGroup) -> Tensor:
        """Scores (width,) given by several tensors as one: their sum, or what the user's option `reduce` says.

        Zeros where there are none. A tensor that lacks a unit counts as zero for it.
        """

    def generator(self, group: CoupledGroup) -> Random:
        """A random generator fixed by the run's seed and the group's name."""

    def activations(self, group: CoupledGroup) -> Iterator[Tensor]:
        """For each consumer a matrix (n, width): what it reads at n positions, drawn by the seed."""

    def gradients(self, group: CoupledGroup) -> Iterator[Tensor]:
        """For each consumer a matrix (images, width): derivatives of an image's cross-entropy by a factor on the unit.

        That is activation times gradient, summed over all positions.
        """

    def fisher(self, group: CoupledGroup) -> Iterator[Tensor]:
        """For each tensor of `rows` a matrix (width, k): squared derivatives of the cross-entropy, mean over images."""

    def grams(self, group: CoupledGroup) -> Iterator[ConsumerGram]:
        """For each consumer its quadratic form; several where it would be too large, each for a part of k."""


class Criterion(ABC):
    """How much each unit of a group matters. Takes no constructor arguments that lack a default.

    Keyword arguments of the constructor are its options. `reduce` and `normalise` are options of every criterion and
    taken care of outside.
    """

    needs_data: ClassVar[bool] = False

    @abstractmethod
    def score(self, group: CoupledGroup, context: ScoreContext) -> Tensor:
        """Scores of shape (width,), finite, higher = keep. Must not modify what `context` yields."""


class Controller(ABC):
    """Proposes decisions. `ask` and `tell` alternate; proposals over budget are fitted before they are evaluated.

    The constructor takes `(problem: BudgetedSpace, *, seed: int)`. The proposals are a function of the seed and of what
    has been told, so that a resumed search, which replays its trials through `ask` and `tell`, goes on as it was.
    fills: whether proposals that leave budget unused are grown to it as well.
    """

    fills: ClassVar[bool] = True

    @abstractmethod
    def __init__(self, problem: BudgetedSpace, *, seed: int) -> None: ...

    @abstractmethod
    def ask(self) -> Decision | None:
        """The next decision, with one option for every choice; `None` when there is nothing left to propose."""

    @abstractmethod
    def tell(self, trial: Trial) -> None:
        """The outcome of the last proposal; `trial.decision` is the fitted one."""


class Candidate(Protocol):
    """A decision within budget, on its way to a score."""

    @property
    def decision(self) -> Decision: ...

    @property
    def cost(self) -> Cost: ...

    @property
    def keep(self) -> Mapping[str, Sequence[int]]:
        """Group -> kept unit indices, ascending, for the groups that lose some."""

    @property
    def drop(self) -> Sequence[str]:
        """Names of the dropped blocks."""

    def model(self) -> nn.Module:
        """The candidate cut for real, in eval mode, refitted if the search refits. Built when asked for; yours."""

    @property
    def refitted(self) -> bool:
        """Whether `model()` is refitted in closed form: its batch-norm statistics are then as they should be."""

    @property
    def zeroed(self) -> bool:
        """Whether `model()` has lost more than `keep` and `drop` say: weights inside of it may be zero."""


@dataclass(frozen=True)
class EvaluationTask:
    """What an evaluator is made from.

    scores: group name -> criterion scores (width,). costs: the price list. calibration, validation: images with labels,
    disjoint; `None` without data. device: where models run.
    """

    graph: ModelGraph
    dense: nn.Module
    scores: Mapping[str, Tensor]
    problem: BudgetedSpace
    calibration: Dataset[tuple[Tensor, int]] | None = None
    validation: Dataset[tuple[Tensor, int]] | None = None
    device: str = "cpu"


class Evaluator(ABC):
    """Scores a candidate. The constructor takes `(task: EvaluationTask)`; further keyword arguments are its options.

    reads_labels: whether scores depend on the labels of the data, so that a network at chance on them is refused.
    """

    needs_data: ClassVar[bool] = False
    reads_labels: ClassVar[bool] = True

    @abstractmethod
    def __init__(self, task: EvaluationTask) -> None: ...

    @abstractmethod
    def evaluate(self, candidate: Candidate) -> float:
        """The score, higher is better; a function of the candidate alone. Leaves the dense model unchanged."""


Batch = tuple[Tensor, Tensor]
"""Inputs (n, ...) and labels (n,)."""


class OpTask(Protocol):
    """A supernet as a scorer of operations sees it. Scores are per choice: one decision for all tied mixed operations.

    The supernet is a copy, in eval mode, on its device: a scorer may train it, change its modes and throw it away.
    """

    @property
    def net(self) -> nn.Module: ...

    @property
    def choices(self) -> Sequence[OpChoice]: ...

    @property
    def train(self) -> Sequence[Batch]:
        """Training images with labels; empty without data. Reading them costs memory only where they are touched."""

    @property
    def validation(self) -> Sequence[Batch]:
        """Other images with labels, to judge candidates by; empty without data."""

    @property
    def example(self) -> Tensor:
        """An input (n, ...) with n above one: what the supernet was found with."""

    @property
    def seed(self) -> int: ...

    def gated(self, gates: Mapping[str, Tensor]) -> AbstractContextManager[None]:
        """Inside, the output of candidate k of a choice is multiplied by `gates[choice.name][k]`, wherever it runs."""

    def on_path(self, path: Mapping[str, int]) -> AbstractContextManager[None]:
        """Inside, of every choice only candidate `path[choice.name]` runs, for the whole mixture; the others do not."""

    def noise(self) -> Mapping[str, Tensor]:
        """Choice name -> (ops,): the share of noise, in [0, 1], in what a candidate gives in evaluation."""

    def loss(self, outputs: object, labels: Tensor) -> Tensor:
        """Mean cross-entropy of the net's (first) output."""

    def logits(self, choice: OpChoice) -> Tensor | None:
        """Architecture weights (ops,) as the net holds them, before any softmax, a live view into `net`.

        `None` where the supernet has none or it is unknown where they are.
        """

    def shares(self, choice: OpChoice) -> Tensor | None:
        """Shares of the candidates in the mixture (ops,), summing to one, detached; `None` where they are unknown."""

    def edge_weight(self, choice: OpChoice) -> float | None:
        """The share of the edge among those into its node, where a supernet learns one (PC-DARTS); else `None`."""

    def cost(self, choice: OpChoice) -> Tensor:
        """FLOPs of the candidates over all tied mixed operations (ops,), float64."""


class OpScorer(ABC):
    """What a supernet loses without each candidate operation. Keyword arguments of the constructor are options."""

    needs_data: ClassVar[bool] = False
    needs_weights: ClassVar[bool] = False  # architecture weights, as logits or shares
    trains: ClassVar[bool] = False  # leaves `task.net` with other weights

    @abstractmethod
    def score(self, task: OpTask) -> Mapping[str, Tensor]:
        """Choice name -> (ops,), finite, higher = keep, comparable between choices.

        What connects nothing (`choice.none`) is ranked last by whoever reads the scores, unless `needs_weights`.
        """


class SpaceBuilder(Protocol):
    """A function `build` in a file of `search_spaces/`."""

    def __call__(self, graph: ModelGraph, **options: object) -> SearchSpace: ...
