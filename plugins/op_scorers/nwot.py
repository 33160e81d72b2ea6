"""Zero-Cost-PT: Xiang et al. 2021, arXiv:2106.08619, with the score of Mellor et al. 2021 (NASWOT, arXiv:2006.04647).

    score(o) = S(all) - S(without o),   S = log det K,   K = sum over ReLUs of  x x^T + (1 - x)(1 - x)^T

where row i of x in {0, 1} says which units are active for image i: images that the net can tell apart give a large
determinant. The output of the candidate that is left out is multiplied by zero; the ReLUs inside it run on and count as
before, so that a candidate is not favoured for having more of them. Batch norms normalise by the batch.

Departures: every candidate is judged once in the whole supernet, without the paper's random orders and re-runs; a
millionth of K's mean diagonal is added to it, so that images of equal codes give a finite score. Trained or not, the
weights are those of the supernet. Only ReLU and ReLU6 are seen, as modules or as functions.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from nasprune import (
    InputError,
    OpScorer,
    OpTask,
    ReluCodes,
    batch_statistics,
    open_gates,
    repeatable,
    unlabelled_images,
)


class NWOT(OpScorer):
    """log det of the kernel of ReLU codes, with and without the candidate; needs no labels, and no data.

    images: of a batch, at most. batches: of validation images, over which the score is averaged. Without data the
    images are the supernet's example inputs if there are eight of them at least, and standard normal ones otherwise.
    """

    needs_data: ClassVar[bool] = False

    def __init__(self, *, images: int = 64, batches: int = 1) -> None:
        if images < 2 or batches < 1:
            raise InputError(f"expected at least 2 `images` and 1 of `batches`, got {images} and {batches}")
        self._images, self._batches = images, batches

    def score(self, task: OpTask) -> Mapping[str, Tensor]:
        batches = task.validation[: self._batches]
        inputs = [images[: self._images].to(task.example.device) for images, _ in batches]
        inputs = inputs or [unlabelled_images(task, self._images)]
        with torch.no_grad(), batch_statistics(task.net):
            gates = open_gates(task)
            whole = _log_det(task, gates, inputs)
            scores = {}
            for choice in task.choices:
                found = torch.zeros(len(choice.ops), dtype=torch.float64, device="cpu")
                for op in choice.connecting:
                    gates[choice.name][op] = 0.0
                    found[op] = whole - _log_det(task, gates, inputs)
                    gates[choice.name][op] = 1.0
                scores[choice.name] = found
        return scores


def _log_det(task: OpTask, gates: Mapping[str, Tensor], inputs: list[Tensor]) -> float:
    total = 0.0
    for images in inputs:
        codes = ReluCodes(len(images))
        with repeatable(task), task.gated(gates), codes:
            task.net(images)
        if codes.seen == 0:
            raise InputError("nwot looks at ReLUs, and the supernet runs none; take another scorer")
        total += codes.log_det
    return total / len(inputs)
