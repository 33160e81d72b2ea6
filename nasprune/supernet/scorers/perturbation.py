"""Perturbation: Wang et al. 2021, "Rethinking architecture selection in differentiable NAS" (DARTS-PT),
arXiv:2108.04392.

    score(o) = loss(without o) - loss(with all),   or   accuracy(with all) - accuracy(without o)

on validation images: the candidate's output is multiplied by zero and the others are not renormalised, as in the paper.
Batch norms normalise by the batch as there, but their running statistics stay as they are.

Departures. The paper's accuracy is the option `metric=accuracy`; the loss, the default, tells candidates apart also
where few images change sides. All candidates of all choices are judged in the same supernet: the paper goes from edge
to edge and trains in between, for which there are schedules. `none`, whose output is zero anyway, is not run: 0.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from nasprune.base import Batch, OpScorer, OpTask
from nasprune.errors import InputError
from nasprune.supernet.scoring import batch_statistics, open_gates, repeatable
from nasprune.supernet.task import first_output

METRICS = ("loss", "accuracy")


class Perturbation(OpScorer):
    """What the supernet loses with a candidate's output at zero. metric: "loss" or "accuracy".

    batches: how many validation batches are used, at most; 0 is all. One pass over them for each candidate, and one.
    """

    needs_data = True

    def __init__(self, *, metric: str = "loss", batches: int = 0) -> None:
        if metric not in METRICS:
            raise InputError(f"`metric` must be loss or accuracy, got {metric!r}")
        if batches < 0:
            raise InputError(f"`batches` must be at least 0, got {batches}")
        self._metric, self._batches = metric, batches

    def score(self, task: OpTask) -> Mapping[str, Tensor]:
        data = task.validation[: self._batches] if self._batches else task.validation
        if not data:
            raise InputError("perturbation needs validation images; give data")
        log = logging.getLogger(__name__)
        with torch.no_grad(), batch_statistics(task.net):
            gates = open_gates(task)
            whole = self._harm(task, gates, data)
            scores = {}
            for number, choice in enumerate(task.choices, 1):
                gate = gates[choice.name]
                found = torch.zeros(len(choice.ops), dtype=torch.float64)
                for op in choice.connecting:
                    gate[op] = 0.0
                    found[op] = self._harm(task, gates, data) - whole
                    gate[op] = 1.0
                scores[choice.name] = found
                log.info("perturbation: choice %d of %d, %s", number, len(task.choices), choice.name)
        return scores

    def _harm(self, task: OpTask, gates: Mapping[str, Tensor], data: Sequence[Batch]) -> float:
        """Mean loss, or share of errors, over all images."""
        total, count = 0.0, 0
        with repeatable(task), task.gated(gates):
            for images, labels in data:
                images, labels = images.to(task.example.device), labels.to(task.example.device)
                outputs = task.net(images)
                if self._metric == "loss":
                    total += float(task.loss(outputs, labels)) * len(labels)
                else:
                    total += float((first_output(outputs).argmax(1) != labels).sum())
                count += len(labels)
        if not math.isfinite(total):
            raise InputError("the supernet's loss on the validation images is not finite; train it first")
        return total / count
