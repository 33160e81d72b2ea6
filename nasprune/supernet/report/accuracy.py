"""How often a supernet is right, as it stands and with batch-norm statistics of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nasprune.base import Batch
from nasprune.common.arguments import described
from nasprune.errors import InputError
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
    """Top-1 over all labelled images, in the mode that the net is in, in [0, 1]. Labels below 0 are none.

    seed: for operations that draw noise.

    Raises:
        InputError: labels are no class numbers, one for each image, or no image has one.
    """
    right = seen = 0
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for images, labels in batches:
            predicted = first_output(net(images.to(device))).argmax(1).cpu()
            if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.shape != predicted.shape:
                of = f" of {labels.dtype}" if isinstance(labels, Tensor) else ""
                raise InputError(
                    f"accuracy needs class numbers of shape {tuple(predicted.shape)}, got {described(labels)}{of}; "
                    "give such labels"
                )
            known = labels >= 0
            right += int((predicted == labels)[known].sum())
            seen += int(known.sum())
    if not seen:
        raise InputError("accuracy needs labels, and no validation image has one; give some")
    return right / seen


def norms_without_averages(net: nn.Module) -> tuple[int, int]:
    """How many batch norms keep no running statistics, and how many there are."""
    norms = [module for module in net.modules() if isinstance(module, _BatchNorm)]
    return sum(norm.running_mean is None for norm in norms), len(norms)
