"""GAL: masks on channels and blocks learn to be zero while the outputs deceive a judge who knows the dense network.

Lin, Ji, Yan, Zhang, Cao, Ye, Huang, Doermann 2019, "Towards optimal structured CNN pruning via generative adversarial
learning", arXiv:1903.09291. Every channel and every removable block has a mask, which begins at 1 and scales what it
gives. The masked network is a generator: a small judge learns to tell its outputs from the dense network's, and the
gradient by which it would deceive the judge, with that of the squared distance between the outputs, reaches weights and
masks. An L1 penalty on the masks is taken by FISTA (Beck, Teboulle 2009), whose proximal step makes masks zero exactly;
what has a mask of zero goes. Departures: the loss of the training, labels or a teacher, is there as well; the weights
take the steps of the training's own optimizer, the masks those of FISTA, whose momentum begins anew where it points
against the step (O'Donoghue, Candès 2015, arXiv:1204.3982), and whose slopes are clipped at 1, since gradients here are
of batches; masks are not negative, and one that is zero stays so; the penalty stops once the network without these is
within the budget; at `until` what is not is cut by one threshold over the masks, masks are merged into weights, and the
rest trains on; a mask stands behind batch norms where a channel has one, else behind the layers that make it. A channel
without a place for a mask is kept as long as the budget allows it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nasprune import InputError, LiveScale, PrunePlan, Strategy, StrategyTask, learnable

HIDDEN = (128, 256, 128)  # of the judge, as in the paper
JUDGE_RATE, MOMENTUM = 0.01, 0.9
STEEPEST = 1.0  # slope of the loss that a mask follows


class GAL(Strategy):
    """strength: of the penalty on masks. blocks: how many times stronger it is on the one mask of a block.

    near, adversarial: weights of the distance from the dense outputs and of deceiving the judge. until: share of the
    steps in which masks are learned; the rest trains on.
    """

    def __init__(
        self,
        task: StrategyTask,
        strength: float = 0.03,
        blocks: float = 4.0,
        near: float = 0.1,
        adversarial: float = 0.1,
        until: float = 0.6,
    ) -> None:
        if strength <= 0 or blocks < 0 or near < 0 or adversarial < 0 or not 0 < until < 1:
            raise InputError(
                "`strength` must be above 0, `blocks`, `near` and `adversarial` at least 0 and `until` in (0, 1), got "
                f"{strength}, {blocks}, {near}, {adversarial} and {until}"
            )
        self._task, self._strength, self._blocks, self._until = task, strength, blocks, until
        self._near, self._adversarial = near, adversarial
        self._dense = copy.deepcopy(task.model).eval().requires_grad_(False)
        self._masks = {place: Fista(width, _device(scales)) for place, (scales, width) in _places(task).items()}
        self.notes = () if task.blocks else learnable(task.groups, self._scores(), "a layer that no other shares")
        self._judge: list[Tensor] = []
        self._moves: list[Tensor] = []
        self._said: tuple[Tensor, Tensor] | None = None
        self._hooks = self._watch()
        self._enough = False
        self._plan: PrunePlan | None = None

    def step(self, progress: float, rate: float) -> None:
        if self._plan is None and progress > self._until:
            self._plan = self._settled()
        if self._plan is not None:
            self._task.zero(self._plan)
            return
        if self._said is not None:
            learn(self._judge, self._moves, *self._said, self._task.averaged)
            self._said = None
        for mask in self._masks.values():
            weight = 1.0 if mask.value.ndim else self._blocks
            if mask.point.grad is not None:
                mask.point.grad = self._task.averaged(mask.point.grad)
            mask.step(rate, 0.0 if self._enough else self._strength * weight)
        if not self._enough and self._task.within(self._alive(), self._dead_blocks()):
            self._enough = True
            for mask in self._masks.values():
                mask.rest()

    def finish(self) -> PrunePlan:
        plan = self._plan or self._settled()
        for module in self._task.model.modules():
            for number, hook in list(module._forward_hooks.items()):
                if hook in self._hooks:
                    del module._forward_hooks[number]
        self._task.zero(plan, ("out", "scale", "in"))
        return plan

    def _settled(self) -> PrunePlan:
        """What goes; masks are merged into the weights."""
        plan = self._task.plan(self._scores(), spread="global", least=0.0, drop=self._dead_blocks())
        for place, (scales, _) in _places(self._task).items():
            for scale in scales:
                scale.merge(self._masks[place].point.detach())
        return plan

    def _scores(self) -> dict[str, Tensor]:
        """Group -> its masks (width,), where it has any."""
        places = {group.name: f"group {group.name}" for group in self._task.groups}
        return {name: self._masks[place].value.cpu() for name, place in places.items() if place in self._masks}

    def _alive(self) -> dict[str, int]:
        whole = {group.name: group.width for group in self._task.groups}
        return whole | {name: max(1, int((score > 0).sum())) for name, score in self._scores().items()}

    def _dead_blocks(self) -> list[str]:
        return [block.name for block in self._task.blocks if not self._masks[f"block {block.name}"].value.any()]

    def _watch(self) -> list[Callable[..., object]]:
        """Puts masks behind the scales, and the judge behind the network, until masks are merged; the hooks."""

        def masked(scale: LiveScale, place: str) -> Callable[..., Tensor]:
            def hook(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
                return output if self._plan is not None else scale.scaled(output, self._masks[place].point)

            return hook

        def compared(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: object) -> None:
            said = _spoken(output)
            if self._plan is not None or not module.training or said is None or not said.requires_grad:
                return
            with torch.no_grad():
                wanted = _spoken(self._dense(*args, **kwargs))
            if wanted is not None:
                pull = self._pull(wanted, said.detach())
                said.register_hook(lambda gradient: gradient + pull.to(gradient.dtype))

        hooks: list[Callable[..., object]] = []
        for place, (scales, _) in _places(self._task).items():
            for scale in scales:
                hooks.append(masked(scale, place))
                scale.module.register_forward_hook(hooks[-1])
        self._task.model.register_forward_hook(compared, with_kwargs=True)
        return [*hooks, compared]

    def _pull(self, wanted: Tensor, said: Tensor) -> Tensor:
        """The gradient at the outputs (n, classes, ...) that takes them to the dense ones, and deceives the judge."""
        rows, target = _rows(said), _rows(wanted)
        if not self._judge:
            self._judge = new_judge(rows.shape[1], self._task.seed, rows.device)
            self._moves = [torch.zeros_like(value) for value in self._judge]
        self._said = target, rows
        with torch.enable_grad():
            rows = rows.clone().requires_grad_()
            loss = self._near * functional.mse_loss(rows, target)
            loss = loss + self._adversarial * functional.logsigmoid(-judged(self._judge, rows)).mean()
            (gradient,) = torch.autograd.grad(loss, rows)
        return gradient.reshape(said.movedim(1, -1).shape).movedim(-1, 1) if said.ndim > 1 else gradient.view_as(said)


class Fista:
    """Masks in [0, inf), which begin at 1, and stay at 0 once they are there.

    value: of now. point: where the network runs and the gradient is taken, ahead of the value.
    """

    def __init__(self, width: int, device: torch.device) -> None:
        self.value = torch.ones(width, device=device) if width else torch.ones((), device=device)
        self.point = self.value.clone().requires_grad_()
        self.time = 1.0

    def step(self, rate: float, strength: float) -> None:
        """One proximal step; no gradient is one of zero."""
        gradient = torch.zeros_like(self.value) if self.point.grad is None else self.point.grad
        moved = self.point.detach() - rate * gradient.clamp(-STEEPEST, STEEPEST)
        value = torch.where(self.value == 0, 0.0, (moved - rate * strength).clamp(min=0))
        if float(((self.point.detach() - value) * (value - self.value)).sum()) > 0:
            self.time = 1.0
        after = (1 + (1 + 4 * self.time**2) ** 0.5) / 2
        ahead = value + (self.time - 1) / after * (value - self.value)
        self.value, self.time = value, after
        with torch.no_grad():
            self.point.copy_(torch.where(value == 0, 0.0, ahead.clamp(min=0)))
        self.point.grad = None

    def rest(self) -> None:
        """Without momentum from here on."""
        self.time = 1.0
        with torch.no_grad():
            self.point.copy_(self.value)

    def state_dict(self) -> dict[str, object]:
        return {"value": self.value, "point": self.point.detach(), "time": self.time}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value, self.time = state["value"], state["time"]
        with torch.no_grad():
            self.point.copy_(state["point"])


def new_judge(inputs: int, seed: int, device: torch.device) -> list[Tensor]:
    """Weights and biases of the judge of outputs (n, inputs), layer after layer."""
    generator, values = torch.Generator().manual_seed(seed), []
    for before, after in pairwise((inputs, *HIDDEN, 1)):
        drawn = torch.randn(after, before, generator=generator, device="cpu") * (2 / before) ** 0.5
        values += [drawn.to(device).requires_grad_(), torch.zeros(after, device=device).requires_grad_()]
    return values


def judged(judge: list[Tensor], rows: Tensor) -> Tensor:
    """Whether outputs (n, classes) are the dense network's: logits (n, 1), high for yes."""
    layers = list(zip(judge[::2], judge[1::2], strict=True))
    for weight, bias in layers[:-1]:
        rows = functional.linear(rows, weight, bias).relu()
    return functional.linear(rows, *layers[-1])


