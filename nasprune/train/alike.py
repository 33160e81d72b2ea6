"""Changes of images for which no label is needed, since the dense network answers for whatever it is shown.

Mirror images where it does not mind them; and images blended with each other, as of Beyer, Zhai, Royer, Markeeva, Anil,
Kolesnikov 2022, "Knowledge distillation: A good teacher is patient and consistent", arXiv:2106.05237, after mixup
(Zhang, Cisse, Dauphin, Lopez-Paz 2018, arXiv:1710.09412): on training images that it has memorised the dense network is
sure of its answer, on blends of these it is not, and shows more of what it computes. Departure: half of a batch is left
as it is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nasprune.common.calls import main_output
from nasprune.data.augment import blended, mirrored
from nasprune.train.augmenting import Augment, batch_change
from nasprune.train.nearness import Nearness

ALIKE = 0.9  # of the answers, for mirror images to be used


def unlabelled(near: Nearness, held: Tensor) -> Augment:
    """Blends half of the images of a batch with others, after some were mirrored where the dense network does not mind.

    It does not where it answers alike for nearly all of `held` mirrored. Nothing is changed where the network gives no
    classes, or takes no images (n, C, H, W), in floating point or bytes: other whole numbers may be those of tokens.
    """
    pictures = held.ndim == 4 and (held.is_floating_point() or held.dtype == torch.uint8)
    if not pictures or not near.speaks or near.variance is not None:
        return batch_change(None)
    with torch.no_grad():
        plain, other = (main_output(near.asked(images)) for images in (held, held.flip(3)))
    if plain is None or other is None or plain.ndim != 2 or plain.shape[1] == 1:
        return batch_change(None)
    alike = float((plain.argmax(1) == other.argmax(1)).float().mean()) >= ALIKE
    if not alike:
        return blended
    return lambda images, generator: blended(mirrored(images, generator), generator)
