"""What trial cuts found out about sizes in the user's code, and what follows from it for the channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class AxisOf:
    """An axis of a value of the program."""

    node: str
    axis: int


Place = tuple[str | int, ...]
"""Where a module holds a number: the name of an attribute, then attributes, keys and indices of what that holds."""


@dataclass(frozen=True)
class AttributeHint:
    """An integer that a module holds and that says how long an axis is."""

    module: str
    place: Place
    size: AxisOf

    @property
    def name(self) -> str:
        """The place without indices."""
        return ".".join(step for step in self.place if isinstance(step, str))


@dataclass(frozen=True)
class ScaleHint:
    """A number in the program that the code computes from a size: that of `size`, to the `power`."""

    node: str
    size: AxisOf
    power: float


@dataclass(frozen=True)
class Hints:
    """Readings of the user's code that its program alone does not tell.

    splits: reshape -> which of the axes that it splits a channel axis into gets shorter, counted from the end (-2 for
    the heads in "heads, features"). links: axes that keep equal shares, since the code takes the size of
    one for another.
    """

    splits: Mapping[str, int] = field(default_factory=dict)
    links: tuple[tuple[AxisOf, ...], ...] = ()
    attributes: tuple[AttributeHint, ...] = ()
    scales: tuple[ScaleHint, ...] = ()

    def with_more(self, other: Hints) -> Hints:
        return replace(
            self,
            splits={**self.splits, **other.splits},
            links=(*self.links, *(link for link in other.links if link not in self.links)),
            attributes=(*self.attributes, *(one for one in other.attributes if one not in self.attributes)),
            scales=(*self.scales, *(one for one in other.scales if one not in self.scales)),
        )


@dataclass(frozen=True)
class SizedNumber:
    """A number that follows the size of an axis. units: those along the axis, shape (rows, size), -1 for none."""

    units: Ints

    @property
    def dense(self) -> int:
        return int(self.units.shape[1])

    def size(self, keep: Bools) -> int:
        """The size once only the kept units stay; see `ModelGraph.unit_mask`."""
        return int(keep[self.units].sum()) // len(self.units)


@dataclass(frozen=True)
class SizeAttribute(SizedNumber):
    """A number that `build` sets to the size of an axis."""

    module: str
    place: Place


@dataclass(frozen=True)
class SizeScale(SizedNumber):
    """A number in the program that is a power of the size of an axis."""

    power: float

    def factor(self, keep: Bools) -> float:
        """By how much the number changes."""
        return float((self.size(keep) / self.dense) ** self.power)
