"""Detection: networks that take images and boxes and give their own losses, as torchvision's do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from nasprune.common.blame import told
from nasprune.errors import InputError

STILL = (_BatchNorm, _DropoutNd)
WANTED = 'detection learns from targets that are dicts with "boxes" (k, 4) and "labels" (k,)'


@dataclass(frozen=True)
class Detection:
    """A `ModelTask`. Targets are dicts with "boxes" (k, 4), as x1, y1, x2, y2, and "labels" (k,), one for each image.

    The loss is the sum of those that the network gives in training mode. An image is as right as the F1 score of its
    boxes: found ones whose score is at least `least` and true ones are matched, the best score first, where the class
    is the same and the boxes overlap by at least `overlap` of their union. An image without true boxes is right where
    none is found.
    """

    overlap: float = 0.5
    least: float = 0.5

    def loss_of(self, model: nn.Module, inputs: Any, targets: Any) -> Tensor:
        _check(targets)
        try:
            losses = model(list(inputs), targets)
        except (AssertionError, IndexError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"the network does not take these boxes and labels: {told(error)}; torchvision's take labels from 1 up "
                "to below their number of classes, and boxes as x1, y1, x2, y2 with x1 < x2 and y1 < y2"
            ) from error
        if not isinstance(losses, dict) or not losses:
            raise InputError(
                "detection needs a network that gives a dict of losses in training mode for images and targets, as "
                f"torchvision's do, got a {type(losses).__name__}; give one, or a task of your own"
            )
        return torch.stack([value.float() for value in losses.values()]).sum()

    def judged(self, model: nn.Module, inputs: Any, targets: Any) -> tuple[Tensor, Tensor]:
        _check(targets)
        found = model(list(inputs))
        scores = [self._score(one, target) for one, target in zip(found, targets, strict=True)]
        modes = {module: module.training for module in model.modules()}
        try:
            model.train()
            for module in modes:
                if isinstance(module, STILL):
                    module.eval()
            loss = self.loss_of(model, inputs, targets)
        finally:
            for module, mode in modes.items():
                module.training = mode
        return loss, torch.tensor(scores, device="cpu")

    def guess_of(self, model: nn.Module) -> float:
        """Losses of detectors are a few units where they know nothing."""
        return 4 * math.log(2)

    def _score(self, found: dict[str, Tensor], target: dict[str, Tensor]) -> float:
        from torchvision.ops import box_iou

        sure = found["scores"] >= self.least
        boxes, labels = found["boxes"][sure], found["labels"][sure]
        total = len(boxes) + len(target["boxes"])
        if not total:
            return 1.0
        if not len(boxes) or not len(target["boxes"]):
            return 0.0
        shares = box_iou(boxes, target["boxes"]) * (labels[:, None] == target["labels"][None])
        matched = 0
        for row in found["scores"][sure].argsort(descending=True).tolist():
            best = int(shares[row].argmax())
            if float(shares[row, best]) >= self.overlap:
                matched += 1
                shares[:, best] = 0
        return 2 * matched / total


def _check(targets: Any) -> None:
    """Raises InputError unless every item has boxes, and a label for each."""
    if not isinstance(targets, list):
        raise InputError(f"{WANTED}, and these are {'none' if _unknown(targets) else 'class numbers'}; give boxes")
    for target in targets:
        shapes = {name: tuple(value.shape) for name, value in target.items()}
        boxes, labels = shapes.get("boxes", ()), shapes.get("labels", ())
        if len(boxes) != 2 or boxes[1] != 4 or labels != boxes[:1]:
            raise InputError(
                f"{WANTED}, got one of the shapes {shapes}; give (0, 4) and (0,) where an image has no box"
            )


def _unknown(targets: Any) -> bool:
    """Whether items came without a label."""
    return isinstance(targets, Tensor) and not targets.is_floating_point() and bool((targets < 0).all())
