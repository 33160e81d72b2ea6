"""Augmentation of a batch: a random shift by up to four pixels and a random mirror image.

He, Zhang, Ren, Sun 2016, "Deep residual learning for image recognition", arXiv:1512.03385, section 4.2. Departure:
pixels shifted in are zero after normalisation, not before, so they are the mean colour and not black.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_SHIFT = 4


def flip_and_shift(images: Tensor, generator: torch.Generator) -> Tensor:
    """A new batch of the same shape (n, C, H, W); every image is shifted and mirrored on its own."""
    count, _, height, width = images.shape
    padded = functional.pad(images, (_SHIFT,) * 4)
    tops, lefts = torch.randint(0, 2 * _SHIFT + 1, (2, count), generator=generator, device="cpu")
    flips = torch.rand(count, generator=generator, device="cpu") < 0.5
    shifted = [
        padded[index, :, top : top + height, left : left + width]
        for index, (top, left) in enumerate(zip(tops.tolist(), lefts.tolist(), strict=True))
    ]
    batch = torch.stack(shifted)
    return torch.where(flips.view(-1, 1, 1, 1), batch.flip(3), batch)
