"""Images mixed with each other, and their labels in the same shares, by torchvision's transforms.

Mixup is of Zhang, Cisse, Dauphin, Lopez-Paz 2018, arXiv:1710.09412 (here alpha 0.2), cutmix of Yun, Han, Oh, Chun,
Choe, Yoo 2019, arXiv:1905.04899 (alpha 1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from nasprune.data.augment import in_numbers, in_type
from nasprune.errors import InputError

Mix = Literal["none", "mixup", "cutmix", "both"]
Mixing = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def mixing(mix: Mix, classes: int) -> Mixing:
    """Images (n, C, H, W) and classes (n,) to mixed images, bytes where they were bytes, and shares (n, classes).

    "both" takes one of the two at random. It draws from torch's global generator.

    Raises:
        InputError: when it runs, labels are not classes from 0 on.
    """
    if mix == "none":
        return lambda images, labels: (images, labels)
    from torchvision.transforms import v2

    known = {"mixup": v2.MixUp(alpha=0.2, num_classes=classes), "cutmix": v2.CutMix(alpha=1.0, num_classes=classes)}
    kinds = list(known.values()) if mix == "both" else [known[mix]]

    def mixed(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if not isinstance(labels, Tensor) or labels.ndim != 1 or labels.is_floating_point() or images.ndim != 4:
            raise InputError(
                f'mix="{mix}" mixes images (n, C, H, W) and their classes; with other labels or inputs leave it out'
            )
        if int(labels.min()) < 0 or int(labels.max()) >= classes:
            raise InputError(
                f'mix="{mix}" needs a class from 0 to {classes - 1} for every image, got {int(labels.min())} to '
                f"{int(labels.max())}; give such labels, or leave it out"
            )
        kind = kinds[int(torch.randint(len(kinds), (), device="cpu"))]
        found, shares = kind(in_numbers(images), labels)
        return in_type(found, images.dtype), shares

    return mixed
