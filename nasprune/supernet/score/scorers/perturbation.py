"""Perturbation: Wang et al. 2021, "Rethinking architecture selection in differentiable NAS" (DARTS-PT),
arXiv:2108.04392.

    score(o) = loss(without o) - loss(with all),   or   accuracy(with all) - accuracy(without o)

on validation images: the candidate's output is multiplied by zero and the others are not renormalised, as in the paper.
Batch norms normalise by the batch as there, but their running statistics stay as they are.

Departures. What cannot be told from nothing counts as nothing: `errors` standard errors of the mean over images are
taken off every difference, towards zero, and among candidates at zero the architecture weights decide. Else an edge of
no importance keeps whatever few images favour, noise too, as on the space {noise, sep_conv_3x3} (Zela et al. 2020, S4,
arXiv:1909.09656). The default is the quantile at which one in twenty supernets of useless candidates has a candidate
that counts (Bonferroni: the more candidates, the more must a difference exceed). The paper's accuracy is the option
`metric=accuracy`; the loss, the default, tells candidates apart also where few images change sides. All candidates of
all choices are judged in the same supernet: the paper goes from edge to edge and trains in between, for which there are
schedules. `none`, whose output is zero anyway, is not run: 0.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist

import torch
from torch import Tensor

from nasprune.base import Batch, OpScorer, OpTask
from nasprune.common.losses import cross_entropy
from nasprune.errors import InputError
from nasprune.space.choices import OpChoice
from nasprune.supernet.score.scoring import batch_statistics, open_gates, repeatable
from nasprune.supernet.score.task import first_output

METRICS = ("loss", "accuracy")
FALSE = 0.05
"""Chance that any useless candidate counts."""
TIE = 1e-9
"""Score of a share of one, among candidates that have no other."""


class Perturbation(OpScorer):
    """What the supernet loses with a candidate's output at zero. metric: "loss" or "accuracy".

    batches: how many validation batches are used, at most; 0 is all. One pass over them for each candidate, and one.
    errors: how many standard errors a difference must exceed to count; 0 takes it as it is, `None` goes by the number
    of candidates.
    """

    needs_data = True

    def __init__(self, *, metric: str = "loss", batches: int = 0, errors: float | None = None) -> None:
        if metric not in METRICS:
            raise InputError(f"`metric` must be loss or accuracy, got {metric!r}")
        if batches < 0:
            raise InputError(f"`batches` must be at least 0, got {batches}")
        if errors is not None and errors < 0:
            raise InputError(f"`errors` must be at least 0, got {errors}")
        self._metric, self._batches, self._errors = metric, batches, errors

    def score(self, task: OpTask) -> Mapping[str, Tensor]:
        data = task.validation[: self._batches] if self._batches else task.validation
        if not data:
            raise InputError("perturbation needs validation images; give data")
        log = logging.getLogger(__name__)
        with torch.no_grad(), batch_statistics(task.net):
            gates = open_gates(task)
            whole = self._harms(task, gates, data)
            judged = sum(len(choice.connecting) for choice in task.choices)
            errors = NormalDist().inv_cdf(1 - FALSE / max(judged, 1)) if self._errors is None else self._errors
            scores = {}
            for number, choice in enumerate(task.choices, 1):
                gate = gates[choice.name]
                found = torch.zeros(len(choice.ops), dtype=torch.float64, device="cpu")
                for op in choice.connecting:
                    gate[op] = 0.0
                    found[op] = _difference(self._harms(task, gates, data) - whole, errors)
                    gate[op] = 1.0
                scores[choice.name] = found + (_ties(task, choice) if errors else 0.0)
                log.info("perturbation: choice %d of %d, %s", number, len(task.choices), choice.name)
        return scores

    def _harms(self, task: OpTask, gates: Mapping[str, Tensor], data: Sequence[Batch]) -> Tensor:
        """Loss of each image, or whether it is wrong, (n,), float64."""
        found = []
        with repeatable(task), task.gated(gates):
            for images, labels in data:
                images, labels = images.to(task.example.device), labels.to(task.example.device)
                logits = first_output(task.net(images))
                if self._metric == "loss":
                    found.append(cross_entropy(logits.double(), labels, "none"))
                else:
                    found.append((logits.argmax(1) != labels).double())
        harms = torch.cat(found).cpu()
        if not harms.isfinite().all():
            raise InputError("the supernet's loss on the validation images is not finite; train it first")
        return harms


def _difference(differences: Tensor, errors: float) -> float:
    """The mean of the differences (n,), moved towards zero by so many of its standard errors and no further."""
    mean = float(differences.mean())
    error = errors * float(differences.std(correction=0)) / math.sqrt(len(differences))
    return math.copysign(max(abs(mean) - error, 0.0), mean)


def _ties(task: OpTask, choice: OpChoice) -> Tensor:
    """What decides between candidates at zero, (ops,): the architecture weights."""
    shares = task.shares(choice)
    ties = torch.zeros(len(choice.ops), dtype=torch.float64, device="cpu")
    if shares is not None:
        connecting = list(choice.connecting)
        ties[connecting] = TIE * shares.double().cpu()[connecting]
    return ties
