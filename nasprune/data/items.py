"""Items of data sets: images in memory, and the user's own datasets with every item checked as it is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from nasprune.common.factories import one_line
from nasprune.errors import InputError, NaspruneError

UNKNOWN = -1
"""The label of an image that has none."""


REPAIR = "repair or remove it"
"""What to do with an item that cannot be used."""


class LabelledImages(Protocol):
    """A map-style dataset: item i is an image (C, H, W) and its class number."""

    def __getitem__(self, index: int, /) -> tuple[Tensor, int]: ...

    def __len__(self) -> int: ...


class ArrayDataset(Dataset[tuple[Tensor, int]]):
    """Images in memory. images: (N, ...), labels: (N,) class numbers, or (N, ...) with one for every pixel."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        if not images.ndim or not labels.ndim or len(images) != len(labels):
            raise InputError(
                f"expected one label, or one mask, per image, got images of shape {tuple(images.shape)} and labels of "
                f"shape {tuple(labels.shape)}; give as many labels as images"
            )
        self.images = images
        self.labels = as_labels(labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        label = self.labels[index]
        return self.images[index], label if label.ndim else label.item()

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, indices: Sequence[int]) -> ArrayDataset:
        """The images at `indices`, in that order."""
        return ArrayDataset(self.images[list(indices)], self.labels[list(indices)])


class Checked(Dataset[tuple[Tensor, Any]]):
    """The items of `dataset` as (image, label), where an image without a label gets -1.

    Items may be (image, label), (image, None), (image,) or an image. All images must have one shape, and all labels.
    A label may also be a dict of tensors, as of boxes; then images may differ in shape.

    Raises:
        InputError: on reading an item that fails, or that is something else; `name` says which data.
    """

    def __init__(self, dataset: Dataset[Any], name: str = "data") -> None:
        self.dataset, self._name = dataset, name
        self._shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        image, label = self._read(index)
        if isinstance(label, dict):
            return image, label
        shapes = tuple(image.shape), tuple(label.shape) if isinstance(label, Tensor) else ()
        if self._shapes is None:
            self._shapes = shapes
        for what, shape, wanted in zip(("image", "label"), shapes, self._shapes, strict=True):
            if shape != wanted:
                raise self._error(index, f"its {what} has shape {shape}, others have {wanted}; give all one shape")
        return image, label

    def __len__(self) -> int:
        return size_of(self.dataset)

    def _read(self, index: int) -> tuple[Tensor, Any]:
        return read_item(lambda: cast(Any, self.dataset)[index], index, self._name)

    def _error(self, index: int, reason: str) -> InputError:
        return _failed(self._name, index, reason)


def read_item(read: Callable[[], object], index: int, name: str) -> tuple[Tensor, Any]:
    """What `read` gives as (image, label), where an image without a label gets -1. Raises as `Checked`."""
    try:
        item: Any = read()
    except NaspruneError:
        raise
    except (Exception, SystemExit) as error:
        raise _failed(name, index, f"{type(error).__name__}: {one_line(error)}; {REPAIR}") from error
    parts = tuple(item) if isinstance(item, (tuple, list)) else (item,)
    if parts and isinstance(parts[0], np.ndarray):
        parts = (torch.as_tensor(parts[0]), *parts[1:])
    if not 1 <= len(parts) <= 2 or not isinstance(parts[0], Tensor):
        inside = ", ".join(type(part).__name__ for part in parts)
        got = f"{type(item).__name__} of ({inside})" if isinstance(item, (tuple, list)) else inside
        raise _failed(name, index, f"expected (tensor, class number) items, or tensors without labels, got a {got}")
    if not is_finite(parts[0]):
        raise _failed(name, index, f"its image holds NaN or infinite values; {REPAIR}")
    return parts[0], _label(name, index, parts[1] if len(parts) == 2 else None)


def as_labels(labels: Tensor) -> Tensor:
    """Classes, whole numbers and booleans, in the one type that torch's losses take; other numbers as they are."""
    return labels if labels.is_floating_point() else labels.long()


def _member(name: str, index: int, key: object, value: object) -> Tensor:
    """A tensor of a label that is a dict; numbers become one."""
    if isinstance(value, (np.ndarray, np.number, np.bool_, int, float)):
        with suppress(TypeError):  # of an array of strings
            return torch.as_tensor(value)
    if not isinstance(value, Tensor):
        kind = type(value).__name__
        raise _failed(name, index, f"its label has under {key!r} a {kind}, expected a tensor or a number; leave it out")
    return value


def _label(name: str, index: int, label: object) -> Any:
    if label is None:
        return UNKNOWN
    if isinstance(label, Mapping):
        return {key: _member(name, index, key, value) for key, value in label.items()}
    if not isinstance(label, (Tensor, np.ndarray, np.number, np.bool_, int, float)):
        kind = type(label).__name__
        raise _failed(name, index, f"its label must be a class number, a dict of tensors or None, got a {kind}")
    label = torch.as_tensor(label)
    return label if label.ndim else label.item()


def _failed(name: str, index: int, reason: str) -> InputError:
    return InputError(f"data {name!r}: item {index} failed: {reason}")


class Typed(Dataset[tuple[Tensor, Any]]):
    """The items of `dataset` with floating-point images in `dtype`."""

    def __init__(self, dataset: Dataset[tuple[Tensor, Any]], dtype: torch.dtype) -> None:
        self.dataset, self._dtype = dataset, dtype

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        image, label = self.dataset[index]
        return image.to(self._dtype) if image.is_floating_point() else image, label

    def __len__(self) -> int:
        return size_of(self.dataset)


def typed(dataset: Dataset[Any], dtype: torch.dtype) -> Dataset[tuple[Tensor, Any]]:
    """`dataset`, its items checked, with floating-point images in `dtype`; other images are as they are.

    No item is read before it is asked for: a search never asks for those of the test part.
    """
    if isinstance(dataset, ArrayDataset):
        kept = not dataset.images.is_floating_point() or dataset.images.dtype == dtype
        return dataset if kept else ArrayDataset(dataset.images.to(dtype), dataset.labels)
    return Typed(checked(dataset), dtype)


def checked(dataset: Dataset[Any], name: str = "data") -> Dataset[tuple[Tensor, Any]]:
    """`dataset` with its items checked; images in memory are as they are."""
    return dataset if isinstance(dataset, (ArrayDataset, Checked, Typed)) else Checked(dataset, name)


def innermost(dataset: Dataset[Any]) -> Dataset[Any]:
    """The data set below those that check, convert or choose its items."""
    while isinstance(dataset, Checked | Typed | Subset):
        dataset = dataset.dataset
    return dataset


def is_finite(image: Tensor) -> bool:
    """Whether a tensor holds neither NaN nor infinite values."""
    return not image.is_floating_point() or bool(image.isfinite().all())


def size_of(dataset: Dataset[Any]) -> int:
    """Number of items. Raises InputError where the dataset has no length."""
    try:
        return len(cast(LabelledImages, dataset))
    except (TypeError, NotImplementedError) as error:
        raise InputError(
            f"expected a dataset with a length and items by number, got a {type(dataset).__name__} without a length; "
            "give a map-style dataset, for example list(dataset)"
        ) from error
