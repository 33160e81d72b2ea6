"""ResRep: a matrix behind each convolution learns to have rows of zeros, and is merged into the convolution.

Ding, Hao, Tan, Liu, Han, Guo, Ding 2021, "ResRep: lossless CNN pruning via decoupling remembering and forgetting",
arXiv:2007.03260. Behind a convolution and its batch norm stands a compactor, a 1x1 convolution that begins as the
identity. Its rows of the least norm are chosen, ever more of them; for these the gradient of the loss is dropped
(gradient resetting), so that a penalty on their norms takes them to zero while the rest of the network goes on to
remember. At the end convolution, norm and compactor are one convolution and a norm that does nothing but add a bias.
Departures: the penalty is a proximal step, and acts on the chosen rows alone; its default is for trainings of some
hundred steps, and what is not zero at `until` is set to zero; compactors have a momentum of 0.9, not 0.99. They stand
only where a group of channels is made by one convolution or linear layer with one batch norm right behind it, as inside
of a residual block; other groups are kept as long as the budget allows it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from nasprune import CoupledGroup, InputError, PrunePlan, Strategy, StrategyTask, learnable

MOMENTUM = 0.9
MAKERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class ResRep(Strategy):
    """strength: of the penalty. until: share of the steps at which rows are zero. times: how often rows are chosen."""

    def __init__(self, task: StrategyTask, strength: float = 1.0, until: float = 0.6, times: int = 20) -> None:
        if strength <= 0 or not 0 < until < 1 or times < 1:
            raise InputError(
                f"`strength` must be above 0, `until` in (0, 1) and `times` at least 1, got {strength}, {until} and "
                f"{times}"
            )
        self._task, self._strength, self._until, self._times = task, strength, until, times
        self._pairs = {group.name: pair for group in task.groups if (pair := _pair(task, group)) is not None}
        self.notes = learnable(task.groups, self._pairs, "one layer with one batch norm right behind it")
        self._compactors = {
            name: torch.eye(norm.num_features, device=norm.weight.device, dtype=norm.weight.dtype).requires_grad_()
            for name, (_, norm) in self._pairs.items()
        }
        self._moves = {name: torch.zeros_like(matrix) for name, matrix in self._compactors.items()}
        self._made: dict[str, tuple[Tensor, int]] = {}
        self._hooks = {name: self._watch(name) for name in self._pairs}
        self._chosen_at = 0
        self._plan: PrunePlan | None = None

    def step(self, progress: float, rate: float) -> None:
        for name, matrix in self._compactors.items():
            if matrix.grad is not None:
                matrix.grad = self._task.averaged(matrix.grad)
                matrix.grad[self._doomed(name)] = 0.0
                self._moves[name].mul_(MOMENTUM).add_(matrix.grad)
                self._moves[name][self._doomed(name)] = 0.0
                matrix.sub_(rate * self._moves[name])
                matrix.grad = None
        growing = progress <= self._until
        if growing and int(progress * self._times) > self._chosen_at:
            self._chosen_at = int(progress * self._times)
            self._plan = self._chosen(progress / self._until)
        if not growing and self._chosen_at <= self._times:
            self._chosen_at = self._times + 1
            self._plan = self._chosen(1.0)
        self._forget(rate * self._strength if growing else float("inf"))

    def finish(self) -> PrunePlan:
        self._plan = self._plan if self._chosen_at > self._times and self._plan else self._chosen(1.0)
        self._forget(float("inf"))
        for name, (maker, norm) in self._pairs.items():
            for module in (maker, norm):
                for number, hook in list(module._forward_hooks.items()):
                    if hook in self._hooks[name]:
                        del module._forward_hooks[number]
            if name in self._compactors:
                _merge(maker, norm, self._compactors[name])
        self._task.zero(self._plan, ("out", "scale", "in"))
        return self._plan

    def _watch(self, name: str) -> tuple[Callable[..., object], Callable[..., object]]:
        """Puts the compactor behind the norm as long as that reads what the convolution gave; the hooks."""

        def made(module: nn.Module, inputs: object, output: Tensor) -> None:
            self._made[name] = output, _version(output)

        def normed(module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], output: Tensor) -> Tensor:
            read = args[0] if args else kwargs["input"]
            value, version = self._made.pop(name, (None, 0))
            apart = value is not read or version != _version(read)
            if apart and self._compactors.pop(name, None) is not None:
                self.notes += (f"Nothing was learned of {name}: its batch norm reads not what its layer gives.",)
            matrix = self._compactors.get(name)
            return output if matrix is None else torch.einsum("oc,nc...->no...", matrix.to(output.dtype), output)

        maker, norm = self._pairs[name]
        maker.register_forward_hook(made)
        norm.register_forward_hook(normed, with_kwargs=True)
        return made, normed

    def _forget(self, by: float) -> None:
        """Takes so much off the norms of rows that are to go; other groups' units are zero in the end."""
        if self._plan is None:
            return
        for name, matrix in self._compactors.items():
            rows = self._doomed(name)
            with torch.no_grad():
                norms = matrix[rows].norm(dim=1, keepdim=True)
                matrix[rows] *= (1 - by / norms.clamp(min=1e-12)).clamp(min=0)
        if by == float("inf"):
            others = {name: kept for name, kept in self._plan.keep.items() if name not in self._compactors}
            self._task.zero(replace(self._plan, keep=others))

    def _doomed(self, name: str) -> list[int]:
        kept = self._plan.keep.get(name) if self._plan is not None else None
        return [] if kept is None else sorted(set(range(len(self._compactors[name]))) - set(kept))

    def _chosen(self, share: float) -> PrunePlan:
        norms = {name: matrix.detach().float().norm(dim=1).cpu() for name, matrix in self._compactors.items()}
        return self._task.plan(norms, spread="global", share=share)


