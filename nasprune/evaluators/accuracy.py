"""Accuracy of the cut network with fresh batch-norm statistics: Li et al. 2020 (EagleEye), arXiv:2007.02491.

The candidate is cut for real, its batch norms are re-estimated on calibration data, and top-1 is taken on validation
data. The paper shows that this ranks candidates much as fine-tuning would; without the re-estimation it does not.
"""

from __future__ import annotations

from typing import ClassVar

import torch

from nasprune.base import Candidate, EvaluationTask, Evaluator
from nasprune.errors import InputError
from nasprune.recalibrate import batches_of, calibration_batches, recalibrate


class Accuracy(Evaluator):
    """Top-1 on `task.validation` after re-estimation on at most 1,024 images of `task.calibration`, in [0, 1].

    A candidate that was refitted in closed form is taken as it is: its statistics belong to the fit.
    """

    needs_data: ClassVar[bool] = True

    def __init__(self, task: EvaluationTask) -> None:
        if task.calibration is None or task.validation is None:
            raise InputError("the evaluator 'accuracy' needs data; give some with `data=` (`--data`), or take another")
        self._device = torch.device(task.device)
        self._calibration = list(calibration_batches(task.calibration, self._device))
        self._validation = task.validation

    def evaluate(self, candidate: Candidate) -> float:
        model = candidate.model()
        if not candidate.refitted:
            recalibrate(model, self._calibration)
        model.eval()
        right = total = 0
        with torch.inference_mode():
            for inputs, labels in batches_of(self._validation):
                predicted = model(inputs.to(self._device)).argmax(dim=1).cpu()
                right += int((predicted == labels).sum())
                total += len(labels)
        return right / max(total, 1)
