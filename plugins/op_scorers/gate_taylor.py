"""First-order estimate of the loss without a candidate, from one backward pass for all candidates.

    score = mean over batches of |g dL/dg|,   g = 1 the factor on the candidate's output

This is SNIP's connection sensitivity (Lee, Ajanthan & Torr 2019, arXiv:1810.02340) and Molchanov et al.'s Taylor
criterion (2019, arXiv:1906.10771) on whole operations. Departures: on operations neither paper has tried it; SNIP's
division by the sum of all scores is left out, it changes no comparison. The net is in evaluation mode.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from nasprune import InputError, OpScorer, OpTask, open_gates, repeatable


class GateTaylor(OpScorer):
    """|g dL/dg| at g = 1. batches: of validation images, at most; 0 is all. A backward pass for each."""

    needs_data: ClassVar[bool] = True

    def __init__(self, *, batches: int = 8) -> None:
        if batches < 0:
            raise InputError(f"`batches` must be at least 0, got {batches}")
        self._batches = batches

    def score(self, task: OpTask) -> Mapping[str, Tensor]:
        data = task.validation[: self._batches] if self._batches else task.validation
        if not data:
            raise InputError("gate_taylor needs validation images; give data")
        gates = open_gates(task)
        scores = {name: torch.zeros(len(gate), dtype=torch.float64, device="cpu") for name, gate in gates.items()}
        for images, labels in data:
            with repeatable(task), torch.enable_grad(), task.gated(gates):
                outputs = task.net(images.to(task.example.device))
                loss = task.loss(outputs, labels.to(task.example.device))
                slopes = torch.autograd.grad(loss, list(gates.values()), allow_unused=True, materialize_grads=True)
            for name, slope in zip(gates, slopes, strict=True):
                scores[name] += slope.double().cpu().abs() / len(data)
        return scores
