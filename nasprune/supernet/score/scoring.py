"""What scorers of operations share: gates, random numbers that repeat, norms by the batch, what is a weight."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nasprune.base import OpTask


def open_gates(task: OpTask) -> dict[str, Tensor]:
    """Choice -> ones (ops,) on the supernet's device, fresh leaves that collect gradients."""
    device = task.example.device
    return {one.name: torch.ones(len(one.ops), device=device, requires_grad=True) for one in task.choices}


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Inside, the random numbers of torch, Python and NumPy start from `seed`; afterwards they go on as before.

    device: where the net lies, beside the CPU.
    """
    python, arrays = random.getstate(), np.random.get_state()  # noqa: NPY002 - the global state is what nets draw from
    cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        torch.default_generator.manual_seed(seed)
        if cuda:
            torch.cuda.default_generators[device.index or 0].manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(arrays)  # noqa: NPY002


@contextmanager
def repeatable(task: OpTask) -> Iterator[None]:
    """Inside, random numbers start from `task.seed`; afterwards they go on as if nothing had been drawn.

    Two passes in two such blocks see the same dropout and the same noise, so that they can be compared.
    """
    with seeded(task.seed, task.example.device):
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
