"""How images from files become tensors: the size, the crop and the normalisation that a network was made for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
CONFIGURATIONS = ("pretrained_cfg", "default_cfg")
"""Attributes in which timm's networks say how their images were prepared."""


@dataclass(frozen=True)
class Pixels:
    """Shorter side to size / `crop`, centre crop, [0, 1], `mean` off, divided by `std`, three colours each.

    interpolation: as torchvision names it. words: what is done to the values, and who says so.
    """

    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    crop: float = 224 / 256
    interpolation: str = "bilinear"
    words: str = "scaled to [0, 1], then ImageNet's mean and standard deviation"

    @classmethod
    def of(cls, model: nn.Module | None) -> Pixels:
        """What the network says in timm's way, else ImageNet's, which torchvision's networks are made for."""
        for name in CONFIGURATIONS:
            found = getattr(model, name, None)
            said = found if isinstance(found, Mapping) else vars(found) if hasattr(found, "__dict__") else {}
            mean, std = _three(said.get("mean")), _three(said.get("std"))
            if mean is None or std is None or min(std) <= 0:
                continue
            crop, way = said.get("crop_pct"), said.get("interpolation")
            return cls(
                mean,
                std,
                float(crop) if isinstance(crop, int | float) and 0 < crop <= 1 else cls.crop,
                way if way in ("bilinear", "bicubic", "nearest") else cls.interpolation,
                f"scaled to [0, 1], then mean {_list(mean)} and deviation {_list(std)}, as the network's {name} says",
            )
        return cls()

    def to_tensor(self, size: int) -> ToTensor:
        """From a PIL image of any mode to (3, size, size)."""
        return ToTensor(self, size)


@dataclass
class ToTensor:
    """Prepares images as `pixels` says; torchvision is imported with the first of them."""

    pixels: Pixels
    size: int
    _steps: Callable[[Any], Tensor] | None = None

    @property
    def used(self) -> bool:
        """Whether there was any image."""
        return self._steps is not None

    def __call__(self, image: Any) -> Tensor:
        self._steps = self._steps or _steps(self.pixels, self.size)
        return self._steps(image)


def _steps(pixels: Pixels, size: int) -> Callable[[Any], Tensor]:
    from torchvision import transforms

    steps: Callable[[Any], Tensor] = transforms.Compose(
        [
            transforms.Lambda(_coloured),
            transforms.Resize(round(size / pixels.crop), transforms.InterpolationMode(pixels.interpolation)),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
            transforms.Normalize(pixels.mean, pixels.std),
        ]
    )
    return steps


def _coloured(image: Any) -> Any:
    return image.convert("RGB")


def _three(value: object) -> tuple[float, ...] | None:
    if not isinstance(value, Sequence) or len(value) != 3:
        return None
    known = all(isinstance(one, int | float) and math.isfinite(one) for one in value)
    return tuple(float(one) for one in value) if known else None


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
