"""What the evaluators share that run the cut network: its batch norms re-estimated, then a mean over validation images.

The statistics are re-estimated as in Li et al. 2020 (EagleEye), arXiv:2007.02491. A candidate that was refitted in
closed form is taken as it is: its statistics belong to the fit.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nasprune.base import Candidate, EvaluationTask, Evaluator
from nasprune.common.allocation import memory_reused
from nasprune.common.calls import spoken_output
from nasprune.errors import InputError
from nasprune.refit.recalibrate import batches_of, calibration_batches, recalibrate


class Ready:
    """Cut networks in eval mode, ready to be measured. Re-estimates on at most 1,024 images of `task.calibration`."""

    def __init__(self, task: EvaluationTask) -> None:
        self._task = task

    @cached_property
    def _batches(self) -> list[Tensor]:
        """Read when the first network needs them: refitted ones do not."""
        calibration = self._task.calibration
        return list(calibration_batches(calibration, self._task.device)) if calibration is not None else []

    def __call__(self, candidate: Candidate) -> nn.Module:
        model = candidate.model()
        if not candidate.refitted:
            recalibrate(model, self._batches)
        return model.eval()


class Measured(Evaluator):
    """A mean over `task.validation`. Of several outputs the first tensor (n, classes, ...) counts."""

    needs_data: ClassVar[bool] = True

    def __init__(self, task: EvaluationTask) -> None:
        if task.calibration is None or task.validation is None:
            raise InputError(
                f"the evaluator {self._name!r} needs data; give some with `data=` (`--data`), or take another"
            )
        self._ready = Ready(task)
        self._validation = task.validation
        self._device = torch.device(task.device)

    @memory_reused()
    def evaluate(self, candidate: Candidate) -> float:
        model = self._ready(candidate)
        total, count = 0.0, 0
        with torch.inference_mode():
            for number, (inputs, labels) in enumerate(batches_of(self._validation)):
                inputs = inputs.to(self._device)
                if not isinstance(labels, Tensor):
                    raise InputError(
                        f"the evaluator {self._name!r} compares class numbers, and targets of this data are dicts, as "
                        "of boxes; give evaluator='importance' (`--evaluator importance`), or a function of your own"
                    )
                value, size = self._sum(number, inputs, self._outputs(model, inputs), labels.to(self._device))
                total, count = total + value, count + size
        if not count:
            raise InputError(
                f"the evaluator {self._name!r} needs labels, and no validation image has one (labels below 0 do not "
                "count); give labelled data, or take the evaluator 'kl'"
            )
        return total / count

    @abstractmethod
    def _sum(self, number: int, inputs: Tensor, outputs: Tensor, labels: Tensor) -> tuple[float, int]:
        """What the batch called `number` adds to the sum, and how many terms that is."""

    def _outputs(self, model: nn.Module, inputs: Tensor) -> Tensor:
        return outputs_of(model, inputs, self._name)

    def _usable(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Which labels count: those not below 0. All must be classes of outputs (n, classes, ...)."""
        positions = (outputs.shape[0], *outputs.shape[2:])
        if labels.shape != positions or labels.is_floating_point():
            raise InputError(
                f"the evaluator {self._name!r} needs class numbers of shape {positions} in a batch, got labels "
                f"of shape {tuple(labels.shape)} and type {labels.dtype}; give such labels, or take the "
                "evaluator 'kl', which asks for none, or a function of your own: file.py:function"
            )
        largest, classes = int(labels.max()), outputs.shape[1]
        if largest >= classes:
            raise InputError(
                f"the validation images have the label {largest}, the model {classes} outputs, so labels must be below "
                f"{classes}; give a model with an output for every class, and -1 to what shall not count"
            )
        return labels >= 0

    @property
    def _name(self) -> str:
        return type(self).__name__.lower()


def outputs_of(model: nn.Module, inputs: Tensor, evaluator: str) -> Tensor:
    """The tensor (n, classes, ...) that a model returns, the first of several.

    Raises:
        InputError: it returns none; names the evaluator that needs one.
    """
    outputs: Any = model(inputs)
    found = spoken_output(outputs)
    if found is None:
        got = f"shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else f"a {type(outputs).__name__}"
        raise InputError(
            f"the evaluator {evaluator!r} needs a model that returns a tensor (n, classes, ...), got {got}; "
            "give a function of your own: file.py:function"
        )
    return found
