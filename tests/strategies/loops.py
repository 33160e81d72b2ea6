"""A small network, and loops of training it with strategies for zeros."""

from __future__ import annotations

import sys

import torch
from torch import nn
from torch.nn import functional

import nasprune
from nasprune.registry import entries, load

X = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(64) % 4
KINDS = {entry.name: load("strategies", entry.name) for entry in entries("strategies")}
SPARSE = [name for name, kind in KINDS.items() if "zeros" in kind.takes]
BOTH = [name for name in SPARSE if "structure" in KINDS[name].takes]


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4))


def started(strategy: str, budget: str = "40%NNZ", steps: int = 12, lr: float = 0.1):
    model = small_net()
    sgd = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    return model, sgd, nasprune.pruner(model, X[:1], budget, steps=steps, strategy=strategy, optimizer=sgd)


def run(model, sgd, pruner, steps: int = 12) -> None:
    for _ in range(steps):
        sgd.zero_grad()
        functional.cross_entropy(model(X), Y).backward()
        sgd.step()
        pruner.step()


def module_of(name: str):
    return sys.modules[KINDS[name].__module__]
