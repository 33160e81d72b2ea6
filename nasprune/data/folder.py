"""A folder of images, one sub-folder per class, in torchvision's ImageFolder layout."""

from __future__ import annotations

from pathlib import Path

from nasprune.data.cifar10 import MEAN, STD
from nasprune.data.splits import DataSplits, split
from nasprune.errors import InputError


def imagefolder(folder: Path, seed: int, size: int) -> DataSplits:
    """Images (3, size, size): shorter side to size · 256 / 224, centre crop, ImageNet's mean and deviation.

    Args:
        folder: `train/CLASS/*.jpg` with `val/CLASS/*.jpg` beside it, which becomes the test part; or `CLASS/*.jpg`.
        seed: of the split of the training images.
        size: pixels of a side.

    Raises:
        InputError: no such folder, no images in it, or `val` has other classes than `train`.
    """
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    steps = transforms.Compose(
        [
            transforms.Resize(round(size * 256 / 224)),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )

    def read(path: Path) -> ImageFolder:
        try:
            return ImageFolder(str(path), transform=steps)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise InputError(
                f"no images in {str(path)!r}; expected one sub-folder per class, or train/ and val/ with them"
            ) from error

    parts = folder / "train", folder / "val"
    if not all(part.is_dir() for part in parts):
        images = read(folder)
        return split(f"imagefolder:{folder}", images, seed=seed, labels=images.targets, num_classes=len(images.classes))
    train, test = (read(part) for part in parts)
    if train.classes != test.classes:
        other = sorted(set(train.classes) ^ set(test.classes))
        raise InputError(f"{str(folder)!r}: train/ and val/ must have the same classes, {other[:3]} stand in only one")
    return split(
        f"imagefolder:{folder}",
        train,
        seed=seed,
        labels=train.targets,
        num_classes=len(train.classes),
        test=test,
    )
