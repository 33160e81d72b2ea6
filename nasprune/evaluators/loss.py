"""Negative cross-entropy of the cut network with fresh batch-norm statistics.

It moves with every change of the outputs, where accuracy jumps by one image. Labels below zero, such as the -100 that
torch leaves out, do not count.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from nasprune.evaluators.measured import Measured


class Loss(Measured):
    """Minus the mean cross-entropy in nats over validation images, at most 0; outputs (n, classes, ...) are logits."""

    def _sum(self, number: int, inputs: Tensor, outputs: Tensor, labels: Tensor) -> tuple[float, int]:
        known = self._usable(outputs, labels)
        labels = labels.long().masked_fill(~known, -100)
        return -float(functional.cross_entropy(outputs.double(), labels, reduction="sum")), int(known.sum())
