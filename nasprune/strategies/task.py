"""What a strategy works with: the live network, its groups, and plans within the budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from inspect import signature
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nasprune.cost.budget import Budget, Cost
from nasprune.cut.plan import PrunePlan
from nasprune.cut.selection import select
from nasprune.cut.weight_masks import WeightMasks
from nasprune.errors import PluginError
from nasprune.graph.capture import submodule
from nasprune.graph.model import CoupledGroup, Ints, ModelGraph
from nasprune.space.choices import Decision
from nasprune.space.priced import PricedSpace
from nasprune.strategies.gates import Draw, Gate, readers, without_gates
from nasprune.strategies.hooks import Hooks
from nasprune.strategies.scales import Block, Scale, blocks_of, scales_of
from nasprune.strategies.slots import Slots, slots_of
from nasprune.strategies.weights import Weight, left_whole, weights_of
from nasprune.train.team import mean_over_processes

HALVINGS = 24


@dataclass(frozen=True)
class Task:
    """A `StrategyTask`. problem: the search space with its prices and the budget.

    nonzeros: how many numbers of all parameters may be other than zero, `None` for a budget of what widths cost.
    hooked: whether the strategy puts hooks on layers. hooks: what it has put on the network. notes: what the user
    should read in the end, in sentences.
    """

    model: nn.Module
    graph: ModelGraph
    problem: PricedSpace
    seed: int
    nonzeros: int | None = None
    hooked: bool = False
    hooks: Hooks = field(default_factory=Hooks, repr=False)
    notes: tuple[str, ...] = ()
    _slots: dict[str, list[Slots]] = field(default_factory=dict, repr=False)
    _scales: dict[str, tuple[Scale, ...]] = field(default_factory=dict, repr=False)

    @cached_property
    def groups(self) -> tuple[CoupledGroup, ...]:
        return tuple(self.graph.group(choice.name) for choice in self.problem.space.widths)

    def slots(self, group: CoupledGroup) -> Sequence[Slots]:
        if group.name not in self._slots:
            self._slots[group.name] = slots_of(self._part, self.graph, group)
        return self._slots[group.name]

    def scales(self, group: CoupledGroup) -> Sequence[Scale]:
        if group.name not in self._scales:
            self._scales[group.name] = scales_of(self._part, self.slots(group), group.width)
        return self._scales[group.name]

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        return blocks_of(self._part, self.graph, [choice.name for choice in self.problem.space.blocks])

    @property
    def _part(self) -> nn.Module:
        return submodule(self.model, self.graph.scope)

    @cached_property
    def _without_gates(self) -> Mapping[str, str]:
        return without_gates(self._part, self.graph)

    def magnitudes(self) -> Mapping[str, Tensor]:
        found = {}
        for group in self.groups:
            rows = [slots.read().float() for slots in self.slots(group) if slots.role == "out"]
            squares = [row.square().sum(1) for row in rows] or [torch.zeros(group.width, device="cpu")]
            found[group.name] = torch.stack(squares).sum(0).sqrt().cpu()
        return found

    def within(self, alive: Mapping[str, int], drop: Sequence[str] = ()) -> bool:
        options = {choice.name: choice.options[-1] for choice in self.problem.space.choices}
        for choice in self.problem.space.widths:
            options[choice.name] = next(count for count in choice.options if count >= alive[choice.name])
        decision = Decision.of({**options, **dict.fromkeys(drop, 0)})
        return self.problem.budget.allows(self.problem.costs([decision])[0])

    def prices(self, alive: Mapping[str, int]) -> Mapping[str, float]:
        whole = {choice.name: choice.options[-1] for choice in self.problem.space.choices}
        steps, at = {}, dict(whole)
        for choice in self.problem.space.widths:
            if len(choice.options) < 2:
                continue
            reached = [place for place, option in enumerate(choice.options) if option >= alive[choice.name]]
            place = max(1, reached[0]) if reached else len(choice.options) - 1
            at[choice.name] = choice.options[place]
            steps[choice.name] = choice.options[place - 1]
        now = Decision.of(at)
        costs = self.problem.costs([now, *(now.replaced(name, option) for name, option in steps.items())])
        counted = [cost.flops if self.problem.budget.flops is not None else cost.params for cost in costs]
        return dict.fromkeys(at, 0.0) | {
            name: (counted[0] - less) / (at[name] - option)
            for (name, option), less in zip(steps.items(), counted[1:], strict=True)
        }

    def plan(
        self,
        scores: Mapping[str, Tensor],
        *,
        spread: str = "uniform",
        share: float = 1.0,
        least: float = float("-inf"),
        drop: Sequence[str] = (),
    ) -> PrunePlan:
        if spread not in ("uniform", "global"):
            raise PluginError(f"a strategy asked for a plan spread {spread!r}; expected 'uniform' or 'global'")
        if spread == "global":
            scores = {**self._last_to_go(scores, least), **scores}
        for group in self.groups:
            if group.name not in scores or tuple(scores[group.name].shape) != (group.width,):
                raise PluginError(f"a strategy gave no scores of shape ({group.width},) for group {group.name!r}")
        order = self._best_first(scores, least) if spread == "global" else None
        low, high = 0.0, 1.0  # of what stays
        best = self._decision(order, 0.0, drop)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            decision = self._decision(order, middle, drop)
            if self._within(self.problem.costs([decision])[0], share):
                low, best = middle, decision
            else:
                high = middle
        if share == 1:
            best = self.problem.fit(best, Random(self.seed), grow=False)
        return select(self.graph, scores, best)

    def averaged(self, value: Tensor) -> Tensor:
        return mean_over_processes(value)

    def zero(self, plan: PrunePlan, roles: Sequence[str] = ("out", "scale")) -> None:
        for group in self.groups:
            kept = plan.keep.get(group.name)
            if kept is None:
                continue
            stays = torch.zeros(group.width, dtype=torch.bool, device="cpu")
            stays[list(kept)] = True
            for slots in self.slots(group):
                if slots.role in roles and slots.is_trained:
                    slots.write(slots.read() * stays[:, None].to(slots.tensor.device))
        for block in self.blocks if plan.drop else ():
            for scale in block.scales if block.name in plan.drop else ():
                scale.merge(torch.zeros((), device=scale.module.weight.device))  # type: ignore[arg-type]

    def gate(self, group: CoupledGroup, draw: Draw) -> None:
        if group.name in self._without_gates:
            raise PluginError(
                f"a strategy asked for a gate on group {group.name!r}, but {self._without_gates[group.name]}; give its "
                "class `hooks = True`, and such groups stay whole"
            )
        gate = Gate(self.model, group.width, draw, self.hooks)
        for module, units in readers(self._part, self.graph, group):
            gate.on(module, units, self.hooks)

    def watch(self, seen: Callable[[tuple[Tensor, ...]], None]) -> None:
        def given(net: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if net.training:
                bound = signature(net.forward).bind(*args, **kwargs)
                bound.apply_defaults()
                seen(bound.args)

        self.hooks.before(self.model, given)

    def release(self) -> None:
        self.hooks.release()

    def fold(self, group: CoupledGroup, factors: Tensor) -> None:
        for slots in self.slots(group):
            if slots.role == "in" and slots.is_trained:
                slots.write(slots.read() * factors.to(slots.tensor)[:, None])

    @property
    def sparse(self) -> bool:
        return self.nonzeros is not None

    @cached_property
    def weights(self) -> tuple[Weight, ...]:
        return weights_of(self._part, self.graph.program, self.hooks, everywhere=not self.hooked)

    @cached_property
    def left_whole(self) -> tuple[str, ...]:
        """Names of weights of layers that are not among `weights`."""
        return left_whole(self._part, self.weights)

    @property
    def density(self) -> float:
        return self._left / max(1, self._elements)

    def masks(self, scores: Mapping[str, Tensor], *, share: float = 1.0) -> Mapping[str, Tensor]:
        for weight in self.weights:
            if weight.name not in scores or scores[weight.name].shape != weight.tensor.shape:
                raise PluginError(
                    f"a strategy gave no scores of shape {tuple(weight.tensor.shape)} for {weight.name!r}"
                )
        flat = torch.cat([scores[weight.name].detach().float().reshape(-1) for weight in self.weights])
        count = round(self._elements - share * (self._elements - self._left))
        stays = torch.zeros_like(flat, dtype=torch.bool)
        if count:
            least = flat.kthvalue(len(flat) - count + 1).values
            stays = flat > least
            stays[(flat == least).nonzero().flatten()[: count - int(stays.sum())]] = True
        parts = torch.split(stays, [weight.tensor.numel() for weight in self.weights])
        return {weight.name: part.view(weight.tensor.shape) for weight, part in zip(self.weights, parts, strict=True)}

    def mask(self, masks: Mapping[str, Tensor]) -> PrunePlan:
        with torch.no_grad():
            for weight in self.weights:
                weight.tensor.mul_(masks[weight.name].to(weight.tensor))
        held = {name: mask for name, mask in masks.items() if not bool(mask.all())}
        return replace(select(self.graph, {}, {}), masks=WeightMasks(held))

    @cached_property
    def _elements(self) -> int:
        return sum(weight.tensor.numel() for weight in self.weights)

    @cached_property
    def _left(self) -> int:
        """Elements of `weights` that may stay, where all other parameters do."""
        whole = sum(parameter.numel() for parameter in self.model.parameters())
        return max(0, min(self._elements, (self.nonzeros or whole) - (whole - self._elements)))

    def _last_to_go(self, scores: Mapping[str, Tensor], least: float) -> Mapping[str, Tensor]:
        """Scores above all others for the groups that have none: their weakest units go first, in all groups alike."""
        without = [group for group in self.groups if group.name not in scores]
        if not without:
            return {}
        above = 1 + max([0.0, least, *(float(score.max()) for score in scores.values())])
        magnitudes = self.magnitudes()
        ranks = {group.name: magnitudes[group.name].argsort(stable=True).argsort() for group in without}
        return {group.name: above + ranks[group.name].double() / group.width for group in without}

    def _best_first(self, scores: Mapping[str, Tensor], least: float) -> Ints:
        """Numbers of groups, one for each unit whose score is above `least`; equal scores go to groups in turns."""
        values = [scores[group.name].double().sort(descending=True).values.numpy() for group in self.groups]
        places = [np.arange(group.width) / group.width for group in self.groups]
        numbers = np.repeat(np.arange(len(values)), [group.width for group in self.groups])
        every = np.concatenate([*values, np.empty(0)])
        order = np.lexsort((np.concatenate([*places, np.empty(0)]), -every))
        return numbers[order[every[order] > least]]

    def _decision(self, order: Ints | None, stays: float, drop: Sequence[str]) -> Decision:
        """All blocks but those that go, and a share of the units: of each group, or of all of them in an order."""
        gone = dict.fromkeys(drop, 0)
        if order is None:
            return Decision.of({**self.problem.space.scaled(stays), **gone})
        options = {choice.name: choice.options[-1] for choice in self.problem.space.choices}
        best = order[: round(stays * sum(group.width for group in self.groups))]
        counts = np.bincount(best, minlength=len(self.groups))
        for choice, wanted in zip(self.problem.space.widths, counts, strict=True):
            options[choice.name] = max(option for option in choice.options if option <= max(wanted, choice.options[0]))
        return Decision.of({**options, **gone})

    def _within(self, cost: Cost, share: float) -> bool:
        """Whether a cost is below the point so far on the way from the dense network to the budget."""
        if share == 1:
            return self.problem.budget.allows(cost)
        return _eased(self.problem.budget, self.problem.dense, share).allows(cost)


def _eased(budget: Budget, dense: Cost, share: float) -> Budget:
    """The budget at a point of the way to it from the dense network's cost."""

    def at(limit: int | None, whole: int) -> int | None:
        return None if limit is None else max(limit, round(whole - share * (whole - limit)))

    return Budget(flops=at(budget.flops, dense.flops), params=at(budget.params, dense.params))
