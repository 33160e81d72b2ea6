"""Data sets by name: `digits`, `cifar10:DIR`, `imagefolder:DIR`, `module:factory`; and the user's own objects."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate, default_convert

from nasprune.common.factories import call_factory, one_line
from nasprune.common.untouched import undisturbed
from nasprune.data.cifar10 import cifar10
from nasprune.data.digits import digits
from nasprune.data.folder import imagefolder
from nasprune.data.items import UNKNOWN, ArrayDataset, checked, size_of
from nasprune.data.splits import DataSplits, split
from nasprune.errors import InputError, UnknownNameError

DataSource = str | DataSplits | Dataset[tuple[Tensor, int]] | DataLoader[tuple[Tensor, int]] | tuple[Tensor, Tensor]
EXAMPLES = "digits, cifar10:DIR, imagefolder:DIR, file.py:factory, package.module:factory"


def _digits(place: str, seed: int, size: int) -> DataSplits:
    if place:
        raise InputError(f"`digits` takes no folder, got digits:{place}")
    return digits(seed)


def _cifar10(place: str, seed: int, size: int) -> DataSplits:
    return cifar10(_folder("cifar10", place), seed)


def _imagefolder(place: str, seed: int, size: int) -> DataSplits:
    return imagefolder(_folder("imagefolder", place), seed, size)


_SOURCES: dict[str, Callable[[str, int, int], DataSplits]] = {
    "digits": _digits,
    "cifar10": _cifar10,
    "imagefolder": _imagefolder,
}


def load_data(source: DataSource, *, seed: int = 0, size: int = 224) -> DataSplits:
    """A data set in four parts.

    Args:
        source: a name with its folder, a factory, or a `DataSplits`, `Dataset`, `DataLoader` (its dataset is taken) or
            `(inputs, labels)` pair with inputs (N, ...) and labels (N,). Items of a dataset are (image, label), or
            (image, None) or images alone where nothing asks for labels.
        seed: of the split; the same seed gives the same parts.
        size: pixels of a side, for sources that resize.

    Raises:
        InputError: nothing usable is there.
        UnknownNameError: no source has that name.
    """
    if isinstance(source, str):
        name, _, place = source.partition(":")
        if name in _SOURCES:
            return _SOURCES[name](place, seed, size)
        if not place:
            raise UnknownNameError(f"data (write {EXAMPLES})", source, _SOURCES)
        return _wrap(source, call_factory(source, what="data"), seed)
    return _wrap("data", source, seed)


def check_fits(model: nn.Module, data: DataSplits, *, name: str) -> None:
    """Raises InputError unless `model` takes one validation image and has an output for every class."""
    image, _ = checked(data.validation, data.name)[0]
    try:
        with undisturbed(model):
            output = model(image.unsqueeze(0))
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise InputError(
            f"data {data.name!r} gives images of shape {data.input_shape}, which model {name!r} does not take: "
            f"{one_line(error)}; choose other data, another model or --input-size"
        ) from error
    outputs = output.shape[1] if isinstance(output, torch.Tensor) and output.ndim == 2 else None
    if outputs is not None and data.num_classes is not None and outputs < data.num_classes:
        raise InputError(
            f"data {data.name!r} has {data.num_classes} classes, model {name!r} only {outputs} outputs; "
            "give a model with an output for every class"
        )


def _folder(name: str, place: str) -> Path:
    if not place:
        raise InputError(f"`{name}` needs a folder: write {name}:DIR")
    return Path(place).expanduser()


def _wrap(name: str, source: object, seed: int) -> DataSplits:
    if isinstance(source, DataSplits):
        return source
    if isinstance(source, DataLoader):
        source = _dataset_of(name, source)
    if isinstance(source, IterableDataset):
        raise InputError(
            f"data {name!r}: expected a map-style dataset, with a length and items by number, got the iterable "
            f"{type(source).__name__}; give a map-style one, for example list(dataset)"
        )
    if isinstance(source, tuple) and len(source) == 2 and all(isinstance(part, torch.Tensor) for part in source):
        arrays = ArrayDataset(*source)
        labels = arrays.labels.tolist()
        return split(name, arrays, seed=seed, labels=labels, num_classes=max(labels, default=-1) + 1 or None)
    if isinstance(source, Dataset) or (hasattr(source, "__getitem__") and hasattr(source, "__len__")):
        classes = getattr(source, "classes", None)
        count = len(classes) if classes is not None else None
        return split(name, source, seed=seed, labels=_targets(source), num_classes=count)  # type: ignore[arg-type]
    raise InputError(
        f"expected a DataSplits, Dataset, DataLoader or (inputs, labels) pair from {name!r}, "
        f"got {type(source).__name__}; names are {EXAMPLES}"
    )


def _dataset_of(name: str, loader: DataLoader[Any]) -> Dataset[Any]:
    if loader.collate_fn not in (default_collate, default_convert):
        raise InputError(
            f"data {name!r}: the DataLoader has a collate_fn of its own, and only its dataset is used; do in the "
            "dataset what the collate_fn does, and give the dataset"
        )
    return loader.dataset


def _targets(dataset: object) -> list[int] | None:
    """The class of every item as torchvision's datasets tell it, so that parts get equal shares of every class."""
    try:
        found = [UNKNOWN if target is None else int(target) for target in getattr(dataset, "targets", ())]
    except (TypeError, ValueError):  # boxes, file names
        return None
    return found if len(found) == size_of(dataset) else None  # type: ignore[arg-type]
