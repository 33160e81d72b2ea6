"""Accuracy of the cut network with fresh batch-norm statistics: Li et al. 2020 (EagleEye), arXiv:2007.02491.

The candidate is cut for real, its batch norms are re-estimated on calibration data, and top-1 is taken on validation
data. The paper shows that this ranks candidates much as fine-tuning would; without the re-estimation it does not.
Labels below zero, such as the -100 that torch leaves out, do not count.
"""

from __future__ import annotations

from torch import Tensor

from nasprune.evaluators.measured import Measured


class Accuracy(Measured):
    """Top-1 on validation images, in [0, 1]; every position of outputs (n, classes, ...) counts."""

    def _sum(self, number: int, inputs: Tensor, outputs: Tensor, labels: Tensor) -> tuple[float, int]:
        known = self._usable(outputs, labels)
        return int((outputs.argmax(dim=1) == labels).sum()), int(known.sum())
