"""Changes of images that the dense network does not mind: they show a cut one something new, and need no label."""

from __future__ import annotations

import torch
from torch import Tensor

from nasprune.common.calls import main_output
from nasprune.data.augment import mirrored, shifted
from nasprune.train.augmenting import Augment
from nasprune.train.nearness import Nearness

ALIKE = 0.9  # of the answers, for a change to be used
PART = 8  # of the shorter side, by which images are shifted at most


def changes_alike(near: Nearness, held: Tensor) -> Augment:
    """Shifts and mirrors images where the dense network answers alike for nearly all of `held`, changed so or not.

    Nothing is changed where the network gives no classes, or takes no images (n, C, H, W).
    """
    if held.ndim != 4 or not near.speaks:
        return _one_after_the_other([])
    with torch.no_grad():
        plain = main_output(near.dense(held))
        if plain is None or plain.ndim != 2 or plain.shape[1] == 1:
            return _one_after_the_other([])

        def alike(changed: Tensor) -> bool:
            other = main_output(near.dense(changed))
            return other is not None and float((plain.argmax(1) == other.argmax(1)).float().mean()) >= ALIKE

        generator = torch.Generator().manual_seed(0)
        used: list[Augment] = []
        if min(held.shape[2:]) >= PART and alike(_shifted(held, generator)):
            used.append(_shifted)
        if alike(held.flip(3)):
            used.append(mirrored)
    return _one_after_the_other(used)


def _shifted(images: Tensor, generator: torch.Generator) -> Tensor:
    return shifted(images, generator, min(images.shape[2:]) // PART)


def _one_after_the_other(changes: list[Augment]) -> Augment:
    def change(images: Tensor, generator: torch.Generator) -> Tensor:
        for each in changes:
            images = each(images, generator)
        return images

    return change