def learn(
    judge: list[Tensor], moves: list[Tensor], dense: Tensor, masked: Tensor, averaged: Callable[[Tensor], Tensor]
) -> None:
    """One step of telling them apart, and as in the paper, of not being too sure of it."""
    with torch.enable_grad():
        found = judged(judge, masked)
        loss = -functional.logsigmoid(judged(judge, dense)).mean() - functional.logsigmoid(-found).mean()
        gradients = torch.autograd.grad(loss - functional.logsigmoid(found).mean(), judge)
    with torch.no_grad():
        for value, move, gradient in zip(judge, moves, gradients, strict=True):
            value.sub_(JUDGE_RATE * move.mul_(MOMENTUM).add_(averaged(gradient)))


def _places(task: StrategyTask) -> dict[str, tuple[list[LiveScale], int]]:
    """Name of a mask -> the scales it stands behind, and how many factors it has, 0 for a block's one."""
    found = {f"group {group.name}": (list(task.scales(group)), group.width) for group in task.groups}
    found |= {f"block {block.name}": (list(block.scales), 0) for block in task.blocks}
    return {name: place for name, place in found.items() if place[0]}


def _device(scales: list[LiveScale]) -> torch.device:
    return next(scales[0].module.parameters()).device


def _spoken(outputs: object) -> Tensor | None:
    """The first tensor of numbers."""
    if isinstance(outputs, Tensor):
        return outputs if outputs.is_floating_point() and outputs.ndim else None
    inner = outputs.values() if isinstance(outputs, dict) else outputs if isinstance(outputs, (list, tuple)) else ()
    return next((found for one in inner if (found := _spoken(one)) is not None), None)


def _rows(outputs: Tensor) -> Tensor:
    """(n, classes, ...) as (n · positions, classes)."""
    found = outputs.movedim(1, -1) if outputs.ndim > 1 else outputs[:, None]
    return found.reshape(-1, found.shape[-1]).float()
