"""The record of a data set in four parts, and the seeded split that makes them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from nasprune.data.items import ArrayDataset, LabelledImages, checked, size_of, typed
from nasprune.errors import InputError

__all__ = ["SHARES", "ArrayDataset", "DataSplits", "LabelledImages", "size_of", "split", "split_indices", "subset"]

SHARES = {"train": 0.6, "calibration": 0.1, "validation": 0.1, "test": 0.2}


@dataclass(frozen=True)
class DataSplits:
    """A labelled data set in four disjoint parts.

    train: what weights are fitted to. calibration: what batch-norm statistics are re-estimated on. validation: what
    candidates and epochs are chosen by. test: looked at once, for the final numbers.
    num_classes: `None` where the source does not say. input_shape: of one item, without the batch axis.
    given: the parts that were given as such; the others were drawn from the images given for training.
    normalisation: what was done to the pixels, in words.
    """

    name: str
    train: Dataset[tuple[Tensor, int]]
    calibration: Dataset[tuple[Tensor, int]]
    validation: Dataset[tuple[Tensor, int]]
    test: Dataset[tuple[Tensor, int]]
    num_classes: int | None
    input_shape: tuple[int, ...]
    given: tuple[str, ...] = tuple(SHARES)
    normalisation: str = "as given"

    @property
    def split(self) -> str:
        """The sizes of the parts and where they are from, in words."""
        sizes = {part: size_of(getattr(self, part)) for part in SHARES}
        words = ", ".join(f"{size:,} {part}" for part, size in sizes.items()) + " images"
        drawn = [part for part in SHARES if part not in self.given]
        if not drawn:
            return f"{words}, as given"
        pool = sum(sizes[part] for part in drawn)
        if not self.given:
            return f"{words}, drawn by the seed from the {pool:,} given"
        return f"{words}; {' and '.join(self.given)} as given, the others drawn by the seed from {pool:,} for training"

    def in_type(self, dtype: torch.dtype) -> DataSplits:
        """The same data with floating-point images in `dtype`."""
        return replace(
            self,
            train=typed(self.train, dtype),
            calibration=typed(self.calibration, dtype),
            validation=typed(self.validation, dtype),
            test=typed(self.test, dtype),
        )

    def __post_init__(self) -> None:
        for part in SHARES:
            if not size_of(getattr(self, part)):
                raise InputError(f"data {self.name!r}: the {part} part is empty; give more images")


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
    validation: Dataset[tuple[Tensor, int]] | None = None,
    test: Dataset[tuple[Tensor, int]] | None = None,
    normalisation: str = "as given",
) -> DataSplits:
    """Divides `dataset` by `SHARES`; where `test` or both are given, only into the others, in the same proportion.

    A `validation` part without a `test` part is looked at once, for the final numbers: it is the test part.

    Raises:
        InputError: fewer than ten items, or a first item that is no image.
    """
    dataset = checked(dataset, name)
    count = size_of(dataset)
    if count < 10:
        raise InputError(f"data {name!r}: expected at least 10 images, got {count}")
    if test is None:
        validation, test = None, validation
    given = {part: checked(own, name) for part, own in (("validation", validation), ("test", test)) if own is not None}
    left = sum(share for part, share in SHARES.items() if part not in given)
    shares = {part: share / left for part, share in SHARES.items() if part not in given}
    chosen = split_indices(labels if labels is not None else [0] * count, tuple(shares.values()), seed)
    parts = given | {part: subset(dataset, indices) for part, indices in zip(shares, chosen, strict=True)}
    return DataSplits(
        name=name,
        **parts,
        num_classes=num_classes,
        input_shape=tuple(dataset[0][0].shape),
        given=tuple(given),
        normalisation=normalisation,
    )
