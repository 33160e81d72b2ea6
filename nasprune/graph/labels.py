"""Channel labels: which channel each element of a tensor belongs to, and what has been learned about channels.

Every tensor carries factors. A factor is an integer array of channel ids that broadcasts to the tensor, and the axis
that gets shorter when channels go. Most activations carry one factor of shape (1, C, 1, 1); a convolution's weight
carries one for its output axis and one for its input axis. Axes without a factor have a fixed size.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Factor:
    """ids: as many dimensions as the tensor, size 1 along axes it does not depend on. cut: the axis that shrinks.

    Other axes of size above 1 are index axes: each index keeps channels of its own, equally many for every index.
    """

    ids: Ints
    cut: int

    @property
    def index_axes(self) -> list[int]:
        return [axis for axis, size in enumerate(self.ids.shape) if size > 1 and axis != self.cut]

    @property
    def plain(self) -> bool:
        """Whether the ids depend on the cut axis alone."""
        return bool(self.ids.size == self.ids.shape[self.cut])

    @property
    def flat(self) -> Ints:
        return self.ids.reshape(-1)


Labels = tuple[Factor, ...]


@dataclass(frozen=True)
class Partition:
    """Parts of an axis that must keep the same share of their channels.

    loose: the code gives the size of each part by itself, so that one that stays whole does not bind the others.
    """

    parts: tuple[Ints, ...]
    loose: bool = False


class Channels:
    """Collects ids and facts about them while the rules walk the graph; `coupling` turns the facts into units."""

    def __init__(self) -> None:
        self.size = 0
        self.ties: list[tuple[Ints, Ints]] = []
        self.frozen: list[tuple[Ints, str]] = []
        self.doubts: list[tuple[Ints, str]] = []
        self.partitions: list[Partition] = []
        self.consumed: list[Ints] = []

    def new(self, count: int) -> Ints:
        """Fresh ids, shape (count,)."""
        ids = np.arange(self.size, self.size + count, dtype=np.int64)
        self.size += count
        return ids

    def tie(self, left: Ints, right: Ints) -> None:
        """The channels at each position of the two broadcast arrays stand or fall together."""
        a, b = np.broadcast_arrays(left, right)
        self.ties.append((a.reshape(-1), b.reshape(-1)))

    def freeze(self, ids: Ints, reason: str) -> None:
        self.frozen.append((ids.reshape(-1), reason))

    def freeze_all(self, labels: Iterable[Factor], reason: str) -> None:
        for factor in labels:
            self.freeze(factor.ids, reason)

    def doubt(self, ids: Ints, node: str) -> None:
        """The code that ran this operation may have fixed the number of these channels: a trial cut has to show."""
        self.doubts.append((ids.reshape(-1), node))

    def consume(self, ids: Ints) -> None:
        """These channels are summed up: what reads them is an operation, not a layer with weights of its own."""
        self.consumed.append(ids.reshape(-1))

    def partition(self, parts: Sequence[Ints], *, loose: bool = False) -> None:
        """See `Partition`."""
        self.partitions.append(Partition(tuple(part.reshape(-1) for part in parts), loose))

    def align(self, factor: Factor, axes: Iterable[int]) -> Factor:
        """Ties the channels along index axes, so that the ids no longer depend on them."""
        ids = factor.ids
        for axis in axes:
            if ids.shape[axis] > 1:
                first = ids.take([0], axis)
                self.tie(first, ids)
                ids = first
        return replace(factor, ids=ids)

    def plain(self, factor: Factor) -> Factor:
        return self.align(factor, factor.index_axes)


def at(labels: Labels, axis: int) -> Factor | None:
    """The factor that shortens `axis`, if any."""
    return next((factor for factor in labels if factor.cut == axis), None)


def without(labels: Labels, *dropped: Factor | None) -> Labels:
    return tuple(factor for factor in labels if not any(factor is other for other in dropped))


def along(ids: Ints, axis: int, ndim: int) -> Factor:
    """A plain factor with one id for each position of `axis` in a tensor of `ndim` axes."""
    shape = [1] * ndim
    shape[axis] = ids.size
    return Factor(ids.reshape(shape), axis)


def permuted(labels: Labels, order: Sequence[int]) -> Labels:
    """The labels after `tensor.permute(order)`."""
    return tuple(Factor(factor.ids.transpose(order), list(order).index(factor.cut)) for factor in labels)


def unsqueezed(labels: Labels, axis: int) -> Labels:
    """The labels after a new axis of size 1 at `axis`."""
    return tuple(Factor(np.expand_dims(factor.ids, axis), factor.cut + (factor.cut >= axis)) for factor in labels)


def squeezed(labels: Labels, axis: int) -> Labels:
    """The labels after `axis`, on which no factor depends, is removed."""
    return tuple(
        Factor(np.take(factor.ids, 0, axis), factor.cut - (factor.cut > axis))
        for factor in labels
        if factor.cut != axis
    )


def extended(labels: Labels, ndim: int) -> Labels:
    """The labels with axes of size 1 added in front up to `ndim` axes."""
    return tuple(
        Factor(
            factor.ids.reshape((1,) * (ndim - factor.ids.ndim) + factor.ids.shape), factor.cut + ndim - factor.ids.ndim
        )
        for factor in labels
    )
