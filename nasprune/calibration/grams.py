"""Covariances of what a layer reads of a group, summed batch by batch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nasprune.base import ConsumerGram
from nasprune.calibration.consumers import Consumer
from nasprune.calibration.layers import weight_matrix
from nasprune.calibration.products import add_products, mirror
from nasprune.graph.model import Ints

FEATURES = 6144  # largest side of a Gram matrix, unless the group alone has more units


class GramSums:
    """The Gram matrices of one consumer: one, or several, each for a part of k, where width * k is above 6,144.

    Products between features of different parts are then left out, as if they were uncorrelated.
    """

    def __init__(self, one: Consumer) -> None:
        self.batches = 0
        self._samples = 0
        self._weight = one.weight()
        self._columns = _parts(one)
        self._features = weight_matrix(one.modules[0]).shape[1]
        sizes = [part.size for part in self._columns]
        self._grams = [torch.zeros(size, size, device="cpu") for size in sizes]
        self._sums = [torch.zeros(size, dtype=torch.float64, device="cpu") for size in sizes]
        self._shifts: list[Tensor] = []  # products are taken about the first batch's means, against cancellation

    def add(self, rows: Tensor) -> None:
        """rows: (n, groups * features), float32 on the CPU."""
        self.batches += 1
        self._samples += len(rows)
        for index, (part, gram, total) in enumerate(zip(self._columns, self._grams, self._sums, strict=True)):
            flat = torch.from_numpy(part.reshape(-1))
            chosen = rows[:, flat.clamp(min=0)]
            if (flat < 0).any():
                chosen[:, flat < 0] = 0
            if index == len(self._shifts):
                self._shifts.append(chosen.mean(dim=0))
            chosen -= self._shifts[index]
            add_products(gram, chosen)
            total += chosen.sum(dim=0, dtype=torch.float64)

    def finished(self) -> list[ConsumerGram]:
        """Nothing where the layer never ran."""
        found: list[ConsumerGram] = []
        start = 0
        for part, gram, total, shift in zip(self._columns, self._grams, self._sums, self._shifts, strict=False):
            off = (total / self._samples).float()
            covariance = mirror(gram).div_(self._samples).addr_(off, off, alpha=-1)
            seen = torch.from_numpy(np.maximum(part.reshape(-1), 0) // self._features)
            if (seen != seen[0]).any():
                covariance *= seen[:, None] == seen[None, :]
            weight = self._weight[:, :, start : start + part.shape[1]]
            start += part.shape[1]
            found.append(ConsumerGram(weight, covariance, shift + off, seen, self._samples))
        return found


def gram_bytes(one: Consumer) -> int:
    """Memory of a consumer's Gram matrices."""
    return sum(4 * part.size**2 for part in _parts(one))


def _parts(one: Consumer) -> list[Ints]:
    """The consumer's columns (width, k), split along k so that no part has more than 6,144 features."""
    width, k = one.columns.shape
    count = min(k, -(-width * k // FEATURES))
    return [part for part in np.array_split(one.columns, count, axis=1) if part.size]
