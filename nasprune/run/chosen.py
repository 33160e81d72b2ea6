"""Which trial becomes the result.

The highest score wins, except over the knapsack's own decision, the first trial of the controller `auto`. A few hundred
validation images, which the dense network has often memorised, favour some of many trials by chance, so that a longer
search would end with a worse network. A later trial wins only where its outputs are nearer to the dense network's than
the first one's, on the same images, in pairs, by more than chance would give the best of so many.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from math import sqrt
from statistics import NormalDist

import torch
from torch import Tensor

from nasprune.base import Candidate, EvaluationTask
from nasprune.common.allocation import memory_reused
from nasprune.common.losses import divergences
from nasprune.common.untouched import undisturbed
from nasprune.controllers.auto import Auto
from nasprune.data.scales import variances
from nasprune.evaluators.measured import Measured, Ready, outputs_of
from nasprune.refit.recalibrate import batches_of
from nasprune.run.methods import Methods
from nasprune.space.choices import Decision
from nasprune.space.trials import Trial

CHALLENGERS = 3
"""How many of the later trials are compared, the best scores first."""
CHANCE = 0.05


def chosen(
    methods: Methods, task: EvaluationTask, trials: Sequence[Trial], candidate: Callable[[Decision], Candidate]
) -> Trial:
    """The trial that becomes the result. candidate: cuts a decision for real."""
    best = max(trials, key=lambda trial: trial.score)
    first, paired = trials[0], methods.controller is Auto and issubclass(methods.evaluator, Measured)
    if not paired or best.decision == first.decision or task.validation is None:
        return best
    later = {trial.decision.digest: trial for trial in sorted(trials, key=lambda trial: trial.score)}
    ranked = [trial for trial in reversed(later.values()) if trial.score >= first.score and trial is not first]
    measured = Divergences(task)
    against = measured(candidate(first.decision))
    nearest, most = first, 0.0
    for trial in ranked[:CHALLENGERS]:
        gains = against - measured(candidate(trial.decision))
        if float(gains.mean()) > most and beyond_chance(gains, len(trials)):
            nearest, most = trial, float(gains.mean())
    return nearest


def beyond_chance(gains: Tensor, trials: int) -> bool:
    """Whether a mean gain is more than the best of so many trials has by chance, in a paired one-sided test.

    gains: shape (images,). The level is divided by the number of trials (Bonferroni).
    """
    error = float(gains.std()) / sqrt(len(gains)) if len(gains) > 1 else float("inf")
    return float(gains.mean()) > NormalDist().inv_cdf(1 - CHANCE / max(trials, 2)) * error


class Divergences:
    """How far a cut network's outputs are from the dense one's, KL(dense || cut) in nats for each validation image."""

    def __init__(self, task: EvaluationTask) -> None:
        self._task = task
        self._ready = Ready(task)

    @cached_property
    def _variance(self) -> Tensor | None:
        assert self._task.validation is not None
        return variances(self._task.dense, self._task.validation)

    @memory_reused()
    def __call__(self, candidate: Candidate) -> Tensor:
        model = self._ready(candidate)
        found = []
        with torch.inference_mode(), undisturbed(self._task.dense) as dense:
            assert self._task.validation is not None
            for inputs, _ in batches_of(self._task.validation):
                inputs = inputs.to(self._task.device)
                wanted, given = (outputs_of(net, inputs, "kl").double() for net in (dense, model))
                found.append(divergences(wanted, given, self._variance))
        return torch.cat(found)
