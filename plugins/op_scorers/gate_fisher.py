"""Second-order estimate of the loss without a candidate: the empirical Fisher information of its gate.

    score = mean of (dL/dg)^2,   g = 1 the factor on the candidate's output

Theis et al. 2018 (arXiv:1801.05787) give it for channels, Molchanov et al. 2019 (arXiv:1906.10771) for gates.
`per=image` is their definition, with the gradient of every image by itself. Departure: `per=batch`, the default,
squares the gradient of a batch's mean loss: one backward pass a batch instead of one an image, and an estimate of the
squared mean gradient rather than of the mean square. The net is in evaluation mode.
"""

from collections.abc import Iterator, Mapping
from typing import ClassVar

import torch
from torch import Tensor

from nasprune import Batch, InputError, OpScorer, OpTask, open_gates, repeatable


class GateFisher(OpScorer):
    """(dL/dg)^2 at g = 1. per: "batch" or "image". batches: of validation images, at most; 0 is all."""

    needs_data: ClassVar[bool] = True

    def __init__(self, *, per: str = "batch", batches: int = 8) -> None:
        if per not in ("batch", "image"):
            raise InputError(f"`per` must be batch or image, got {per!r}")
        if batches < 0:
            raise InputError(f"`batches` must be at least 0, got {batches}")
        self._per, self._batches = per, batches

    def score(self, task: OpTask) -> Mapping[str, Tensor]:
        gates = open_gates(task)
        totals = {name: torch.zeros(len(gate), dtype=torch.float64, device="cpu") for name, gate in gates.items()}
        count = 0
        for images, labels in self._pieces(task):
            with repeatable(task), torch.enable_grad(), task.gated(gates):
                outputs = task.net(images.to(task.example.device))
                loss = task.loss(outputs, labels.to(task.example.device))
                slopes = torch.autograd.grad(loss, list(gates.values()), allow_unused=True, materialize_grads=True)
            for name, slope in zip(gates, slopes, strict=True):
                totals[name] += slope.double().cpu().square()
            count += 1
        if not count:
            raise InputError("gate_fisher needs validation images; give data")
        return {name: total / count for name, total in totals.items()}

    def _pieces(self, task: OpTask) -> Iterator[Batch]:
        for images, labels in task.validation[: self._batches] if self._batches else task.validation:
            size = len(labels) if self._per == "batch" else 1
            yield from zip(images.split(size), labels.split(size), strict=True)
