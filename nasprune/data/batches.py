"""Batches of a dataset in a given order."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import Any, overload

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from nasprune.data.ahead import read_ahead
from nasprune.data.items import ArrayDataset, as_labels, checked, size_of
from nasprune.errors import InputError

VALUES = 2**22
"""Numbers in the images of a batch: 27 colour images of 224 pixels, more than a thousand of 32."""


def draw(size: int, count: int) -> list[int]:
    """Numbers of at most `count` of `size` items in an order without a pattern, always the same.

    Data sets are often ordered by class; the first of them, or batches of one class, would stand for nothing.
    """
    return random.Random(0).sample(range(size), min(size, count))


def together(dataset: Dataset[tuple[Tensor, int]], most: int) -> int:
    """How many images go through a network at once: `most`, and fewer where they have many numbers, but at least 8."""
    if not size_of(dataset):
        return most
    first, _ = next(batches(dataset, 1, [0]))
    numbers = int(first[0].numel())
    return min(most, max(8, VALUES // max(numbers, 1)))


def batches(
    dataset: Dataset[tuple[Tensor, int]], size: int, order: Sequence[int] | None = None
) -> Iterator[tuple[Any, Any]]:
    """Images (n, ...) and labels (n,), n ≤ `size`. order: item numbers, each once; else 0, 1, 2, …

    Images without a label have the label -1; classes are int64, whatever whole numbers they were. Labels that are
    dicts, as of boxes, come in a list, and so do images where they differ in shape.

    Raises:
        InputError: an item cannot be read, or has another shape than the others.
    """
    items = checked(dataset)
    indices = list(order) if order is not None else list(range(size_of(dataset)))
    chosen = [indices[start : start + size] for start in range(0, len(indices), size)]
    if isinstance(items, ArrayDataset):
        for some in chosen:
            yield items.images[some], items.labels[some]
        return
    with closing(read_ahead(items, chosen)) as found:
        for read in found:
            if any(isinstance(label, dict) for _, label in read):
                yield _stacked([image for image, _ in read]), [label for _, label in read]
                continue
            images, labels = default_collate(read)
            yield images, as_labels(torch.as_tensor(labels))


def grouped(found: Iterator[tuple[Any, Any]], count: int) -> Iterator[list[tuple[Any, Any]]]:
    """The same batches, `count` at a time; fewer at the end."""
    while some := list(islice(found, count)):
        yield some


def _stacked(images: list[Tensor]) -> Tensor | list[Tensor]:
    """One tensor where all have one shape."""
    return torch.stack(images) if len({image.shape for image in images}) == 1 else images


class EqualBatches(Sequence[Tensor]):
    """Inputs (size, ...) of some items, read whenever they are asked for; the last batch repeats items to be full.

    Args:
        order: item numbers. size: of every batch, at most as many as there are items.

    Raises:
        InputError: an item cannot be read, has another shape than the others, or holds NaN or infinite values.
    """

    def __init__(
        self, dataset: Dataset[tuple[Tensor, int]], order: Sequence[int], size: int, device: torch.device | str = "cpu"
    ) -> None:
        self._dataset, self._order, self._device = dataset, list(order), device
        self._size = min(size, len(self._order))

    def __len__(self) -> int:
        return -(-len(self._order) // self._size)

    @overload
    def __getitem__(self, number: int) -> Tensor: ...
    @overload
    def __getitem__(self, number: slice) -> list[Tensor]: ...
    def __getitem__(self, number: int | slice) -> Tensor | list[Tensor]:
        if isinstance(number, slice):
            return [self[each] for each in range(len(self))[number]]
        start = min(range(len(self))[number] * self._size, len(self._order) - self._size)
        inputs, _ = next(batches(self._dataset, self._size, self._order[start : start + self._size]))
        if not isinstance(inputs, Tensor):
            raise InputError("calibration images differ in shape; give them in one, resized or cut in the data set")
        return finite(inputs).to(self._device)


def finite(inputs: Tensor) -> Tensor:
    """The inputs as they are.

    Raises:
        InputError: they hold NaN or infinite values.
    """
    if not bool(inputs.isfinite().all()):
        raise InputError("some calibration images hold NaN or infinite values; give images that are finite")
    return inputs


def has_labels(dataset: Dataset[tuple[Tensor, int]]) -> bool:
    """Whether any image has a label, any number but for whole ones below 0; reads on until one is found."""
    return any(
        not isinstance(labels, Tensor) or labels.is_floating_point() or bool((labels >= 0).any())
        for _, labels in batches(dataset, 64)
    )
