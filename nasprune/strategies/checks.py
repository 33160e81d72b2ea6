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
from nasprune.strategies.contract import Strategy
from nasprune.strategies.pruner import Pruned, Pruner, Rate
from nasprune.strategies.task import Task

STEPS = 6
CHANGE = 1e-4


def check_strategy(kind: type[Strategy]) -> None:
    """A strategy ends within the budget with a cut that changes no output, the same for the same seed.

    It is run for a few steps on a small residual network, with each kind of budget that it takes. It must not draw
    from the global generators while it steps, nor give a network back whose outputs its cut changes by more than 1e-4
    of the largest.

    Raises:
        PluginError: it does not.
    """
    for budget in kind.takes:
        _check(kind, sparse=budget == "zeros")


def _check(kind: type[Strategy], *, sparse: bool) -> None:
    first, second = (_pruned(kind, sparse=sparse) for _ in range(2))
    if not first.change <= CHANGE:
        _fail(kind, f"changes outputs by {first.change:.1e} of the largest in the cut; empty or merge what goes before")
    same = zip(first.model.state_dict().values(), second.model.state_dict().values(), strict=False)
    if first.plan != second.plan or not all(torch.equal(a, b) for a, b in same):
        _fail(kind, "comes to another network when run again; draw with a generator seeded by `task.seed`")


def _pruned(kind: type[Strategy], *, sparse: bool) -> Pruned:
    model = _net()
    graph = trace(twin(model).eval(), torch.zeros(1, 3, 8, 8, device="cpu"))
    goal = Budget() if sparse else Budget.parse("60%")
    nonzeros = sum(parameter.numel() for parameter in model.parameters()) // 2 if sparse else None
    task = Task(model, graph, PricedSpace(graph, search_space(graph), CostModel(graph), goal), 1, nonzeros)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    with own_randomness(model), torch.no_grad():
        seed_all(task.seed, model)
        strategy = kind(task)
    pruner = Pruner(task, strategy, _name(kind), STEPS, Rate(optimizer, 0.0))
    generator = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        images, labels = torch.randn(8, 3, 8, 8, generator=generator, device="cpu"), torch.arange(8, device="cpu") % 4
        optimizer.zero_grad()
        functional.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        before = _generators()
        pruner.step()
        if _generators() != before:
            _fail(kind, "draws from a global generator; draw with a generator seeded by `task.seed`")
    return pruner.finish()


class _Branch(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        branch: Tensor = self.norm(self.conv(x))
        return (x + branch).relu()


def _net() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        stem = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()
        widened = nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)
        return nn.Sequential(*stem, _Branch(8), *widened)


def _generators() -> list[object]:
    return [torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())]  # noqa: NPY002


def _name(kind: object) -> str:
    return str(getattr(kind, "__name__", kind))


def _fail(kind: object, duty: str) -> NoReturn:
    raise PluginError(f"strategy `{_name(kind)}` {duty}")
