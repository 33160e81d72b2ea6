"""The record of a data set in four parts, and the seeded split that makes them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from nasprune.errors import InputError

SHARES = {"train": 0.6, "calibration": 0.1, "validation": 0.1, "test": 0.2}


class LabelledImages(Protocol):
    """A map-style dataset: item i is an image (C, H, W) and its class number."""

    def __getitem__(self, index: int, /) -> tuple[Tensor, int]: ...

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class DataSplits:
    """A labelled data set in four disjoint parts.

    train: what weights are fitted to. calibration: what batch-norm statistics are re-estimated on. validation: what
    candidates and epochs are chosen by. test: looked at once, for the final numbers.
    num_classes: `None` where the source does not say. input_shape: of one item, without the batch axis.
    """

    name: str
    train: Dataset[tuple[Tensor, int]]
    calibration: Dataset[tuple[Tensor, int]]
    validation: Dataset[tuple[Tensor, int]]
    test: Dataset[tuple[Tensor, int]]
    num_classes: int | None
    input_shape: tuple[int, ...]

    def __post_init__(self) -> None:
        for part in SHARES:
            if not size_of(getattr(self, part)):
                raise InputError(f"data {self.name!r}: the {part} part is empty; give more images")


class ArrayDataset(Dataset[tuple[Tensor, int]]):
    """Images in memory. images: (N, ...), labels: (N,) integers."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        if len(images) != len(labels) or labels.ndim != 1:
            raise InputError(
                f"expected one integer label per image, got {len(images)} images and labels of shape "
                f"{tuple(labels.shape)}"
            )
        self.images = images
        self.labels = labels.long()

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.labels[index])

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, indices: Sequence[int]) -> ArrayDataset:
        """The images at `indices`, in that order."""
        return ArrayDataset(self.images[list(indices)], self.labels[list(indices)])


def size_of(dataset: Dataset[tuple[Tensor, int]]) -> int:
    """Number of items."""
    return len(cast(LabelledImages, dataset))


def subset(dataset: Dataset[tuple[Tensor, int]], indices: Sequence[int]) -> Dataset[tuple[Tensor, int]]:
    """The items at `indices`, in that order."""
    return dataset.subset(indices) if isinstance(dataset, ArrayDataset) else Subset(dataset, list(indices))


def split_indices(labels: Sequence[int], shares: Sequence[float], seed: int) -> list[list[int]]:
    """Disjoint ascending index lists, one per share, each class divided in the same shares.

    Args:
        labels: class of each item; equal numbers where classes are unknown.
        shares: adding up to one; items left over by rounding go to the parts that lack most.
    """
    rng = random.Random(seed)
    by_class: dict[int, list[int]] = {}
    for index, label in enumerate(labels):
        by_class.setdefault(label, []).append(index)
    parts: list[list[int]] = [[] for _ in shares]
    seen = 0
    for label in sorted(by_class):
        members = by_class[label]
        rng.shuffle(members)
        seen += len(members)
        start = 0
        for number, share in enumerate(shares[:-1]):
            count = max(0, min(round(share * seen) - len(parts[number]), len(members) - start))
            parts[number] += members[start : start + count]
            start += count
        parts[-1] += members[start:]
    return [sorted(part) for part in parts]


def split(
    name: str,
    dataset: Dataset[tuple[Tensor, int]],
    *,
    seed: int,
    labels: Sequence[int] | None = None,
    num_classes: int | None = None,
    test: Dataset[tuple[Tensor, int]] | None = None,
) -> DataSplits:
    """Divides `dataset` by `SHARES`; where `test` is given, only into the other three, in the same proportion.

    Raises:
        InputError: fewer than ten items, or items that are not (tensor, integer) pairs.
    """
    count = size_of(dataset)
    if count < 10:
        raise InputError(f"data {name!r}: expected at least 10 images, got {count}")
    shares = dict(SHARES)
    if test is not None:
        left = 1 - shares.pop("test")
        shares = {part: share / left for part, share in shares.items()}
    chosen = split_indices(labels if labels is not None else [0] * count, tuple(shares.values()), seed)
    parts = {part: subset(dataset, indices) for part, indices in zip(shares, chosen, strict=True)}
    return DataSplits(
        name=name,
        train=parts["train"],
        calibration=parts["calibration"],
        validation=parts["validation"],
        test=parts["test"] if test is None else test,
        num_classes=num_classes,
        input_shape=item_shape(name, dataset),
    )


def item_shape(name: str, dataset: Dataset[tuple[Tensor, int]]) -> tuple[int, ...]:
    """Shape of the first image. Raises InputError unless items are (tensor, integer) pairs."""
    item = dataset[0]
    if not (isinstance(item, (tuple, list)) and len(item) == 2 and isinstance(item[0], torch.Tensor)):
        raise InputError(f"data {name!r}: expected (tensor, class number) items, got {type(item).__name__}")
    return tuple(item[0].shape)
