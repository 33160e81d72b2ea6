"""How far the cut network's predictions are from the dense one's; needs images, no labels.

The Kullback-Leibler divergence from the dense softmax to the candidate's, as in distillation (Hinton et al. 2015,
arXiv:1503.02531) but at temperature 1, with batch norms re-estimated as for `accuracy`. It moves with every change of
the outputs, where accuracy jumps by one image, and it asks for what the dense network says and not for what is right.
"""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

from torch import Tensor

from nasprune.base import Candidate, EvaluationTask
from nasprune.common.losses import divergence
from nasprune.common.untouched import undisturbed
from nasprune.data.scales import variances
from nasprune.evaluators.measured import Measured

REMEMBERED = 2**27
"""Numbers of the dense network's outputs that are kept between candidates; further batches are run again."""


class KL(Measured):
    """Minus the mean of KL(dense || candidate) in nats, at most 0: 0 is the dense network.

    The softmax runs over axis 1 of outputs (n, classes, ...); the mean over images and all positions. Where labels are
    numbers, and not whole ones, outputs are numbers, too: of these it is half the squared change relative to how much
    the dense network's vary. A single output has no softmax either; without such labels its variance counts as 1.
    """

    reads_labels: ClassVar[bool] = False

    def __init__(self, task: EvaluationTask) -> None:
        super().__init__(task)
        self._dense = task.dense
        self._known: dict[int, Tensor] = {}

    def evaluate(self, candidate: Candidate) -> float:
        changed = candidate.keep or candidate.drop or candidate.zeroed or not candidate.refitted
        return super().evaluate(candidate) if changed else 0.0

    def _sum(self, number: int, inputs: Tensor, outputs: Tensor, labels: Tensor) -> tuple[float, int]:
        dense, cut = self._of_dense(number, inputs).double(), outputs.double()
        positions = outputs.numel() // outputs.shape[1]
        return -float(divergence(dense, cut, variance=self._variance)), positions

    @cached_property
    def _variance(self) -> Tensor | None:
        return variances(self._dense, self._validation)

    def _of_dense(self, number: int, inputs: Tensor) -> Tensor:
        if number in self._known:
            return self._known[number]
        with undisturbed(self._dense) as dense:
            found = self._outputs(dense, inputs)
        if found.numel() + sum(outputs.numel() for outputs in self._known.values()) <= REMEMBERED:
            self._known[number] = found
        return found
