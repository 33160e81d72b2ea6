"""The user's own objects as data: datasets, arrays, dicts and tuples of them, told apart by what they hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate, default_convert

from nasprune.data.items import REPAIR, UNKNOWN, ArrayDataset, is_finite, size_of
from nasprune.data.opened import IMAGES, LABELS, Open, Opened
from nasprune.data.parts import part_of, recognised
from nasprune.data.splits import DataSplits, split
from nasprune.data.streams import Taken
from nasprune.errors import InputError

TAKEN = (
    "a Dataset, a DataLoader, (images, labels) as tensors or numpy arrays, {'images': ..., 'labels': ...}, the data "
    "sets (train, val) or (train, val, test), or a `nasprune.DataSplits`"
)


def wrapped(name: str, source: object, seed: int, open: Open) -> DataSplits:
    """The object as a data set in four parts; what it does not give as a part is drawn by the seed.

    open: what makes a tensor of a PIL image.

    Raises:
        InputError: it is none of `TAKEN`.
    """
    if isinstance(source, DataSplits):
        return source
    parts = {part: _listed(name, one, open) for part, one in _parts(name, source).items()}
    labels, count = _classes(parts["train"])
    parts = {part: _opened(name, one, open) for part, one in parts.items()}
    train = parts.pop("train")
    return split(
        name,
        train,
        seed=seed,
        labels=labels,
        num_classes=count,
        validation=parts.get("validation"),
        test=parts.get("test"),
    )


def _parts(name: str, source: object) -> dict[str, Dataset[Any]]:
    """The data sets that `source` holds by part; one alone is the training part."""
    if isinstance(source, Mapping) and any(part_of(str(key)) for key in source):
        others = [str(key) for key in source if part_of(str(key)) is None]
        if others:
            raise InputError(f"data {name!r}: {', '.join(others)} is no part of a data set; give train, val and test")
        found = recognised(map(str, source), f"data {name!r}")
        return {part: _dataset(name, source[key]) for part, key in found.items()}
    if isinstance(source, tuple | list) and 2 <= len(source) <= 3 and all(map(_is_data, source)):
        return {part: _dataset(name, one) for part, one in zip(("train", "validation", "test"), source, strict=False)}
    return {"train": _dataset(name, source)}


def _is_data(source: object) -> bool:
    """Whether this is a data set of its own, and not an image or the images of a pair."""
    if isinstance(source, tuple | list):
        return _is_pair(source)
    return isinstance(source, Dataset | DataLoader | Mapping)


def _is_pair(source: object) -> bool:
    """Whether this is (images, labels), the labels `None` where there are none."""
    if not isinstance(source, tuple | list) or len(source) != 2:
        return False
    images, labels = source
    if not isinstance(images, Tensor | np.ndarray):
        return False
    listed = isinstance(labels, list) and len(labels) == len(images)
    return listed or (isinstance(labels, Tensor | np.ndarray) and labels.ndim > 0) or labels is None


def _dataset(name: str, source: object) -> Dataset[Any]:
    """One data set, with a length and items by number."""
    if isinstance(source, DataLoader):
        source = _dataset_of(name, source)
    if _is_stream(source):
        return source  # type: ignore[return-value]
    if isinstance(source, Mapping):
        source = _named_pair(name, source)
    if isinstance(source, np.ndarray):
        source = (source, None)
    if _is_pair(source):
        return _arrays(name, *source)  # type: ignore[misc]
    if isinstance(source, Dataset) or (hasattr(source, "__getitem__") and hasattr(source, "__len__")):
        return source  # type: ignore[return-value]
    raise InputError(f"expected {TAKEN} from {name!r}, got a {type(source).__name__}")


def _is_stream(source: object) -> bool:
    """Whether items come one after the other, as from webdataset or a streamed data set of Hugging Face."""
    return isinstance(source, IterableDataset) or (
        hasattr(source, "__iter__")
        and not hasattr(source, "__len__")
        and not isinstance(source, Mapping)
        and not hasattr(source, "__next__")
    )


def _listed(name: str, dataset: Dataset[Any], open: Open) -> Dataset[Any]:
    return Taken(dataset, open, name) if _is_stream(dataset) else dataset  # type: ignore[arg-type]


def _opened(name: str, dataset: Dataset[Any], open: Open) -> Dataset[Any]:
    return dataset if isinstance(dataset, ArrayDataset | Taken) else Opened(dataset, open, name)


def _named_pair(name: str, source: Mapping[Any, Any]) -> tuple[Any, Any]:
    images = [key for key in source if key in IMAGES]
    labels = [key for key in source if key in LABELS]
    if len(images) != 1 or len(images) + len(labels) != len(source):
        raise InputError(
            f"data {name!r}: expected the keys 'images' and 'labels', or 'train', 'val' and 'test', got "
            f"{', '.join(map(str, source)) or 'none'}"
        )
    return source[images[0]], source[labels[0]] if labels else None


def _arrays(name: str, images: Any, labels: Any) -> ArrayDataset:
    try:
        inputs = torch.as_tensor(images)
        given = torch.full((len(inputs),), UNKNOWN, device="cpu") if labels is None else torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"data {name!r}: the arrays hold no plain numbers: {error}; give numbers") from error
    if not is_finite(inputs):
        first = next(i for i, image in enumerate(inputs) if not is_finite(image))
        raise InputError(f"data {name!r}: image {first} holds NaN or infinite values; {REPAIR}")
    return ArrayDataset(inputs, given)


def _dataset_of(name: str, loader: DataLoader[Any]) -> Dataset[Any]:
    if loader.collate_fn not in (default_collate, default_convert):
        raise InputError(
            f"data {name!r}: the DataLoader has a collate_fn of its own, and only its dataset is used; do in the "
            "dataset what the collate_fn does, and give the dataset"
        )
    return loader.dataset


def _classes(dataset: Dataset[Any]) -> tuple[list[int] | None, int | None]:
    """The class of every item, and how many classes there are, as far as the data set says."""
    if isinstance(dataset, ArrayDataset):
        if dataset.labels.ndim > 1 or dataset.labels.is_floating_point():
            return None, None
        labels = dataset.labels.tolist()
        return labels, max(labels, default=-1) + 1 or None
    classes = getattr(dataset, "classes", None)
    if classes is not None:
        return _targets(dataset), len(classes)
    return _columns(dataset) or (_targets(dataset), None)


def _columns(dataset: Any) -> tuple[list[int], int] | None:
    """The same of a table as Hugging Face's, whose features know the classes; `None` of others."""
    features = getattr(dataset, "features", None)
    if not isinstance(features, Mapping):
        return None
    for name in LABELS:
        count = getattr(features.get(name), "num_classes", None)
        if isinstance(count, int):
            return [int(label) for label in dataset[name]], count
    return None


def _targets(dataset: object) -> list[int] | None:
    """The class of every item as torchvision's datasets tell it, so that parts get equal shares of every class."""
    try:
        found = [UNKNOWN if target is None else int(target) for target in getattr(dataset, "targets", ())]
    except (TypeError, ValueError):  # boxes, file names
        return None
    return found if len(found) == size_of(dataset) else None  # type: ignore[arg-type]