def _pair(task: StrategyTask, group: CoupledGroup) -> tuple[nn.Module, nn.Module] | None:
    """The one layer that makes a group's channels, and the one norm that they have; `None` where it is not so."""
    owners = {id(value): module for module in task.model.modules() for value in module._parameters.values()}
    own = [slots for slots in task.slots(group) if slots.role != "in" and slots.is_trained]
    makers = {owners.get(id(slots.tensor)) for slots in own if slots.role == "out"}
    norms = {owners.get(id(slots.tensor)) for slots in own if slots.role == "scale"}
    norms, makers = norms - makers, makers | norms
    if len(norms) != 1 or len(makers - norms) != 1:
        return None
    (maker,), (norm,) = makers - norms, norms
    if not isinstance(maker, MAKERS) or not isinstance(norm, NORMS) or getattr(maker, "groups", 1) != 1:
        return None
    if maker.weight.shape[0] != group.width or norm.weight is None or norm.running_var is None:
        return None
    in_order = all(
        torch.equal(slots.read(), slots.tensor.detach().reshape(group.width, -1)) for slots in own if slots.is_trained
    )
    return (maker, norm) if in_order else None


def _version(value: Tensor) -> int:
    """How often it was changed in place."""
    return 0 if value.is_inference() else value._version


def _merge(maker: nn.Module, norm: nn.Module, matrix: Tensor) -> None:
    """Norm and compactor go into the layer; the norm adds a bias."""
    factor = norm.weight / (norm.running_var + norm.eps).sqrt()
    bias = norm.bias + factor * ((maker.bias if maker.bias is not None else 0.0) - norm.running_mean)
    rows = maker.weight.flatten(1)
    maker.weight.copy_((matrix @ (factor[:, None] * rows)).view_as(maker.weight))
    if maker.bias is not None:
        maker.bias.zero_()
    norm.running_mean.zero_()
    norm.running_var.fill_(1.0)
    norm.weight.fill_((1 + norm.eps) ** 0.5)
    norm.bias.copy_(matrix @ bias)
