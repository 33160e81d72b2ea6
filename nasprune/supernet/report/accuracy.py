"""How often a supernet is right, as it stands and with batch-norm statistics of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from nasprune.base import Batch
from nasprune.refit.recalibrate import recalibrate
from nasprune.supernet.score.task import ScoringTask, first_output
from nasprune.supernet.structure.structure import Structure
from nasprune.supernet.trim.trimming import Data

CALIBRATION = 4
"""Training batches, at most, that batch norms are re-estimated on."""


def accuracies(structure: Structure, data: Data, seed: int) -> tuple[float, float]:
    """Top-1 on the validation batches in eval mode, in [0, 1]: as it stands, and with statistics of the training ones.

    The net is left alone: a copy is looked at.

    Raises:
        InputError: the net gives no logits.
    """
    net = ScoringTask.on_copy(structure, (), (), seed).net
    device = structure.inputs[0].device
    plain = accuracy(net, data.validation, device, seed)
    recalibrate(net, [images.to(device) for images, _ in data.train[:CALIBRATION]])
    return plain, accuracy(net, data.validation, device, seed)


def accuracy(net: nn.Module, batches: Sequence[Batch], device: torch.device, seed: int) -> float:
    """Top-1 over all batches, in the mode that the net is in, in [0, 1]. The seed is for operations that draw noise."""
    right = seen = 0
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for images, labels in batches:
            predicted = first_output(net(images.to(device))).argmax(1).cpu()
            right += int((predicted == labels).sum())
            seen += len(labels)
    return right / max(seen, 1)


def norms_without_averages(net: nn.Module) -> tuple[int, int]:
    """How many batch norms keep no running statistics, and how many there are."""
    norms = [module for module in net.modules() if isinstance(module, _BatchNorm)]
    return sum(norm.running_mean is None for norm in norms), len(norms)
