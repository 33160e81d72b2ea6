"""Augmentation of a batch: a random shift and a random mirror image.

He, Zhang, Ren, Sun 2016, "Deep residual learning for image recognition", arXiv:1512.03385, section 4.2. Departure:
pixels shifted in are zero after normalisation, not before, so they are the mean colour and not black.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_SHIFT = 4


def flip_and_shift(images: Tensor, generator: torch.Generator) -> Tensor:
    """A new batch of the same shape (n, C, H, W); every image is shifted by up to four pixels, and mirrored or not."""
    return mirrored(shifted(images, generator, _SHIFT), generator)


def shifted(images: Tensor, generator: torch.Generator, most: int) -> Tensor:
    """A new batch of the same shape (n, C, H, W), every image shifted by up to `most` pixels in both directions."""
    count, _, height, width = images.shape
    padded = functional.pad(images, (most,) * 4)
    tops, lefts = torch.randint(0, 2 * most + 1, (2, count), generator=generator, device="cpu")
    return torch.stack(
        [
            padded[index, :, top : top + height, left : left + width]
            for index, (top, left) in enumerate(zip(tops.tolist(), lefts.tolist(), strict=True))
        ]
    )


def mirrored(images: Tensor, generator: torch.Generator) -> Tensor:
    """A new batch of the same shape (n, C, H, W), of which every image is mirrored or not."""
    flips = (torch.rand(len(images), generator=generator, device="cpu") < 0.5).to(images.device)
    return torch.where(flips[:, None, None, None], images.flip(3), images)
