"""Batches of a dataset in a given order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from nasprune.data.splits import ArrayDataset, LabelledImages, size_of


def batches(
    dataset: Dataset[tuple[Tensor, int]], size: int, order: Sequence[int] | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Images (n, ...) and labels (n,), n ≤ `size`. order: item numbers, each once; else 0, 1, 2, …"""
    indices = list(order) if order is not None else list(range(size_of(dataset)))
    for start in range(0, len(indices), size):
        chosen = indices[start : start + size]
        if isinstance(dataset, ArrayDataset):
            yield dataset.images[chosen], dataset.labels[chosen]
        else:
            items = cast(LabelledImages, dataset)
            images, labels = default_collate([items[index] for index in chosen])
            yield images, torch.as_tensor(labels)
