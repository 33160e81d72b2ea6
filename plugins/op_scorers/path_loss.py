"""Losses of single paths: a supernet that was trained on single paths judges its networks with the weights they share.

    score(o) = effect of o on  - rank(validation loss)  over random paths, less the smallest effect in its choice

Guo et al. 2020, "Single path one-shot neural architecture search with uniform sampling", arXiv:1904.00420, who search
by the accuracies of paths of such a supernet (`nasprune supernet train --method paths`). Departures: a linear model in
the operations replaces their evolution, since a trim wants worths; batch norms normalise by the batch, where the paper
re-estimates their statistics for each path; the loss tells paths apart where accuracies tie.

On a supernet that was trained otherwise the losses say little.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from nasprune import Batch, InputError, OpScorer, OpTask, batch_statistics, draw_paths, main_effects, ranks, repeatable


class PathLoss(OpScorer):
    """Effects of operations on the validation losses of random single paths.

    paths: how many are drawn, so that each operation of a choice comes equally often; fewer where there are fewer.
    batches: of validation images, at most; 0 is all.
    """

    needs_data: ClassVar[bool] = True

    def __init__(self, *, paths: int = 400, batches: int = 4) -> None:
        if paths < 2 or batches < 0:
            raise InputError(f"expected at least 2 `paths` and 0 `batches`, got {paths} and {batches}")
        self._paths, self._batches = paths, batches

    def score(self, task: OpTask) -> Mapping[str, Tensor]:
        data = task.validation[: self._batches] if self._batches else task.validation
        if not data:
            raise InputError("path_loss needs validation images; give data")
        log = logging.getLogger(__name__)
        paths = draw_paths(task.choices, self._paths, task.seed)
        losses = []
        with torch.no_grad(), batch_statistics(task.net):
            for number, path in enumerate(paths, 1):
                losses.append(_loss(task, path, data))
                if number % 50 == 0:
                    log.info("path_loss: %d of %d paths have run", number, len(paths))
        return main_effects(task.choices, paths, -ranks(losses))


def _loss(task: OpTask, path: Mapping[str, int], data: Sequence[Batch]) -> float:
    device, total, seen = task.example.device, 0.0, 0
    with repeatable(task), task.on_path(path):
        for images, labels in data:
            total += len(labels) * float(task.loss(task.net(images.to(device)), labels.to(device)))
            seen += len(labels)
    return total / seen
