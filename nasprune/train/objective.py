"""What a training step lowers: cross-entropy with labels, and with a teacher the distance to what it says.

Distillation follows Hinton, Vinyals, Dean 2015, "Distilling the knowledge in a neural network", arXiv:1503.02531: the
student matches the teacher's outputs softened by a temperature T, weighted by T² so that gradients keep their size, and
also the labels. Departure: the weight of the two terms is one share, `soft_share`. Where it is known which channels the
student has of the teacher's, features at the borders of blocks can be matched, too (Romero et al. 2015, "FitNets",
arXiv:1412.6550, without its regressor, since the channels are the same), as relative squared errors; of networks that
give their own losses, such as detectors, only these are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from nasprune.train.measures import class_outputs
from nasprune.train.nearness import Compared, Nearness
from nasprune.train.recipe import Recipe
from nasprune.train.targets import AnyTask, ModelTask, Numbers, TrainingTask, one_number


@dataclass(frozen=True)
class Objective:
    """The loss. near: compares with the teacher; `None` without one. task: what the labels are learned as."""

    recipe: Recipe
    near: Nearness | None
    task: AnyTask

    def __call__(self, model: nn.Module, images: Any, targets: Any) -> tuple[Tensor, float]:
        """The loss, and how many of the images are right; not known where the network gives losses alone."""
        if isinstance(self.task, ModelTask):
            return self._of_network(self.task, model, images, targets), math.nan
        loss, outputs = self._compared(self.task, model, images, targets)
        return loss, float(self.task.score(outputs.detach(), targets).sum())

    def _of_network(self, task: ModelTask, model: nn.Module, images: Any, targets: Any) -> Tensor:
        """The loss that the network gives, and with a teacher that of its features; their outputs are not compared."""
        if self.near is None:
            return one_number(task, task.loss_of(model, images, targets))
        loss, features = self.near.beside(model, lambda net: task.loss_of(net, images, targets))
        return one_number(task, loss) + self.recipe.feature_share * features

    def _compared(self, task: TrainingTask, model: nn.Module, images: Any, labels: Any) -> tuple[Tensor, Tensor]:
        """The loss, and the model's outputs (n, classes, ...)."""
        recipe = self.recipe
        if self.near is None:
            outputs = class_outputs(model(images)).float()
            return one_number(task, task.loss(outputs, labels)), outputs
        with self.near.compared(model, images) as compared:
            outputs = class_outputs(compared.output).float()
            loss = (1 - recipe.soft_share) * one_number(task, task.loss(outputs, labels))
            loss = loss + recipe.soft_share * self._softened(task, compared, outputs)
            if recipe.feature_share and self.near.taps:
                loss = loss + recipe.feature_share * compared.features()
        return loss, outputs

    def _softened(self, task: TrainingTask, compared: Compared, outputs: Tensor) -> Tensor:
        """The distance from what the teacher says; numbers have no temperature."""
        if isinstance(task, Numbers):
            return task.loss(outputs, class_outputs(compared.target).float())
        return compared.softened(self.recipe.temperature)
