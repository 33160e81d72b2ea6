"""Batches of a dataset in a given order."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from nasprune.data.items import ArrayDataset, checked, size_of


def draw(size: int, count: int) -> list[int]:
    """Numbers of at most `count` of `size` items in an order without a pattern, always the same.

    Data sets are often ordered by class; the first of them, or batches of one class, would stand for nothing.
    """
    return random.Random(0).sample(range(size), min(size, count))


def batches(
    dataset: Dataset[tuple[Tensor, int]], size: int, order: Sequence[int] | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Images (n, ...) and labels (n,), n ≤ `size`. order: item numbers, each once; else 0, 1, 2, …

    Images without a label have the label -1.

    Raises:
        InputError: an item cannot be read, or has another shape than the others.
    """
    items = checked(dataset)
    indices = list(order) if order is not None else list(range(size_of(dataset)))
    for start in range(0, len(indices), size):
        chosen = indices[start : start + size]
        if isinstance(items, ArrayDataset):
            yield items.images[chosen], items.labels[chosen]
        else:
            images, labels = default_collate([items[index] for index in chosen])
            yield images, torch.as_tensor(labels)


def has_labels(dataset: Dataset[tuple[Tensor, int]]) -> bool:
    """Whether any image has a label; reads on until one is found."""
    return any(bool((labels >= 0).any()) for _, labels in batches(dataset, 64))
