"""A change of images that the dense network does not mind: it shows a cut one something new, and needs no label."""

from __future__ import annotations

import torch
from torch import Tensor

from nasprune.common.calls import main_output
from nasprune.data.augment import mirrored
from nasprune.train.augmenting import Augment, batch_change
from nasprune.train.nearness import Nearness

ALIKE = 0.9  # of the answers, for mirror images to be used


def mirrored_alike(near: Nearness, held: Tensor) -> Augment:
    """Mirrors half of the images of a batch, where the dense network answers alike for nearly all of `held` mirrored.

    Nothing is changed where the network gives no classes, or takes no images (n, C, H, W).
    """
    if held.ndim != 4 or not near.speaks:
        return batch_change(None)
    with torch.no_grad():
        plain, other = (main_output(near.dense(images)) for images in (held, held.flip(3)))
    if plain is None or other is None or plain.ndim != 2 or plain.shape[1] == 1:
        return batch_change(None)
    alike = float((plain.argmax(1) == other.argmax(1)).float().mean()) >= ALIKE
    return mirrored if alike else batch_change(None)
