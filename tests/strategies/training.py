"""A residual network, and one training of it with a strategy."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

import nasprune
from nasprune.registry import entries, load
from tests.nets import EXAMPLE, images

STEPS = 12
EVERY = [entry.name for entry in entries("strategies")]
NAMES = [name for name in EVERY if "structure" in load("strategies", name).takes]
X, Y = images(48)


def trained(strategy: str, model: nn.Module, *, budget: str = "50%", lr: float = 0.05):
    """The result of a short training, and the trained network."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    pruner = nasprune.pruner(model, EXAMPLE, budget, steps=STEPS, strategy=strategy, optimizer=optimizer)
    model.train()
    for step in range(STEPS):
        part = slice(16 * (step % 3), 16 * (step % 3) + 16)
        optimizer.zero_grad()
        functional.cross_entropy(model(X[part]), Y[part]).backward()
        optimizer.step()
        pruner.step()
    model.eval()
    return pruner.finish()
