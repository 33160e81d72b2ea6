"""A folder of images, one sub-folder per class, alone or with parts beside each other, as torchvision's ImageFolder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nasprune.data.parts import part_of, recognised
from nasprune.data.pixels import Pixels
from nasprune.data.splits import DataSplits, split
from nasprune.errors import InputError

if TYPE_CHECKING:
    from torchvision.datasets import ImageFolder


def imagefolder(folder: Path, seed: int, size: int, pixels: Pixels) -> DataSplits:
    """Images (3, size, size), prepared as `pixels` says.

    Args:
        folder: `CLASS/*.jpg`, or the parts `train/CLASS/*.jpg` and beside it `val` (or `valid`, `validation`), `test`,
            or both. Of two parts the second is the test part.
        seed: of the split of what is not given as a part.
        size: pixels of a side.

    Raises:
        InputError: no such folder, no images in it, parts beside folders of other names, or parts with other classes.
    """
    name = f"imagefolder:{folder}"
    parts = {part: _read(folder / sub, size, pixels) for part, sub in _parts(folder).items()}
    train = parts.pop("train") if parts else _read(folder, size, pixels)
    for part, images in parts.items():
        if images.classes != train.classes:
            other = sorted(set(train.classes) ^ set(images.classes))
            raise InputError(
                f"{str(folder)!r}: the train and the {part} folder must have the same classes, {', '.join(other[:3])} "
                "stand in only one of them"
            )
    return split(
        name,
        train,
        seed=seed,
        labels=train.targets,
        num_classes=len(train.classes),
        normalisation=pixels.words,
        validation=parts.get("validation"),
        test=parts.get("test"),
    )


def _parts(folder: Path) -> dict[str, str]:
    """Part -> sub-folder; none where the sub-folders are classes, of which one may well be called "train"."""
    inside = sorted(each.name for each in _folders(folder))
    named = [name for name in inside if part_of(name) is not None]
    if not named or (len(named) < len(inside) and not any(_folders(folder / name) for name in named)):
        return {}
    others = [name for name in inside if name not in named and _holds_files(folder / name)]
    if others:
        raise InputError(
            f"{str(folder)!r} holds {', '.join(named)}, which are parts of a data set, beside {', '.join(others[:5])}, "
            "which are not; give a folder with parts only (train, and val, test or both), or with one folder per class"
        )
    return recognised(named, repr(str(folder)))


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [each for each in folder.iterdir() if each.is_dir() and not each.name.startswith((".", "__"))]


def _holds_files(folder: Path) -> bool:
    return any(each.is_file() for each in folder.rglob("*"))


def _read(path: Path, size: int, pixels: Pixels) -> ImageFolder:
    from torchvision.datasets import ImageFolder

    try:
        return ImageFolder(str(path), transform=pixels.to_tensor(size))
    except (FileNotFoundError, NotADirectoryError) as error:
        found = ", ".join(sorted(each.name for each in path.iterdir())[:5]) if path.is_dir() else "no such folder"
        raise InputError(
            f"no images in {str(path)!r}, found {found or 'nothing'}; expected one sub-folder per class, or train/ and "
            "val/, test/ or both with one sub-folder per class in each"
        ) from error
