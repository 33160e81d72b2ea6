"""What every strategy owes, as a check for its author's own tests."""

from __future__ import annotations

import random
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from nasprune.common.randomness import own_randomness, seed_all
from nasprune.common.untouched import twin
from nasprune.cost.budget import Budget
from nasprune.cost.flops import CostModel
from nasprune.errors import PluginError
from nasprune.run.names import search_space
from nasprune.run.trace import trace
from nasprune.space.priced import PricedSpace
from nasprune.strategies import memory
from nasprune.strategies.contract import Strategy
from nasprune.strategies.hooks import forward_hooks
from nasprune.strategies.pruner import Pruned, Pruner, Rate
from nasprune.strategies.task import Task

STEPS = 6
CHANGE = 1e-4


def check_strategy(kind: type[Strategy]) -> None:
    """A strategy ends within the budget with a cut that changes no output, the same for the same seed.

    It is run for a few steps on a small residual network, with each kind of budget that it takes. It must not draw
    from the global generators while it steps, nor give a network back whose outputs its cut changes by more than 1e-4
    of the largest. A run that is broken off, and goes on with a strategy made anew that is given the memory of the
    first, comes to the same.

    Raises:
        PluginError: it does not.
    """
    for budget in kind.takes:
        _check(kind, sparse=budget == "zeros")


def _check(kind: type[Strategy], *, sparse: bool) -> None:
    first, resumed = _pruned(kind, sparse=sparse), _pruned(kind, sparse=sparse, broken_off=True)
    if not first.change <= CHANGE:
        _fail(kind, f"changes outputs by {first.change:.1e} of the largest in the cut; empty or merge what goes before")
    if _same(first, resumed):
        return
    if not _same(first, _pruned(kind, sparse=sparse)):
        _fail(kind, "comes to another network when run again; draw with a generator seeded by `task.seed`")
    _fail(kind, "comes to another network when it is broken off and goes on; keep all that it remembers in attributes")


def _same(first: Pruned, second: Pruned) -> bool:
    pairs = zip(first.model.state_dict().values(), second.model.state_dict().values(), strict=False)
    return first.plan == second.plan and all(torch.equal(a, b) for a, b in pairs)


def _pruned(kind: type[Strategy], *, sparse: bool, broken_off: bool = False) -> Pruned:
    """broken_off: half of the steps on another network, with another strategy that remembers as the first did."""
    made = _made(kind, sparse=sparse)
    generator = torch.Generator().manual_seed(0)
    for number in range(STEPS):
        if broken_off and number == STEPS // 2:
            made = _moved(made, _made(kind, sparse=sparse))
        pruner, optimizer = made
        images, labels = torch.randn(8, 3, 8, 8, generator=generator, device="cpu"), torch.arange(8, device="cpu") % 4
        optimizer.zero_grad()
        functional.cross_entropy(pruner.task.model(images), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        before = _generators()
        pruner.step()
        if _generators() != before:
            _fail(kind, "draws from a global generator; draw with a generator seeded by `task.seed`")
    return made[0].finish()


def _made(kind: type[Strategy], *, sparse: bool) -> tuple[Pruner, torch.optim.Optimizer]:
    model = _net()
    graph = trace(twin(model).eval(), torch.zeros(1, 3, 8, 8, device="cpu"))
    goal = Budget() if sparse else Budget.parse("60%")
    nonzeros = sum(parameter.numel() for parameter in model.parameters()) // 2 if sparse else None
    task = Task(model, graph, PricedSpace(graph, search_space(graph), CostModel(graph), goal), 1, nonzeros)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    with own_randomness(model), torch.no_grad():
        seed_all(task.seed, model)
        strategy = kind(task)
    own = frozenset(number for place in forward_hooks(model) for number in place)
    return Pruner(task, strategy, _name(kind), STEPS, Rate(optimizer, 0.0), own), optimizer


def _moved(
    old: tuple[Pruner, torch.optim.Optimizer], new: tuple[Pruner, torch.optim.Optimizer]
) -> tuple[Pruner, torch.optim.Optimizer]:
    """The new ones with all that the old ones know."""
    (before, first), (after, second) = old, new
    kept = memory.written(before.strategy, before.task, before.name)
    after.task.model.load_state_dict(before.task.model.state_dict())
    second.load_state_dict(first.state_dict())
    memory.read(kept, after.strategy, after.task)
    after.go_back(before.steps)
    return new


class _Branch(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner, self.inner_norm = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv, self.norm = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        branch: Tensor = self.norm(self.conv(self.inner_norm(self.inner(x)).relu()))
        return (x + branch).relu()


def _net() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        stem = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()
        widened = nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)
        return nn.Sequential(*stem, _Branch(8), *widened)


def _generators() -> list[object]:
    return [torch.get_rng_state().numpy().tobytes(), random.getstate(), str(np.random.get_state())]  # noqa: NPY002


def _name(kind: object) -> str:
    return str(getattr(kind, "__name__", kind))


def _fail(kind: object, duty: str) -> NoReturn:
    raise PluginError(f"strategy `{_name(kind)}` {duty}")
