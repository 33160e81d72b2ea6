"""What scorers of operations share: gates, random numbers that repeat, norms by the batch, what is a weight."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nasprune.base import OpTask


def open_gates(task: OpTask) -> dict[str, Tensor]:
    """Choice -> ones (ops,) on the supernet's device, fresh leaves that collect gradients."""
    device = task.example.device
    return {one.name: torch.ones(len(one.ops), device=device, requires_grad=True) for one in task.choices}


@contextmanager
def repeatable(task: OpTask) -> Iterator[None]:
    """Inside, torch's random numbers start from `task.seed`; afterwards they go on as if nothing had been drawn.

    Two passes in two such blocks see the same dropout and the same noise, so that they can be compared.
    """
    device = task.example.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(task.seed)
        yield


@contextmanager
def batch_statistics(net: nn.Module) -> Iterator[None]:
    """Inside, batch norms normalise by the batch; their running statistics stay as they are. Nothing stays behind."""
    norms = [module for module in net.modules() if isinstance(module, _BatchNorm)]
    before = [(norm, norm.training, norm.track_running_stats) for norm in norms]
    try:
        for norm in norms:
            norm.training, norm.track_running_stats = True, False
        yield
    finally:
        for norm, training, tracks in before:
            norm.training, norm.track_running_stats = training, tracks


def weights_of(task: OpTask) -> list[nn.Parameter]:
    """The net's parameters that require gradients and are no architecture weights."""
    parameters = [parameter for parameter in task.net.parameters() if parameter.requires_grad]
    with torch.enable_grad():
        logits = [found for found in map(task.logits, task.choices) if found is not None and found.requires_grad]
    if not logits or not parameters:
        return parameters
    total = torch.stack([found.sum() for found in logits]).sum()
    used = torch.autograd.grad(total, parameters, allow_unused=True)
    return [parameter for parameter, slope in zip(parameters, used, strict=True) if slope is None]
