"""Augmentation of a batch: a random shift, a random mirror image, and images blended with each other.

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
    count, _, height, width = images.shape
    padded = functional.pad(images, (_SHIFT,) * 4)
    tops, lefts = torch.randint(0, 2 * _SHIFT + 1, (2, count), generator=generator, device="cpu")
    moved = [
        padded[index, :, top : top + height, left : left + width]
        for index, (top, left) in enumerate(zip(tops.tolist(), lefts.tolist(), strict=True))
    ]
    return mirrored(torch.stack(moved), generator)


def mirrored(images: Tensor, generator: torch.Generator) -> Tensor:
    """A new batch of the same shape (n, C, H, W), of which every image is mirrored or not."""
    flips = (torch.rand(len(images), generator=generator, device="cpu") < 0.5).to(images.device)
    return torch.where(flips[:, None, None, None], images.flip(3), images)


def blended(images: Tensor, generator: torch.Generator) -> Tensor:
    """A new batch of the same shape (n, ...): half as it was, and half of random shares of an image and another one.

    Bytes and other whole numbers are rounded to such again.
    """
    count, values = len(images), in_numbers(images)
    shares = torch.rand(count, generator=generator, device="cpu")
    shares[: count // 2] = 1.0
    others = values[torch.randperm(count, generator=generator, device="cpu").to(images.device)]
    return in_type(torch.lerp(others, values, shares.to(values).reshape(-1, *[1] * (images.ndim - 1))), images.dtype)


def in_numbers(images: Tensor) -> Tensor:
    """Images whose shares can be added: bytes and other whole numbers in single precision."""
    return images if images.is_floating_point() else images.float()


def in_type(images: Tensor, dtype: torch.dtype) -> Tensor:
    """Images in the type that they had before `in_numbers`, rounded where it is one of whole numbers."""
    return images if dtype.is_floating_point else images.round().to(dtype)
